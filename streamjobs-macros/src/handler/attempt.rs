//! Writes the function that runs one attempt.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote_spanned};
use syn::spanned::Spanned;
use syn::{ReturnType, Type};

use super::batch::Batch;
use super::model::{Handler, Source};
use super::parse::Function;
use super::settings;
use super::signature::{self, Argument};
use crate::paths::{Paths, at};

/// The steps: event, arguments, begin of resources, handler, and commit of resources in the same order. A run for
/// several jobs has the same steps, but takes its events last, because events that were done before are left out.
pub(super) fn run(function: &Function, handler: &Handler, paths: &Paths) -> TokenStream {
    let span = Span::mixed_site();
    let is_batch = handler.batch.is_some();
    let mut attempt = Attempt { paths, is_batch, steps: TokenStream::new(), begun: Vec::new() };
    let (first, input) = match &handler.source {
        Source::Event(event) => (event, "input"),
        Source::Raw(entry, _) => (entry, "raw_input"),
        Source::Scheduled(tick, ..) => (tick, "tick_input"),
    };
    let mut event = (!is_batch).then(|| attempt.take("__sj_event", first, input));
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
    let event = event.take().unwrap_or_else(|| attempt.take_events(first));
    let (steps, settle, run) =
        (&attempt.steps, attempt.settle(), attempt.step(span, body_step(handler)));
    let name = &function.signature.ident;
    let output = output(&function.signature.output);
    // The compiler reports a future that is not `Send` at the span of its type.
    let future = quote_spanned!(at(name.span())=> _);
    let (more, job) = (attempt.more(span), attempt.subject(span));
    let body = quote_spanned! {span=>
        |#job| ::std::boxed::Box::pin(async move {
            #steps
            let __sj_outcome = #run::<#future, #output #more>(&#job, #name(#event, #(#values),*)).await;
            #settle
            __sj_outcome
        })
    };
    match handler.batch {
        None => body,
        Some(batch) => in_batch(first, (input, batch), &body, paths),
    }
}

/// The step that runs the body.
fn body_step(handler: &Handler) -> &'static str {
    match handler.result {
        None => "run",
        Some(_) => "run_with_result",
    }
}

/// A function that runs a job together with other jobs.
fn in_batch(
    ty: &Type,
    (input, batch): (&str, Batch),
    body: &TokenStream,
    paths: &Paths,
) -> TokenStream {
    let (span, at) = (Span::mixed_site(), at(ty.span()));
    let (run, path) = (paths.private("run_in_batch"), paths.private("BatchOptions"));
    let (input, item) = (paths.private_at(at, input), item(ty, Some(batch), paths));
    let options = settings::batch_options(batch, &path);
    quote_spanned! {span=>
        |__sj_job| #run::<#item>(__sj_job, #options, #input::<#item>, #body)
    }
}

/// The type that each job gives to the handler.
pub(super) fn item(ty: &Type, batch: Option<Batch>, paths: &Paths) -> TokenStream {
    let span = at(ty.span());
    let input = paths.private_at(span, "BatchInput");
    match batch {
        None => ty.to_token_stream(),
        Some(_) => quote_spanned!(span=> <#ty as #input>::Item),
    }
}

/// The steps before the handler runs, while they are written.
struct Attempt<'a> {
    paths: &'a Paths,
    /// The run is for several jobs.
    is_batch: bool,
    steps: TokenStream,
    /// The resources that are begun at this step.
    begun: Vec<(Ident, &'a Type)>,
}

impl<'a> Attempt<'a> {
    /// Makes a value from the job with one of the framework's functions.
    fn take(&mut self, variable: &str, ty: &Type, function: &str) -> Ident {
        let span = at(ty.span());
        let (variable, function) = (Ident::new(variable, span), self.step(span, function));
        let (more, job) = (self.more(span), self.subject(span));
        self.steps.extend(quote_spanned! {span=>
            let #variable = match #function::<#ty #more>(&#job) {
                ::core::result::Result::Ok(__sj_value) => __sj_value,
                ::core::result::Result::Err(__sj_outcome) => return __sj_outcome,
            };
        });
        variable
    }

    /// Takes the events of several jobs; if none is left, the resources are settled with the outcome.
    fn take_events(&mut self, ty: &Type) -> Ident {
        let span = at(ty.span());
        let (variable, input) = (Ident::new("__sj_event", span), self.step(span, "input"));
        let (settle, job) = (self.settle(), self.subject(span));
        self.steps.extend(quote_spanned! {span=>
            let #variable = match #input::<#ty>(&#job) {
                ::core::result::Result::Ok(__sj_value) => __sj_value,
                ::core::result::Result::Err(__sj_outcome) => {
                    #settle
                    return __sj_outcome;
                }
            };
        });
        variable
    }

    /// Begins a resource; when that fails, those before it are settled with the outcome.
    fn begin(&mut self, variable: Ident, ty: &'a Type) {
        let span = at(ty.span());
        let (begin, settle) = (self.step(span, "begin"), self.settle());
        let (more, job) = (self.more(span), self.subject(span));
        self.steps.extend(quote_spanned! {span=>
            let mut #variable = match #begin::<#ty #more>(&#job).await {
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
            let (settle, more, job) =
                (self.step(span, "settle"), self.more(span), self.subject(span));
            quote_spanned! {span=>
                let __sj_outcome = #settle::<#ty #more>(&#job, #variable, __sj_outcome).await;
            }
        });
        steps.collect()
    }

    /// The framework's function for a step.
    fn step(&self, span: Span, name: &str) -> TokenStream {
        match self.is_batch {
            true => self.paths.private_at(span, &format!("batch_{name}")),
            false => self.paths.private_at(span, name),
        }
    }

    /// The additional type parameter of the functions for several jobs: the type of the events.
    fn more(&self, span: Span) -> TokenStream {
        match self.is_batch {
            true => quote_spanned!(span=> , _),
            false => TokenStream::new(),
        }
    }

    /// The variable that the steps are for.
    fn subject(&self, span: Span) -> Ident {
        Ident::new(if self.is_batch { "__sj_run" } else { "__sj_job" }, span)
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
