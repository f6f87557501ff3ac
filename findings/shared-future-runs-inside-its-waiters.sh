#!/usr/bin/env bash
# A future shared with `FutureExt::shared` of futures-util 0.3.34 runs in the task locals of whichever of its
# waiters happens to poll it, and each of its wake-ups wakes all waiters.
#
# `shared` looks like a way to have several tasks wait for one piece of work. But it has no task of its own: the
# work runs inside the waiters. What a waiter has set for its task (tokio's `task_local!`, a span) is what the work
# finds, and it can be another one's after any await: a tenant set by one waiter is seen by the work of all. And a
# work that awaits k times wakes its n waiters k times each, where a task of its own wakes one. A task that the
# waiters share a handle of has neither.
#
# Ten tasks, each with its number as a task local, wait for one shared work that yields 100 times and sleeps 100 times. It counts the
# numbers that it sees, and a probe around each waiter counts its polls. Seen on 2026-11-30:
EXPECTED='shared: the work saw more than one number: true, polls of waiters above 500: true
own task: the work saw a number: false, polls of waiters above 500: false'
#
# Needs a Rust toolchain. Fails if this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'T'
[package]
name = "shared"
version = "0.1.0"
edition = "2021"
[dependencies]
futures-util = "=0.3.34"
tokio = { version = "=1.54.1", features = ["macros", "rt", "sync", "time"] }
[profile.dev]
debug = false
T
cat >src/main.rs <<'R'
use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;

tokio::task_local! {
    static NUMBER: usize;
}

/// Notes which task's number it sees between its awaits.
async fn work(seen: Arc<Mutex<HashSet<usize>>>) {
    for step in 0..200 {
        match step < 100 {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        if let Ok(number) = NUMBER.try_with(|number| *number) {
            seen.lock().unwrap().insert(number);
        }
    }
}

/// The polls of ten tasks that wait.
async fn waiters<F: Future<Output = ()> + Send + 'static>(wait: impl Fn() -> F) -> usize {
    let polls = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let (polls, mut waiting) = (Arc::clone(&polls), Box::pin(wait()));
        tasks.spawn(NUMBER.scope(number, std::future::poll_fn(move |context| {
            polls.fetch_add(1, Ordering::Relaxed);
            waiting.as_mut().poll(context)
        })));
    }
    tasks.join_all().await;
    polls.load(Ordering::Relaxed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let shared = work(Arc::clone(&seen)).boxed().shared();
    let polls = waiters(|| shared.clone()).await;
    let several = seen.lock().unwrap().len() > 1;
    println!("shared: the work saw more than one number: {several}, polls of waiters above 500: {}", polls > 500);

    let seen = Arc::new(Mutex::new(HashSet::new()));
    let (done, ended) = tokio::sync::watch::channel(false);
    let of_its_own = work(Arc::clone(&seen));
    let task = tokio::spawn(async move {
        of_its_own.await;
        done.send(true).unwrap();
    });
    let polls = waiters(|| {
        let mut ended = ended.clone();
        async move { drop(ended.wait_for(|ended| *ended).await) }
    })
    .await;
    task.await.unwrap();
    let any = !seen.lock().unwrap().is_empty();
    println!("own task: the work saw a number: {any}, polls of waiters above 500: {}", polls > 500);
}
R
CARGO_TARGET_DIR=$folder/target cargo run --quiet >seen
cat seen
[ "$(cat seen)" = "$EXPECTED" ] || { echo "the behaviour has changed" >&2; exit 1; }
