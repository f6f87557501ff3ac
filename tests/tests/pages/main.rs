//! The examples of the guide's reference pages, compiled and run as they are printed.

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

mod reference;

use std::sync::{Arc, Mutex};

/// The state of every example. A runtime without a list runs all handlers that are linked into the
/// program.
#[derive(Clone, Default)]
struct Stand {
    charged: Arc<Mutex<Vec<String>>>,
}
