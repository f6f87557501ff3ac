//! The options of limits over all processes, which exclude each other.

use std::num::NonZeroU32;

use syn::{Error, LitStr};

use super::parse::Options;
use crate::count;
use crate::errors::Errors;

/// The limits of a handler's group.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) order: Option<KeyOrder>,
    pub(crate) per_key: Option<NonZeroU32>,
    pub(crate) total: Option<NonZeroU32>,
    pub(crate) fair: bool,
}

pub(crate) enum KeyOrder {
    Block,
    Skip,
}

impl Limits {
    pub(super) fn new(options: &Options, errors: &mut Errors) -> Self {
        exclusive(options, errors);
        let mut count = |name: &str, literal| {
            let checked = Option::map(literal, |literal| count::parse(name, literal)).transpose();
            errors.keep(checked).flatten()
        };
        let per_key = count("concurrency_per_key", options.concurrency_per_key.as_ref());
        let total = count("concurrency_total", options.concurrency_total.as_ref());
        if let Some(order) = &options.order
            && order.value() != "key"
        {
            errors.push(Error::new(
                order.span(),
                "expected \"key\": jobs are ordered by the key of their event",
            ));
        }
        if let Some(fair) = &options.fair
            && fair.value() != "key"
        {
            errors.push(Error::new(
                fair.span(),
                "expected \"key\": each key of an event has its share",
            ));
        }
        let on_failure = options.on_failure.as_ref().and_then(|text| errors.keep(on_failure(text)));
        let order = options.order.is_some().then(|| on_failure.unwrap_or(KeyOrder::Block));
        Self { order, per_key, total, fair: options.fair.is_some() }
    }
}

/// Refuses options that exclude each other, and an option without the option that it belongs to.
fn exclusive(options: &Options, errors: &mut Errors) {
    let named = LIMITS.into_iter().filter_map(|name| Some((name, options.span_of(name)?)));
    let mut named = named.collect::<Vec<_>>().into_iter();
    if let (Some((first, _)), Some((second, span))) = (named.next(), named.next()) {
        errors.push(Error::new(
            span,
            format!("`{first}` and `{second}` exclude each other: a group has one limit over all processes"),
        ));
    }
    if let Some(span) = options.span_of("on_failure").filter(|_| !options.names("order")) {
        errors.push(Error::new(span, "`on_failure` belongs to `order = \"key\"`"));
    }
}

fn on_failure(text: &LitStr) -> syn::Result<KeyOrder> {
    match text.value().as_str() {
        "block" => Ok(KeyOrder::Block),
        "skip" => Ok(KeyOrder::Skip),
        _ => Err(Error::new(text.span(), "expected \"block\" or \"skip\"")),
    }
}

const LIMITS: [&str; 4] = ["order", "concurrency_per_key", "concurrency_total", "fair"];
