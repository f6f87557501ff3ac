//! Handlers of a second crate, in a program that depends on it and never names it.
//!
//! This is what the documentation of `#[handler]` warns of: the linker leaves such a crate out.

use streamjobs::__private::linked;

#[test]
fn handlers_of_a_crate_that_is_never_named_are_not_there() {
    assert_eq!(linked().len(), 0, "{:?}", linked());
}
