//! What the compiler says of a misused `#[derive(Event)]`, and that proper uses compile.

#![allow(missing_docs, reason = "tests")]

/// `TRYBUILD=overwrite` writes the expected texts anew; read the difference.
#[test]
fn misuses_of_the_derive_are_told_in_our_words_at_their_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/event/fail/*.rs");
    cases.pass("tests/ui/event/pass/*.rs");
}
