//! The examples of the pages in `docs` about scheduling and others, compiled and run as they are printed.
//! The examples of the pages in `docs` about scheduling and testing, compiled and run as they are printed.
//! The examples of the pages in `docs` about jobs, scheduling and testing, compiled and run as they are printed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests say what is wrong by failing"
)]

mod cancel;
mod compiled;
mod evolving;
mod limits;
mod middleware;
mod progress;
mod rate;
mod recipes;
mod scheduled;
mod schedules;
mod testing;
mod unique;
mod wire;

/// Checks that a page prints what stands between the marks of a source file, apart from white space and
/// comments.
fn assert_printed(page: &str, source: &str) {
    let printed = page.split("```rust\n").skip(1).filter_map(|part| part.split("```").next());
    let run = source.split("// page: begin\n").skip(1);
    let run = run.filter_map(|part| part.split("// page: end").next());
    let bare = |code: &str| {
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let lines = lines.map(|line| line.split("   //").next().unwrap_or_default());
        lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect::<String>()
    };
    assert_eq!(printed.map(bare).collect::<Vec<_>>(), run.map(bare).collect::<Vec<_>>());
}
