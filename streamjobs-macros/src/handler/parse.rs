//! Parses the attribute's arguments and the function's head, each with its span.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{
    Attribute, Error, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Path, Signature, Token,
    Visibility, token,
};

use crate::errors::Errors;
use crate::name::Name;
use crate::suggest;

/// The options of the attribute; only the kinds of the values are checked.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) group: Option<Name>,
    pub(crate) stream: Option<Name>,
    pub(crate) concurrency: Option<LitInt>,
    pub(crate) max_attempts: Option<LitInt>,
    pub(crate) max_deliveries: Option<LitInt>,
    pub(crate) timeout: Option<LitStr>,
    pub(crate) expires: Option<LitStr>,
    pub(crate) backoff: Option<LitStr>,
    pub(crate) lease: Option<LitStr>,
    pub(crate) start: Option<LitStr>,
    pub(crate) unhandled: Option<LitStr>,
    pub(crate) unhandled_after: Option<LitStr>,
    pub(crate) wrap: Option<Path>,
    pub(crate) order: Option<LitStr>,
    pub(crate) on_failure: Option<LitStr>,
    pub(crate) concurrency_per_key: Option<LitInt>,
    pub(crate) concurrency_total: Option<LitInt>,
    pub(crate) fair: Option<LitStr>,
    pub(crate) rate: Option<LitStr>,
    pub(crate) burst: Option<LitInt>,
    pub(crate) batch: Option<LitInt>,
    pub(crate) wait: Option<LitStr>,
    pub(crate) result: Option<LitStr>,
    pub(crate) keep_done: Option<LitStr>,
    pub(crate) slots: Option<LitStr>,
    pub(crate) weight: Option<LitInt>,
    pub(crate) schedule: ScheduleOptions,
    pub(crate) root: Option<Path>,
    /// Every named option, valid or not.
    named: Vec<Ident>,
    /// What misspelt options were probably meant to be, so that they are not reported as missing.
    meant: Vec<&'static str>,
}

/// The options of a handler with a schedule.
#[derive(Default)]
pub(crate) struct ScheduleOptions {
    pub(crate) cron: Option<LitStr>,
    pub(crate) zone: Option<LitStr>,
    pub(crate) every: Option<LitStr>,
    pub(crate) offset: Option<LitStr>,
    pub(crate) missed: Option<LitStr>,
    pub(crate) missed_max: Option<LitInt>,
    pub(crate) missed_within: Option<LitStr>,
    pub(crate) overlap: Option<LitStr>,
    pub(crate) jitter: Option<LitStr>,
}

/// The head of the function. Its body is left to the compiler.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
}

impl Options {
    /// Parses as much as possible and collects the errors.
    pub(crate) fn parse(arguments: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let read = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = options.parse_one(input, errors) {
                    errors.push(error);
                    skip_to_comma(input)?;
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        let read = read.parse2(arguments);
        errors.keep(read);
        options
    }

    /// Whether the option is named, with any value.
    pub(crate) fn names(&self, option: &str) -> bool {
        self.span_of(option).is_some() || self.meant.contains(&option)
    }

    /// Where the option is named first.
    pub(crate) fn span_of(&self, option: &str) -> Option<Span> {
        self.named.iter().find(|named| *named == option).map(Ident::span)
    }

    /// Whether the handler is to have a schedule, valid or not.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.names("cron") || self.names("every")
    }

    fn parse_one(&mut self, input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<()> {
        let Ok(key) = input.call(Ident::parse_any) else {
            return Err(input.error("expected an option, as in `group = \"mail\"`"));
        };
        let name = key.to_string();
        let Some((_, example)) = EXAMPLES.iter().find(|(known, _)| *known == name) else {
            let known = EXAMPLES.map(|(known, _)| known);
            self.meant.extend(suggest::meant(&name, &known, &ELSEWHERE));
            let text = suggest::unknown_option(&name, &known, &ELSEWHERE);
            return Err(Error::new(key.span(), text));
        };
        if self.span_of(&name).is_some() {
            errors.push(Error::new(key.span(), format!("repeated option `{name}`")));
        }
        self.named.push(key.clone());
        if !input.peek(Token![=]) {
            return Err(Error::new(
                key.span(),
                format!("`{name}` needs a value, as in `{name} = {example}`"),
            ));
        }
        input.parse::<Token![=]>()?;
        let value = input.parse::<Expr>()?;
        if !input.is_empty() && !input.peek(Token![,]) {
            errors.push(input.error("expected a comma between options"));
            skip_to_comma(input)?;
        }
        self.set(&name, &value).ok_or_else(|| {
            let kind = match name.as_str() {
                "concurrency"
                | "concurrency_per_key"
                | "concurrency_total"
                | "max_attempts"
                | "max_deliveries"
                | "burst"
                | "batch"
                | "weight"
                | "missed_max" => "a whole number",
                "crate" | "wrap" => "a path",
                "group" | "stream" => "a string or the path of a constant",
                _ => "a string",
            };
            Error::new_spanned(&value, format!("`{name}` takes {kind}, as in `{name} = {example}`"))
        })
    }

    /// Stores the value; `None` if it is of the wrong kind.
    fn set(&mut self, name: &str, value: &Expr) -> Option<()> {
        match name {
            "group" => self.group = Some(Name::of(value)?),
            "stream" => self.stream = Some(Name::of(value)?),
            "concurrency" => self.concurrency = Some(count(value)?),
            "max_attempts" => self.max_attempts = Some(count(value)?),
            "max_deliveries" => self.max_deliveries = Some(count(value)?),
            "timeout" => self.timeout = Some(text(value)?),
            "expires" => self.expires = Some(text(value)?),
            "backoff" => self.backoff = Some(text(value)?),
            "lease" => self.lease = Some(text(value)?),
            "start" => self.start = Some(text(value)?),
            "unhandled" => self.unhandled = Some(text(value)?),
            "unhandled_after" => self.unhandled_after = Some(text(value)?),
            "wrap" => self.wrap = Some(path(value)?),
            "order" => self.order = Some(text(value)?),
            "on_failure" => self.on_failure = Some(text(value)?),
            "concurrency_per_key" => self.concurrency_per_key = Some(count(value)?),
            "concurrency_total" => self.concurrency_total = Some(count(value)?),
            "fair" => self.fair = Some(text(value)?),
            "rate" => self.rate = Some(text(value)?),
            "burst" => self.burst = Some(count(value)?),
            "batch" => self.batch = Some(count(value)?),
            "wait" => self.wait = Some(text(value)?),
            "result" => self.result = Some(text(value)?),
            "keep_done" => self.keep_done = Some(text(value)?),
            "slots" => self.slots = Some(text(value)?),
            "weight" => self.weight = Some(count(value)?),
            "crate" => self.root = Some(path(value)?),
            _ => return self.schedule.set(name, value),
        }
        Some(())
    }
}

impl ScheduleOptions {
    fn set(&mut self, name: &str, value: &Expr) -> Option<()> {
        match name {
            "cron" => self.cron = Some(text(value)?),
            "zone" => self.zone = Some(text(value)?),
            "every" => self.every = Some(text(value)?),
            "offset" => self.offset = Some(text(value)?),
            "missed" => self.missed = Some(text(value)?),
            "missed_max" => self.missed_max = Some(count(value)?),
            "missed_within" => self.missed_within = Some(text(value)?),
            "overlap" => self.overlap = Some(text(value)?),
            _ => self.jitter = Some(text(value)?),
        }
        Some(())
    }
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse::<Visibility>()?;
        if !is_function(&input.fork())? {
            return Err(input.error("`#[handler]` belongs on an async function"));
        }
        let signature = input.parse::<Signature>()?;
        if !input.peek(token::Brace) {
            return Err(
                input.error("a handler needs a body: use a free function and take `State<T>`")
            );
        }
        input.parse::<TokenStream>()?;
        Ok(Self { attributes, visibility, signature })
    }
}

/// Whether the head of the item has `fn`.
fn is_function(input: ParseStream<'_>) -> syn::Result<bool> {
    while let Ok(TokenTree::Ident(word)) = input.parse::<TokenTree>() {
        if word == "fn" {
            return Ok(true);
        }
        // The ABI, as in `extern "C" fn`.
        if word == "extern" && input.peek(LitStr) {
            input.parse::<LitStr>()?;
        }
    }
    Ok(false)
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

fn text(value: &Expr) -> Option<LitStr> {
    match ungrouped(value) {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.clone()),
        _ => None,
    }
}

fn count(value: &Expr) -> Option<LitInt> {
    match ungrouped(value) {
        Expr::Lit(ExprLit { lit: Lit::Int(count), .. }) => Some(count.clone()),
        _ => None,
    }
}

fn path(value: &Expr) -> Option<Path> {
    match ungrouped(value) {
        Expr::Path(path) if path.qself.is_none() => Some(path.path.clone()),
        _ => None,
    }
}

/// A value that was passed through `macro_rules!` is in an invisible group.
fn ungrouped(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => ungrouped(&group.expr),
        other => other,
    }
}

/// Every option with an example value.
const EXAMPLES: [(&str, &str); 36] = [
    ("group", "\"mail\""),
    ("stream", "\"orders\""),
    ("concurrency", "16"),
    ("max_attempts", "5"),
    ("max_deliveries", "5"),
    ("timeout", "\"30s\""),
    ("expires", "\"1h\""),
    ("backoff", "\"1s..10m\""),
    ("lease", "\"10s\""),
    ("start", "\"0\""),
    ("unhandled", "\"leave\""),
    ("unhandled_after", "\"10m\""),
    ("order", "\"key\""),
    ("on_failure", "\"block\""),
    ("concurrency_per_key", "1"),
    ("concurrency_total", "4"),
    ("fair", "\"key\""),
    ("rate", "\"100/1m\""),
    ("burst", "20"),
    ("batch", "100"),
    ("wait", "\"200ms\""),
    ("result", "\"10m\""),
    ("keep_done", "\"1h\""),
    ("slots", "\"mail\""),
    ("weight", "5"),
    ("cron", "\"0 9 * * MON-FRI\""),
    ("zone", "\"Europe/Berlin\""),
    ("every", "\"5m\""),
    ("offset", "\"1m\""),
    ("missed", "\"one\""),
    ("missed_max", "100"),
    ("missed_within", "\"24h\""),
    ("overlap", "\"skip\""),
    ("jitter", "\"30s\""),
    ("wrap", "timed"),
    ("crate", "::streamjobs"),
];

/// The names of options in other systems.
const ELSEWHERE: [(&str, &str); 28] = [
    ("attempts", "max_attempts"),
    ("batch_size", "batch"),
    ("batch_timeout", "wait"),
    ("consumer_group", "group"),
    ("delay", "backoff"),
    ("from", "start"),
    ("interval", "every"),
    ("lock", "lease"),
    ("max_concurrency", "concurrency"),
    ("max_retries", "max_attempts"),
    ("parallelism", "concurrency"),
    ("prefetch", "concurrency"),
    ("priority", "weight"),
    ("queue", "stream"),
    ("retries", "max_attempts"),
    ("retry", "max_attempts"),
    ("retry_delay", "backoff"),
    ("schedule", "cron"),
    ("subscription", "group"),
    ("time_limit", "timeout"),
    ("time_zone", "zone"),
    ("timezone", "zone"),
    ("topic", "stream"),
    ("ttl", "expires"),
    ("tz", "zone"),
    ("unknown", "unhandled"),
    ("visibility_timeout", "lease"),
    ("workers", "concurrency"),
];
