//! The code that the macros and the types refuse, and the messages.
//!
//! A case under `fail` has messages of the macros, any other has messages of the compiler, which depend
//! on the pinned toolchain. Set `TRYBUILD=overwrite` to write the messages again, and read the diff
//! before accepting it.

#![allow(missing_docs, reason = "tests")]

/// The cases, by what refuses them.
const CASES: [&str; 6] = [
    // Misuse of `#[handler]`, and wrong types in a handler.
    "cases/handler/fail/*.rs",
    "cases/handler/types/*.rs",
    // Misuse of the derive, and types that serde does not know.
    "cases/event/fail/*.rs",
    "cases/event/types/*.rs",
    // Reading without a group, and acknowledging by hand.
    "cases/client/*.rs",
    // Ending the guard's transaction in a handler.
    "cases/postgres/*.rs",
];

/// One test for all: cargo checks the cases of one set side by side, and sets one after the other.
#[test]
fn every_misuse_is_refused_with_its_recorded_message() {
    let cases = trybuild::TestCases::new();
    for folder in CASES {
        cases.compile_fail(folder);
    }
}
