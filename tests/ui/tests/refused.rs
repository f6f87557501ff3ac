//! The code that the macros and the types refuse, and the messages.
//!
//! A case under `fail` has messages of the macros, any other has messages of the compiler, which depend
//! on the pinned toolchain. Set `TRYBUILD=overwrite` to write the messages again, and read the diff
//! before accepting it.

#![allow(missing_docs, reason = "tests")]

#[test]
fn misuse_of_handler_is_reported_by_the_macro() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/handler/fail/*.rs");
}

#[test]
fn wrong_types_in_a_handler_are_reported_at_the_type() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/handler/types/*.rs");
}

#[test]
fn misuse_of_the_derive_is_reported_by_the_macro_at_its_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/event/fail/*.rs");
}

#[test]
fn an_event_without_serde_is_reported_at_its_name() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/event/types/*.rs");
}

#[test]
fn nothing_reads_without_a_group_or_acknowledges_by_hand() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/client/*.rs");
}

#[test]
fn no_handler_ends_the_guards_transaction() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/postgres/*.rs");
}
