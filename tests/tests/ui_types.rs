//! What the compiler says of a misused `#[derive(Event)]`, and of what is not in the interface.

#![allow(missing_docs, reason = "tests")]

/// `TRYBUILD=overwrite` writes the expected texts anew; read the difference.
#[test]
fn misuses_of_the_derive_are_told_in_our_words_at_their_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/event/fail/*.rs");
    cases.pass("tests/ui/event/pass/*.rs");
}

/// The words are the compiler's, and belong to the pinned toolchain.
#[test]
fn an_event_that_serde_does_not_know_is_told_at_its_name() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/event/types/*.rs");
}

#[test]
fn nothing_reads_without_a_group_or_acknowledges_by_hand() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/client/*.rs");
}

#[test]
fn no_handler_ends_the_guards_transaction() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/postgres/*.rs");
}
