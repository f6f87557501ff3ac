//! Collects complaints, so that all of them are reported at once.

use proc_macro2::TokenStream;

/// Every complaint about one use of a macro.
#[derive(Default)]
pub(crate) struct Errors {
    all: Option<syn::Error>,
}

impl Errors {
    /// Adds a complaint.
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.all {
            Some(all) => all.combine(error),
            None => self.all = Some(error),
        }
    }

    /// Takes the value, or adds the complaint.
    pub(crate) fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Whether there is nothing to complain about.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_none()
    }

    /// The code that makes the compiler say it all.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.all.map(syn::Error::into_compile_error).unwrap_or_default()
    }
}
