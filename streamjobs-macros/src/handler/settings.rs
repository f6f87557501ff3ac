//! Writes the handler's settings and its schedule as constants.

use std::num::NonZeroU32;
use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

use super::batch::Batch;
use super::limits::KeyOrder;
use super::model::{Backoff, Settings, Source, Start, Unhandled};
use super::rate::Rate;
use super::schedule::{Missed, Timing};
use crate::duration;
use crate::paths::Paths;

/// The settings; an option that the attribute does not have is `None`.
pub(super) fn options(settings: &Settings, paths: &Paths) -> TokenStream {
    let path = paths.private("HandlerOptions");
    let concurrency = count(settings.concurrency);
    let max_attempts = count(settings.max_attempts);
    let max_deliveries = count(settings.max_deliveries);
    let timeout = optional(settings.timeout, duration::tokens);
    let expires = optional(settings.expires, duration::tokens);
    let backoff = optional(settings.backoff.as_ref(), |value| backoff(value, paths));
    let lease = optional(settings.lease, duration::tokens);
    let start = optional(settings.start.as_ref(), |value| start(value, paths));
    let unhandled = optional(settings.unhandled.as_ref(), |value| unhandled(value, paths));
    let unhandled_after = optional(settings.unhandled_after, duration::tokens);
    let order = optional(settings.limits.order.as_ref(), |value| key_order(value, paths));
    let concurrency_per_key = count(settings.limits.per_key);
    let concurrency_total = count(settings.limits.total);
    let fair = optional(
        settings.limits.fair.then_some(&true),
        |fair| quote_spanned!(Span::mixed_site()=> #fair),
    );
    let rate = optional(settings.rate.as_ref(), |value| rate(value, paths));
    let keep_done = optional(settings.keep_done, duration::tokens);
    let slots = optional(
        settings.slot_set.slots.as_deref(),
        |name| quote_spanned!(Span::mixed_site()=> #name),
    );
    let weight = count(settings.slot_set.weight);
    quote_spanned! {Span::mixed_site()=>
        #path {
            concurrency: #concurrency,
            max_attempts: #max_attempts,
            max_deliveries: #max_deliveries,
            timeout: #timeout,
            expires: #expires,
            backoff: #backoff,
            lease: #lease,
            start: #start,
            unhandled: #unhandled,
            unhandled_after: #unhandled_after,
            order: #order,
            concurrency_per_key: #concurrency_per_key,
            concurrency_total: #concurrency_total,
            fair: #fair,
            rate: #rate,
            keep_done: #keep_done,
            keep_done_max: ::core::option::Option::None,
            slots: #slots,
            weight: #weight,
        }
    }
}

/// The schedule of the handler, if it has one.
pub(super) fn schedule(source: &Source, group: &TokenStream, paths: &Paths) -> TokenStream {
    let span = Span::mixed_site();
    let Source::Scheduled(_, _, schedule) = source else {
        return quote_spanned!(span=> ::core::option::Option::None);
    };
    let (path, name) = (paths.private("ScheduleDeclaration"), &schedule.name);
    let timing = timing(&schedule.timing, paths);
    let missed = missed(schedule.missed, paths);
    let jitter = duration::tokens(schedule.jitter);
    let skip_while = match schedule.skips_overlap {
        true => quote_spanned!(span=> ::core::option::Option::Some(#group)),
        false => quote_spanned!(span=> ::core::option::Option::None),
    };
    quote_spanned! {span=>
        ::core::option::Option::Some(#path {
            name: #name,
            timing: #timing,
            missed: #missed,
            skip_while: #skip_while,
            jitter: #jitter,
        })
    }
}

/// How long the handler's result is kept, if it is kept.
pub(super) fn result(keep: Option<Duration>) -> TokenStream {
    optional(keep, duration::tokens)
}

/// How many jobs share a run, if the handler takes several.
pub(super) fn batch(batch: Option<Batch>, paths: &Paths) -> TokenStream {
    optional(batch, |batch| batch_options(batch, &paths.private("BatchOptions")))
}

pub(super) fn batch_options(Batch { size, wait }: Batch, path: &TokenStream) -> TokenStream {
    let (size, wait) = (number(size.get()), duration::tokens(wait));
    quote_spanned!(Span::mixed_site()=> #path { size: #size, wait: #wait })
}

fn timing(timing: &Timing, paths: &Paths) -> TokenStream {
    let (span, path) = (Span::mixed_site(), paths.private("DeclaredTiming"));
    match timing {
        Timing::Cron { expression, zone } => {
            let zone = optional(zone.as_ref(), |zone| quote_spanned!(span=> #zone));
            quote_spanned!(span=> #path::Cron { expression: #expression, zone: #zone })
        }
        Timing::Every { period, offset } => {
            let (period, offset) = (duration::tokens(*period), duration::tokens(*offset));
            quote_spanned!(span=> #path::Every { period: #period, offset: #offset })
        }
    }
}

fn missed(missed: Missed, paths: &Paths) -> TokenStream {
    let (span, path) = (Span::mixed_site(), paths.private("Missed"));
    match missed {
        Missed::One => quote_spanned!(span=> #path::One),
        Missed::None => quote_spanned!(span=> #path::None),
        Missed::All { max, within } => {
            let (max, within) = (max.get(), duration::tokens(within));
            // The number is not zero.
            quote_spanned! {span=>
                #path::All {
                    max: match ::core::num::NonZeroU32::new(#max) {
                        ::core::option::Option::Some(max) => max,
                        ::core::option::Option::None => ::core::num::NonZeroU32::MIN,
                    },
                    within: #within,
                }
            }
        }
    }
}

fn optional<T>(value: Option<T>, tokens: impl FnOnce(T) -> TokenStream) -> TokenStream {
    let span = Span::mixed_site();
    match value.map(tokens) {
        Some(value) => quote_spanned!(span=> ::core::option::Option::Some(#value)),
        None => quote_spanned!(span=> ::core::option::Option::None),
    }
}

fn count(count: Option<NonZeroU32>) -> TokenStream {
    // The checked constructor turns zero into `None`.
    let count = count.map_or(0, NonZeroU32::get);
    quote_spanned!(Span::mixed_site()=> ::core::num::NonZeroU32::new(#count))
}

fn backoff(backoff: &Backoff, paths: &Paths) -> TokenStream {
    let (span, path) = (Span::mixed_site(), paths.private("Backoff"));
    match backoff {
        Backoff::Fixed(delay) => {
            let delay = duration::tokens(*delay);
            quote_spanned!(span=> #path::fixed(#delay))
        }
        Backoff::Exponential(first, max) => {
            let (first, max) = (duration::tokens(*first), duration::tokens(*max));
            quote_spanned!(span=> #path::exponential(#first, #max))
        }
    }
}

fn rate(rate: &Rate, paths: &Paths) -> TokenStream {
    let (span, path) = (Span::mixed_site(), paths.private("Rate"));
    let (starts, burst) = (rate.starts.get(), rate.burst.get());
    let per = duration::tokens(rate.per);
    let (starts, burst) = (number(starts), number(burst));
    quote_spanned!(span=> #path::new(#starts, #per).burst(#burst))
}

/// A number that is not zero.
fn number(number: u32) -> TokenStream {
    quote_spanned! {Span::mixed_site()=>
        match ::core::num::NonZeroU32::new(#number) {
            ::core::option::Option::Some(number) => number,
            ::core::option::Option::None => ::core::num::NonZeroU32::MIN,
        }
    }
}

fn start(start: &Start, paths: &Paths) -> TokenStream {
    let (span, path, id) = (Span::mixed_site(), paths.private("Start"), paths.private("EntryId"));
    match start {
        Start::Beginning => quote_spanned!(span=> #path::Beginning),
        Start::End => quote_spanned!(span=> #path::End),
        Start::After(milliseconds, sequence) => {
            quote_spanned!(span=> #path::After(#id::new(#milliseconds, #sequence)))
        }
    }
}

fn key_order(order: &KeyOrder, paths: &Paths) -> TokenStream {
    let (span, path) = (Span::mixed_site(), paths.private("KeyOrder"));
    match order {
        KeyOrder::Block => quote_spanned!(span=> #path::Block),
        KeyOrder::Skip => quote_spanned!(span=> #path::Skip),
    }
}

fn unhandled(unhandled: &Unhandled, paths: &Paths) -> TokenStream {
    let (span, path) = (Span::mixed_site(), paths.private("Unhandled"));
    match unhandled {
        Unhandled::Acknowledge => quote_spanned!(span=> #path::Acknowledge),
        Unhandled::DeadLetter => quote_spanned!(span=> #path::DeadLetter),
        Unhandled::Leave => quote_spanned!(span=> #path::Leave),
    }
}
