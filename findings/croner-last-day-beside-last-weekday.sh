#!/usr/bin/env bash
# In croner 4.0.3, a list of days with both `L` and `LW` loses the last day of the month.
#
# `L` is the last day of a month and `LW` its last Monday to Friday. `0 9 L,LW * *` is to occur on both,
# which are two days when the month ends at a weekend. The parser keeps one flag for "last" and one for
# "nearest weekday" for the whole field, and both together mean `LW`, so the `L` beside it is dropped
# without an error, in either order. `15W` sets its flag for its day, so `L,15W` works.
#
# Seen on 2026-11-29, for the first three months of 2026 (31 January is a Saturday, 28 February too):
EXPECTED='croner 4.0.3 L: 01-31 02-28 03-31
croner 4.0.3 LW: 01-30 02-27 03-31
croner 4.0.3 L,LW: 01-30 02-27 03-31
croner 4.0.3 LW,L: 01-30 02-27 03-31
croner 4.0.3 L,15W: 01-15 01-31 02-16 02-28 03-16 03-31'
#
# Needs a Rust toolchain. Fails if this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'T'
[package]
name = "seen"
version = "0.1.0"
edition = "2021"
[dependencies]
croner = "=4.0.3"
chrono = { version = "=0.4.45", default-features = false }
[profile.dev]
debug = false
T
cat >src/main.rs <<'R'
use std::str::FromStr;

use chrono::{Datelike, TimeZone, Utc};

fn main() {
    for days in ["L", "LW", "L,LW", "LW,L", "L,15W"] {
        let cron = croner::Cron::from_str(&format!("0 9 {days} * *")).unwrap();
        let mut now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let mut found = Vec::new();
        loop {
            now = cron.find_next_occurrence(&now, false).unwrap();
            if now.month() > 3 {
                break;
            }
            found.push(format!("{:02}-{:02}", now.month(), now.day()));
        }
        println!("croner 4.0.3 {days}: {}", found.join(" "));
    }
}
R
CARGO_TARGET_DIR=$folder/target cargo run --quiet >seen
cat seen
[ "$(cat seen)" = "$EXPECTED" ] || { echo "the behaviour has changed" >&2; exit 1; }
