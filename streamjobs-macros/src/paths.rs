//! Every path that generated code names.
//!
//! All of them are absolute, so that nothing in the user's scope can get in their way.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote_spanned};
use syn::Path;

/// Where the framework is found from the user's code.
pub(crate) struct Paths {
    root: Option<Path>,
}

impl Paths {
    /// Paths below the value of `crate = ...`, or below `::streamjobs`.
    pub(crate) fn new(root: Option<Path>) -> Self {
        Self { root }
    }

    /// Something that the framework exports for its macros.
    pub(crate) fn private(&self, name: &str) -> TokenStream {
        self.private_at(Span::mixed_site(), name)
    }

    /// The same, so that complaints about its use point at a place of the user's.
    pub(crate) fn private_at(&self, span: Span, name: &str) -> TokenStream {
        let span = at(span);
        let (root, name) = (self.root(span), Ident::new(name, span));
        quote_spanned!(span=> #root::__private::#name)
    }

    /// One of the framework's hidden macros.
    pub(crate) fn hidden_macro(&self, name: &str) -> TokenStream {
        let span = Span::mixed_site();
        let (root, name) = (self.root(span), format_ident!("__{name}", span = span));
        quote_spanned!(span=> #root::#name)
    }

    fn root(&self, span: Span) -> TokenStream {
        match &self.root {
            Some(path) => quote_spanned!(span=> #path),
            None => quote_spanned!(span=> ::streamjobs),
        }
    }
}

/// A place of the user's for generated code: complaints point there, but lints know that nobody
/// wrote it, and its variables are invisible to the user's code.
pub(crate) fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}
