//! Every page of the dashboard over loopback: on a large stream, with a large archive, and with many groups.
//!
//! `cargo bench -p streamjobs-tests --bench dashboard`; `-- --places archive` for one of `stream`, `archive`,
//! `one` and `many`, and `--entries 100000 --archived 100000 --groups 200` for a shorter run. Reports the
//! median and the longest time of each page, how many requests it sends to Redis, how many commands run for
//! them (those in scripts included), and its bytes. A page that takes longer than 300 ms is loaded again, because the
//! machine does other work as well; if it is slow again, the benchmark fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark prints its results and fails by panicking"
)]

mod archive;
mod fleet;
mod site;
mod stream;

/// How much there is.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub entries: usize,
    pub archived: usize,
    pub groups: usize,
}

fn after(name: &str) -> Option<String> {
    let arguments = std::env::args().collect::<Vec<_>>();
    let place = arguments.iter().position(|argument| argument == name);
    place.and_then(|place| arguments.get(place + 1).cloned())
}

fn number(name: &str, default: usize) -> usize {
    after(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::main]
async fn main() {
    let sizes = Sizes {
        entries: number("--entries", 1_000_000),
        archived: number("--archived", 1_000_000),
        groups: number("--groups", 1_000),
    };
    let only = after("--places");
    let is_asked = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut slow = Vec::new();
    if is_asked("stream") {
        slow.extend(stream::measure(sizes).await);
    }
    if is_asked("archive") {
        slow.extend(archive::measure(sizes).await);
    }
    if is_asked("one") {
        slow.extend(fleet::measure(sizes, 1).await);
    }
    if is_asked("many") {
        slow.extend(fleet::measure(sizes, sizes.groups / 5).await);
    }
    assert!(slow.is_empty(), "slower than 300 ms: {slow:?}");
}
