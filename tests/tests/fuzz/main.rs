//! Decoders of bytes that others write, on inputs that no publisher would write: those of the core, without
//! rows of Postgres and the forms and queries of the dashboard.
//!
//! `FUZZ_SECONDS=60 cargo test -p streamjobs-tests --test fuzz -- --nocapture` tries longer than the
//! second that each has by default. Inputs that failed stay in `tests/fuzz-corpus`.

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

mod fuzzer;
mod payloads;
mod records;
mod runtime;
mod server;
mod words;

use bytes::Bytes;

/// Fields out of an input: a line for each, `name=value`.
fn fields_of(input: &[u8]) -> Vec<(Bytes, Bytes)> {
    let field = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default();
        (Bytes::copy_from_slice(&line[..at]), Bytes::copy_from_slice(value))
    };
    input.split(|byte| *byte == b'\n').map(field).collect()
}

/// Refuses a text that repeats what only a payload or a password holds.
fn quotes_nothing(text: &str) -> Result<(), String> {
    match text.contains("canary") {
        true => Err(format!("it repeats what it must not: {text}")),
        false => Ok(()),
    }
}
