//! Writes the item beside the function; the input is valid.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::Path;
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::model::{Handler, Settings, Source, TickStream};
use super::parse::Function;
use super::signature::Argument;
use super::{attempt, settings, signature};
use crate::paths::{Paths, at};

/// The item that carries the handler's description, and its registration.
pub(crate) fn handler(function: &Function, handler: &Handler, paths: &Paths) -> TokenStream {
    let group = handler.group.tokens("group_name", paths);
    let (stream, types) = source(handler, paths);
    let batch = settings::batch(handler.batch, paths);
    let schedule = settings::schedule(&handler.source, &group, paths);
    let options = settings::options(&handler.settings, paths);
    let result = settings::result(handler.result);
    let wrap = wrap(handler.wrap.as_ref(), paths);
    let require = require(&handler.arguments, paths);
    let run = attempt::run(function, handler, paths);
    let name = &function.signature.ident;
    let submit = paths.hidden_macro("submit_handler");
    let rest = quote_spanned! {Span::mixed_site()=>
        group: #group,
        stream: #stream,
        types: #types,
        options: #options,
        schedule: #schedule,
        batch: #batch,
        result: #result,
        wrap: #wrap,
        require: #require,
        run: #run,
    };
    item(function, paths, &rest, &quote_spanned!(Span::mixed_site()=> #submit! { #name }))
}

/// A placeholder item, so that lists that name the function cause no further errors.
pub(crate) fn placeholder(function: &Function, paths: &Paths) -> TokenStream {
    let has_own_item = function.attributes.iter().any(signature::is_handler);
    if has_own_item || function.signature.receiver().is_some() {
        return TokenStream::new();
    }
    let options = settings::options(&Settings::default(), paths);
    let rest = quote_spanned! {Span::mixed_site()=>
        group: "",
        stream: "",
        types: ::core::option::Option::None,
        options: #options,
        schedule: ::core::option::Option::None,
        batch: ::core::option::Option::None,
        result: ::core::option::Option::None,
        wrap: ::core::option::Option::None,
        require: |_| {},
        run: |_| ::std::boxed::Box::pin(::core::future::pending()),
    };
    item(function, paths, &rest, &TokenStream::new())
}

/// An empty braced struct with the function's name: types and functions have separate name spaces.
fn item(
    function: &Function,
    paths: &Paths,
    rest: &TokenStream,
    submit: &TokenStream,
) -> TokenStream {
    let conditions =
        function.attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let conditions = conditions.collect::<Vec<_>>();
    let (visibility, name) = (&function.visibility, &function.signature.ident);
    let text = name.unraw().to_string();
    let (definition, carrier) = (paths.private("HandlerDef"), paths.private("HandlerItem"));
    quote_spanned! {Span::mixed_site()=>
        #(#conditions)*
        #[doc(hidden)]
        #[allow(
            dead_code,
            missing_copy_implementations,
            missing_debug_implementations,
            non_camel_case_types,
            unnameable_types,
            unreachable_pub,
            clippy::empty_structs_with_brackets
        )]
        #visibility struct #name {}

        #(#conditions)*
        const _: () = {
            #[automatically_derived]
            #[allow(deprecated)]
            impl #carrier for #name {
                const HANDLER: #definition = #definition {
                    name: #text,
                    module: ::core::module_path!(),
                    file: ::core::file!(),
                    line: ::core::line!(),
                    #rest
                };
            }
            #submit
        };
    }
}

/// The stream, and the event types that the handler takes.
fn source(handler: &Handler, paths: &Paths) -> (TokenStream, TokenStream) {
    match &handler.source {
        Source::Event(event) => {
            let span = at(event.span());
            let event = attempt::item(event, handler.batch, paths);
            let of_event = paths.private_at(span, "Event");
            let stream = quote_spanned!(span=> <#event as #of_event>::STREAM);
            let types =
                quote_spanned!(span=> ::core::option::Option::Some(<#event as #of_event>::TYPES));
            (stream, types)
        }
        Source::Raw(_, stream) => {
            let stream = stream.tokens("stream_name", paths);
            (stream, quote_spanned!(Span::mixed_site()=> ::core::option::Option::None))
        }
        Source::Scheduled(_, stream, schedule) => {
            let (span, event_type) = (Span::mixed_site(), schedule.event_type());
            let types = quote_spanned!(span=> ::core::option::Option::Some(&[#event_type]));
            (tick_stream(stream, paths), types)
        }
    }
}

/// The stream of a handler's ticks.
fn tick_stream(stream: &TickStream, paths: &Paths) -> TokenStream {
    let path = match stream {
        TickStream::Named(stream) => return stream.tokens("stream_name", paths),
        TickStream::OfGroup(path) => path,
    };
    let span = at(path.span());
    let (name, length) =
        (paths.private_at(span, "group_name"), paths.private_at(span, "tick_stream_length"));
    let (bytes, text) =
        (paths.private_at(span, "tick_stream_bytes"), paths.private_at(span, "tick_stream_text"));
    quote_spanned! {span=>
        {
            const __SJ_GROUP: &::core::primitive::str = #name(#path);
            const __SJ_BYTES: &[::core::primitive::u8; #length(__SJ_GROUP)] = &#bytes(__SJ_GROUP);
            #text(__SJ_BYTES)
        }
    }
}

/// A function that makes the layer of the middleware.
fn wrap(wrap: Option<&Path>, paths: &Paths) -> TokenStream {
    let Some(middleware) = wrap else {
        return quote_spanned!(Span::mixed_site()=> ::core::option::Option::None);
    };
    let span = at(middleware.span());
    let layer = paths.private_at(span, "Layer");
    quote_spanned!(span=> ::core::option::Option::Some(|| #layer::new(#middleware)))
}

/// A function that adds what the arguments need.
fn require(arguments: &[Argument], paths: &Paths) -> TokenStream {
    let calls = arguments.iter().map(|argument| {
        let (ty, name) = match argument {
            Argument::Extracted(ty) => (ty, "FromJob"),
            Argument::Resource(ty) => (ty, "JobResource"),
        };
        let span = at(ty.span());
        let path = paths.private_at(span, name);
        quote_spanned!(span=> <#ty as #path>::require(__sj_requirements);)
    });
    let calls = calls.collect::<TokenStream>();
    match arguments.is_empty() {
        true => quote_spanned!(Span::mixed_site()=> |_| {}),
        false => quote_spanned!(Span::mixed_site()=> |__sj_requirements| { #calls }),
    }
}
