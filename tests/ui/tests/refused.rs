//! What the macros and the types refuse, and with which words.
//!
//! A case under `fail` shows a message of ours, any other one of the compiler's, whose words belong
//! to the pinned toolchain. Set `TRYBUILD=overwrite` to write the messages down again, and read what
//! changed before keeping it.

#![allow(missing_docs, reason = "tests")]

#[test]
fn misuse_of_handler_is_told_in_our_words() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/handler/fail/*.rs");
}

#[test]
fn wrong_types_in_a_handler_are_told_at_the_type() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/handler/types/*.rs");
}

#[test]
fn misuses_of_the_derive_are_told_in_our_words_at_their_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("cases/event/fail/*.rs");
}

#[test]
fn an_event_that_serde_does_not_know_is_told_at_its_name() {
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
