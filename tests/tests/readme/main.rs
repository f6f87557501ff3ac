//! The README's examples, compiled and run as they are printed, but for that of Postgres.

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

mod first;
mod more;

use std::sync::{Arc, Mutex};

/// The state of every example. A runtime without a list runs all handlers that are linked into the
/// program, so each example has to bring what all of them need.
#[derive(Clone, Default)]
struct Stand {
    sent: Arc<Mutex<Vec<String>>>,
    charged: Arc<Mutex<Vec<String>>>,
}
