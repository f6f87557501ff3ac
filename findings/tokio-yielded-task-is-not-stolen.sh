#!/usr/bin/env bash
# A task that has called `yield_now` of tokio 1.54.1 is not taken over by an idle thread while its own thread is
# blocked; one that wakes itself is.
#
# On the executor with several threads, tasks that can run move to a thread that is idle: a task that blocks its
# thread delays those that wait in the same queue only until they are stolen. `yield_now` reads as "put me behind
# the others in that queue". But the task waits in a list of its own thread, which nobody steals from and which is
# looked at when that thread has nothing else to do. If the next task blocks the thread for a minute, the task that
# was polite is gone for a minute, though all other threads are idle. A task that wakes itself and returns
# `Pending` does wait in the queue, and goes on elsewhere at once.
#
# Two threads. A task begins another one, which blocks its thread for two seconds, and then gives way, in both
# ways. Seen on 2026-11-30:
EXPECTED='yield_now: goes on only when the thread is free again: true
waking itself: goes on only when the thread is free again: false'
#
# Needs a Rust toolchain. Fails if this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'T'
[package]
name = "yielded"
version = "0.1.0"
edition = "2021"
[dependencies]
tokio = { version = "=1.54.1", features = ["macros", "rt-multi-thread", "time"] }
[profile.dev]
debug = false
T
cat >src/main.rs <<'R'
use std::future::{poll_fn, Future};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

const BLOCKED: Duration = Duration::from_secs(2);

/// Gives way as `yield_now` does, but by the queue of tasks.
async fn wake_itself() {
    let mut has_given_way = false;
    poll_fn(|context| {
        if has_given_way {
            return Poll::Ready(());
        }
        has_given_way = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether a task that gives way to one that blocks is away for as long as that blocks.
async fn is_away<F: Future<Output = ()> + Send + 'static>(give_way: impl FnOnce() -> F + Send + 'static) -> bool {
    let polite = tokio::spawn(async move {
        let begun = Instant::now();
        let blocking = tokio::spawn(async { thread::sleep(BLOCKED) });
        give_way().await;
        (begun.elapsed() >= BLOCKED, blocking)
    });
    let (is_away, blocking) = polite.await.unwrap();
    blocking.await.unwrap();
    is_away
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let text = "goes on only when the thread is free again";
    println!("yield_now: {text}: {}", is_away(tokio::task::yield_now).await);
    println!("waking itself: {text}: {}", is_away(wake_itself).await);
}
R
CARGO_TARGET_DIR=$folder/target cargo run --quiet >seen
cat seen
[ "$(cat seen)" = "$EXPECTED" ] || { echo "the behaviour has changed" >&2; exit 1; }
