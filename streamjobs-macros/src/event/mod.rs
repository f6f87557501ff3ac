//! `#[derive(Event)]`: parse, model, expand. After an error, a placeholder implementation lets the rest
//! of the user's code compile.

mod expand;
mod model;
mod parse;
mod serde_view;

use proc_macro2::TokenStream;
use syn::DeriveInput;

use self::model::Event;
use crate::errors::Errors;
use crate::paths::Paths;

/// The implementation, or all errors.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let Some(input) = errors.keep(syn::parse2::<DeriveInput>(item)) else {
        return errors.into_tokens();
    };
    let options = parse::container(&input.attrs, &mut errors);
    let paths = Paths::new(options.root.clone());
    let event = Event::new(&input, options, &mut errors);
    let mut tokens = match event.filter(|_| errors.is_empty()) {
        Some(event) => expand::event(&event, &paths),
        None => expand::fallback(&input, &paths),
    };
    tokens.extend(errors.into_tokens());
    tokens
}
