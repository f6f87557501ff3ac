//! Counts in attributes.

use std::num::NonZeroU32;

use syn::{Error, LitInt};

/// Parses the value of an option that counts something.
pub(crate) fn parse(name: &str, literal: &LitInt) -> syn::Result<NonZeroU32> {
    let too_large = |_| Error::new(literal.span(), format!("`{name}` is at most {}", u32::MAX));
    let count = literal.base10_parse::<u32>().map_err(too_large)?;
    NonZeroU32::new(count)
        .ok_or_else(|| Error::new(literal.span(), format!("`{name}` is at least 1")))
}
