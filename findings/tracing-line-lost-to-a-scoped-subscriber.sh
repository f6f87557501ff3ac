#!/usr/bin/env bash
# In tracing 0.1.44 (tracing-core 0.1.36), a thread with a subscriber of its own loses a log line for good
# when a thread without a subscriber has reached that line first.
#
# `set_default` gives a subscriber to one thread. The first time that a line is reached, the subscribers are
# asked whether it is of interest, and the answer is kept for all threads. As long as the process has a
# single subscriber, "the subscribers" are the one of the thread that reached the line: a thread without one
# answers "never". With a second subscriber alive anywhere, even one that is installed nowhere, all of them
# are asked, and the line is seen. Tests that look at log lines lose some of them this way, now and then,
# when other tests run beside them.
#
# The same line, reached first by a thread without a subscriber and then by the one that has it. Seen on 2026-11-30:
EXPECTED='one subscriber: 0 lines
a second one alive: 1 lines'
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
tracing = "=0.1.44"
tracing-core = "=0.1.36"
tracing-subscriber = { version = "=0.3.23", default-features = false, features = ["registry", "std"] }
[profile.dev]
debug = false
T
cat >src/main.rs <<'R'
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

struct Count(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn seen(line: fn()) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let subscriber = tracing_subscriber::registry().with(Count(count.clone()));
    let _guard = tracing::subscriber::set_default(subscriber);
    std::thread::spawn(line).join().unwrap();
    line();
    count.load(Ordering::Relaxed)
}

fn main() {
    println!("one subscriber: {} lines", seen(|| tracing::warn!("one")));
    let _second = Dispatch::new(tracing_subscriber::registry());
    println!("a second one alive: {} lines", seen(|| tracing::warn!("two")));
}
R
CARGO_TARGET_DIR=$folder/target cargo run --quiet >seen
cat seen
[ "$(cat seen)" = "$EXPECTED" ] || { echo "the behaviour has changed" >&2; exit 1; }
