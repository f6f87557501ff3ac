//! The paths in generated code.
//!
//! All of them are absolute, so that names in the user's scope cannot shadow them.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote_spanned};
use syn::Path;

/// The path of the framework in the user's code.
pub(crate) struct Paths {
    root: Option<Path>,
}

impl Paths {
    /// Paths below the value of `crate = ...`, or below `::streamjobs`.
    pub(crate) fn new(root: Option<Path>) -> Self {
        Self { root }
    }

    /// An item that the framework exports for its macros.
    pub(crate) fn private(&self, name: &str) -> TokenStream {
        self.private_at(Span::mixed_site(), name)
    }

    /// As [`private`](Self::private), with errors about the item's use reported at this span.
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

/// A span for generated code that is located in the user's code: errors are reported there, while lints
/// treat the code as generated and its variables are invisible to the user's code.
pub(crate) fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}
