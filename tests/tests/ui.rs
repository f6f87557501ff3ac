//! What the macros refuse, with which words, and what they accept.
//!
//! A case under `fail` shows a message of ours, a case under `types` one of the compiler's, whose
//! words belong to the pinned toolchain. Set `TRYBUILD=overwrite` to write the messages down again,
//! and read what changed before keeping it.

#[test]
fn misuse_of_handler_is_told_in_our_words() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/handler/fail/*.rs");
}

#[test]
fn wrong_types_in_a_handler_are_told_at_the_type() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/handler/types/*.rs");
}

#[test]
fn every_option_and_shape_of_a_handler_is_accepted() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/handler/pass/*.rs");
}
