//! Writes the function that runs one attempt.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote_spanned};
use syn::spanned::Spanned;
use syn::{ReturnType, Type};

use super::model::{Handler, Source};
use super::parse::Function;
use super::signature::{self, Argument};
use crate::paths::{Paths, at};

/// The steps: event, arguments, begin of resources, handler, and commit of resources in the same order.
pub(super) fn run(function: &Function, handler: &Handler, paths: &Paths) -> TokenStream {
    let span = Span::mixed_site();
    let mut attempt = Attempt { paths, steps: TokenStream::new(), begun: Vec::new() };
    let event = match &handler.source {
        Source::Event(event) => attempt.take("__sj_event", event, "input"),
        Source::Raw(entry, _) => attempt.take("__sj_event", entry, "raw_input"),
        Source::Scheduled(tick, ..) => attempt.take("__sj_event", tick, "tick_input"),
    };
    // Resources are begun after all arguments that the handler takes by value.
    let mut values = Vec::new();
    for (number, argument) in handler.arguments.iter().enumerate() {
        let variable = format!("__sj_argument_{number}");
        values.push(match argument {
            Argument::Extracted(ty) => attempt.take(&variable, ty, "extract").into_token_stream(),
            Argument::Resource(_) => {
                let variable = Ident::new(&variable, span);
                quote_spanned!(span=> &mut #variable)
            }
        });
    }
    for (number, argument) in handler.arguments.iter().enumerate() {
        if let Argument::Resource(ty) = argument {
            attempt.begin(format_ident!("__sj_argument_{number}", span = span), ty);
        }
    }
    let (steps, settle) = (&attempt.steps, attempt.settle());
    let (name, run) = (&function.signature.ident, paths.private("run"));
    let output = output(&function.signature.output);
    // The compiler reports a future that is not `Send` at the span of its type.
    let future = quote_spanned!(at(name.span())=> _);
    quote_spanned! {span=>
        |__sj_job| ::std::boxed::Box::pin(async move {
            #steps
            let __sj_outcome = #run::<#future, #output>(&__sj_job, #name(#event, #(#values),*)).await;
            #settle
            __sj_outcome
        })
    }
}

/// The steps before the handler runs, while they are written.
struct Attempt<'a> {
    paths: &'a Paths,
    steps: TokenStream,
    /// The resources that are begun at this step.
    begun: Vec<(Ident, &'a Type)>,
}

impl<'a> Attempt<'a> {
    /// Makes a value from the job with one of the framework's functions.
    fn take(&mut self, variable: &str, ty: &Type, function: &str) -> Ident {
        let span = at(ty.span());
        let (variable, function) =
            (Ident::new(variable, span), self.paths.private_at(span, function));
        self.steps.extend(quote_spanned! {span=>
            let #variable = match #function::<#ty>(&__sj_job) {
                ::core::result::Result::Ok(__sj_value) => __sj_value,
                ::core::result::Result::Err(__sj_outcome) => return __sj_outcome,
            };
        });
        variable
    }

    /// Begins a resource; when that fails, those before it are settled with the outcome.
    fn begin(&mut self, variable: Ident, ty: &'a Type) {
        let span = at(ty.span());
        let (begin, settle) = (self.paths.private_at(span, "begin"), self.settle());
        self.steps.extend(quote_spanned! {span=>
            let mut #variable = match #begin::<#ty>(&__sj_job).await {
                ::core::result::Result::Ok(__sj_value) => __sj_value,
                ::core::result::Result::Err(__sj_outcome) => {
                    #settle
                    return __sj_outcome;
                }
            };
        });
        self.begun.push((variable, ty));
    }

    /// Commits or rolls back the begun resources; each may change the outcome.
    fn settle(&self) -> TokenStream {
        let steps = self.begun.iter().map(|(variable, ty)| {
            let span = at(ty.span());
            let settle = self.paths.private_at(span, "settle");
            quote_spanned! {span=>
                let __sj_outcome = #settle::<#ty>(&__sj_job, #variable, __sj_outcome).await;
            }
        });
        steps.collect()
    }
}

/// The declared return type, or `_` if it cannot be repeated.
fn output(output: &ReturnType) -> TokenStream {
    match output {
        ReturnType::Type(_, ty) if signature::find_impl(ty.to_token_stream()).is_none() => {
            ty.to_token_stream()
        }
        _ => quote_spanned!(Span::mixed_site()=> _),
    }
}
