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
mod fair;
mod finished;
mod limits;
mod middleware;
mod progress;
mod rate;
mod recipes;
mod results;
mod scheduled;
mod schedules;
mod testing;
mod unique;
mod weights;
mod wire;

use streamjobs_tests::printed::assert_printed;
