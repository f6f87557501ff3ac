//! `#[handler(...)]`: parse, model, expand. The function itself is emitted unchanged in any case.

mod attempt;
mod batch;
mod expand;
mod limits;
mod model;
mod parse;
mod rate;
mod result;
mod schedule;
mod settings;
mod signature;
mod slot_set;

use proc_macro2::TokenStream;

use self::model::Handler;
use self::parse::{Function, Options};
use crate::errors::Errors;
use crate::paths::Paths;

/// The function, followed by what the runtime needs, or by all errors.
pub(crate) fn attribute(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = Options::parse(arguments, &mut errors);
    let paths = Paths::new(options.root.clone());
    let mut tokens = item.clone();
    if let Some(function) = errors.keep(syn::parse2::<Function>(item)) {
        let handler = Handler::new(options, &function, &mut errors);
        match handler.filter(|_| errors.is_empty()) {
            Some(handler) => tokens.extend(expand::handler(&function, &handler, &paths)),
            None => tokens.extend(expand::placeholder(&function, &paths)),
        }
    }
    tokens.extend(errors.into_tokens());
    tokens
}
