//! The `#[handler]` attribute and `#[derive(Event)]` of streamjobs.
//!
//! Applications use both through the `streamjobs` crate, which also documents them.

mod count;
mod duration;
mod errors;
mod event;
mod handler;
mod name;
mod paths;
mod suggest;

use proc_macro::TokenStream;

#[expect(
    missing_docs,
    reason = "documented in streamjobs/docs/handler.md, whose examples need the framework"
)]
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    handler::attribute(arguments.into(), item.into()).into()
}

#[expect(
    missing_docs,
    reason = "documented in streamjobs/docs/event.md, whose examples need the framework"
)]
#[proc_macro_derive(Event, attributes(event))]
pub fn event(item: TokenStream) -> TokenStream {
    event::derive(item.into()).into()
}
