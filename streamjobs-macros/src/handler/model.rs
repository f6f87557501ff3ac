//! The validated description of a handler, which expansion relies on.

use std::num::NonZeroU32;
use std::time::Duration;

use syn::{Error, LitInt, LitStr, Path, Type};

use super::batch::Batch;
use super::limits::Limits;
use super::parse::{Function, Options};
use super::rate::Rate;
use super::result;
use super::schedule::Schedule;
use super::signature::{self, Argument, Inputs};
use super::slot_set::SlotSet;
use crate::errors::Errors;
use crate::name::Name;
use crate::{count, duration, name};

/// A handler with valid options and a valid signature.
pub(crate) struct Handler {
    pub(crate) group: Name,
    pub(crate) source: Source,
    pub(crate) settings: Settings,
    /// How many jobs share a run; `None` if each job has its own.
    pub(crate) batch: Option<Batch>,
    /// How long its result is kept, if it is kept.
    pub(crate) result: Option<Duration>,
    /// The middleware around it.
    pub(crate) wrap: Option<Path>,
    pub(crate) arguments: Vec<Argument>,
}

/// The stream of the jobs, and the type of the first argument.
pub(crate) enum Source {
    /// An event, which has its stream.
    Event(Type),
    /// All entries of a named stream.
    Raw(Type, Name),
    /// The ticks of the handler's own schedule, on this stream.
    Scheduled(Type, TickStream, Schedule),
}

/// The stream of a handler's ticks.
pub(crate) enum TickStream {
    Named(Name),
    /// The tick stream of the group that this constant names.
    OfGroup(Path),
}

/// The options that become the handler's settings; `None` means that the attribute has no such option.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) concurrency: Option<NonZeroU32>,
    pub(crate) max_attempts: Option<NonZeroU32>,
    pub(crate) max_deliveries: Option<NonZeroU32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) lease: Option<Duration>,
    pub(crate) start: Option<Start>,
    pub(crate) unhandled: Option<Unhandled>,
    pub(crate) unhandled_after: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) rate: Option<Rate>,
    /// How long notes of jobs that are done are kept.
    pub(crate) keep_done: Option<Duration>,
    pub(crate) slot_set: SlotSet,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Backoff {
    Fixed(Duration),
    Exponential(Duration, Duration),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Start {
    Beginning,
    End,
    After(u64, u64),
}

pub(crate) enum Unhandled {
    Acknowledge,
    DeadLetter,
    Leave,
}

impl Handler {
    /// Validates everything; returns a handler unless a required part is missing.
    pub(crate) fn new(options: Options, function: &Function, errors: &mut Errors) -> Option<Self> {
        let settings = Settings::new(&options, errors);
        let schedule = Schedule::new(&options, &function.signature.ident, errors);
        let batch = Batch::new(&options, errors);
        let result = result::kept_for(&options, &function.signature.output, errors);
        let inputs = signature::check(function, errors);
        if !options.names("group") {
            let message =
                "missing option `group`: name the consumer group, as in `group = \"mail\"`";
            errors.push(Error::new(proc_macro2::Span::call_site(), message));
        }
        for (literal, check) in
            [(&options.group, name::group as Check), (&options.stream, name::stream)]
        {
            errors.keep(literal.as_ref().map(check).transpose());
        }
        let Inputs { event, arguments } = inputs?;
        if !options.names("batch") {
            errors.keep(signature::single(&event));
        }
        let group = options.group?;
        let source = match (schedule, options.stream) {
            (Some(schedule), stream) => {
                let stream = match (stream, &group) {
                    (Some(stream), _) => TickStream::Named(stream),
                    (None, Name::Text(group)) => {
                        let own = Name::Text(Schedule::stream(group));
                        errors.keep(name::stream(&own));
                        TickStream::Named(own)
                    }
                    (None, Name::Constant(group)) => TickStream::OfGroup(group.clone()),
                };
                Source::Scheduled(event, stream, schedule)
            }
            (None, Some(stream)) => Source::Raw(event, stream),
            (None, None) => Source::Event(event),
        };
        Some(Self { group, source, settings, batch, result, wrap: options.wrap, arguments })
    }
}

impl Settings {
    fn new(options: &Options, errors: &mut Errors) -> Self {
        let mut count = |name: &str, literal: &Option<LitInt>| {
            let checked = literal.as_ref().map(|literal| count::parse(name, literal)).transpose();
            errors.keep(checked).flatten()
        };
        let concurrency = count("concurrency", &options.concurrency);
        let max_attempts = count("max_attempts", &options.max_attempts);
        let max_deliveries = count("max_deliveries", &options.max_deliveries);
        Self {
            concurrency,
            max_attempts,
            max_deliveries,
            timeout: checked(&options.timeout, timeout, errors),
            expires: checked(&options.expires, expires, errors),
            backoff: checked(&options.backoff, backoff, errors),
            lease: checked(&options.lease, lease, errors),
            start: checked(&options.start, start, errors),
            unhandled: checked(&options.unhandled, unhandled, errors),
            unhandled_after: checked(&options.unhandled_after, unhandled_after, errors),
            limits: Limits::new(options, errors),
            rate: Rate::new(options, errors),
            keep_done: checked(&options.keep_done, keep_done, errors),
            slot_set: SlotSet::new(options, errors),
        }
    }
}

fn checked<T>(
    literal: &Option<LitStr>,
    check: fn(&str) -> Result<T, String>,
    errors: &mut Errors,
) -> Option<T> {
    let literal = literal.as_ref()?;
    errors.keep(check(&literal.value()).map_err(|message| Error::new(literal.span(), message)))
}

fn timeout(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => {
            Err(String::from("a timeout of zero ends every attempt: omit the option for no limit"))
        }
        timeout => Ok(timeout),
    }
}

fn expires(text: &str) -> Result<Duration, String> {
    // A longer time is not a valid duration.
    match duration::parse(text)? {
        expires if expires >= EXPIRES_MIN => Ok(expires),
        _ => Err(String::from("`expires` is at least 1s: omit the option for no limit")),
    }
}

fn keep_done(text: &str) -> Result<Duration, String> {
    let keep = duration::parse(text)?;
    match keep >= KEEP_DONE_MIN && keep <= KEEP_DONE_MAX {
        true => Ok(keep),
        false => Err(String::from("`keep_done` is at least 1s and at most 7d")),
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration::parse(text)?;
    match lease >= LEASE_MIN && lease <= LEASE_MAX {
        true => Ok(lease),
        false => Err(String::from("`lease` is at least 60ms and at most 24h")),
    }
}

fn backoff(text: &str) -> Result<Backoff, String> {
    let Some((first, max)) = text.split_once("..") else {
        return duration::parse(text).map(Backoff::Fixed);
    };
    let (first, max) = (duration::parse(first)?, duration::parse(max)?);
    if first.is_zero() {
        return Err(String::from(
            "a back-off that starts at zero never grows: start with 1ms or more",
        ));
    }
    if first > max {
        return Err(format!(
            "the first delay is longer than the maximum: swap the two in {text:?}"
        ));
    }
    Ok(Backoff::Exponential(first, max))
}

fn start(text: &str) -> Result<Start, String> {
    let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse::<u64>().ok(),
        false => None,
    };
    let id = |text: &str| {
        let (milliseconds, sequence) = text.split_once('-')?;
        Some(Start::After(number(milliseconds)?, number(sequence)?))
    };
    match text {
        "0" => Ok(Start::Beginning),
        "$" => Ok(Start::End),
        _ => id(text).ok_or_else(|| {
            format!(
                "a group cannot start at {text:?}: expected \"0\" for the beginning, \"$\" for the end, \
                 or the id of an entry, as in \"1700000000000-0\""
            )
        }),
    }
}

fn unhandled(text: &str) -> Result<Unhandled, String> {
    match text {
        "acknowledge" => Ok(Unhandled::Acknowledge),
        "dead-letter" => Ok(Unhandled::DeadLetter),
        "leave" => Ok(Unhandled::Leave),
        _ => Err(String::from("expected \"leave\", \"acknowledge\" or \"dead-letter\"")),
    }
}

fn unhandled_after(text: &str) -> Result<Duration, String> {
    let after = duration::parse(text)?;
    match after >= UNHANDLED_AFTER_MIN && after <= UNHANDLED_AFTER_MAX {
        true => Ok(after),
        false => Err(String::from("`unhandled_after` is at least 1s and at most 30d")),
    }
}

type Check = fn(&Name) -> syn::Result<()>;

/// The shortest `expires` in the core crate's settings.
const EXPIRES_MIN: Duration = Duration::from_secs(1);
/// The bounds of `keep_done` and of the lease in the core crate's settings.
const KEEP_DONE_MIN: Duration = Duration::from_secs(1);
const KEEP_DONE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const LEASE_MIN: Duration = Duration::from_millis(60);
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The bounds of the time without a handler in the core crate's settings.
const UNHANDLED_AFTER_MIN: Duration = Duration::from_secs(1);
const UNHANDLED_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_is_one_duration_or_a_growing_range() {
        let seconds = Duration::from_secs;
        assert_eq!(backoff("30s"), Ok(Backoff::Fixed(seconds(30))));
        assert_eq!(backoff("0s"), Ok(Backoff::Fixed(seconds(0))));
        assert_eq!(backoff("1s..10m"), Ok(Backoff::Exponential(seconds(1), seconds(600))));
        for bad in
            ["", "..", "1s..", "..1s", "1s..=2s", "1s...2s", "2s..1s", "0s..1s", "1s..2s..3s"]
        {
            assert!(backoff(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn a_start_is_an_end_of_the_stream_or_an_entry_id() {
        assert_eq!(start("0"), Ok(Start::Beginning));
        assert_eq!(start("$"), Ok(Start::End));
        assert_eq!(start("1700000000000-3"), Ok(Start::After(1_700_000_000_000, 3)));
        for bad in ["", "-", "1", "1-", "-1", "+1-0", "1-2-3", ">", "18446744073709551616-0"] {
            assert!(start(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn leases_and_timeouts_have_bounds() {
        for bad in ["59ms", "25h", "0s"] {
            assert!(lease(bad).is_err(), "{bad} must be refused");
        }
        assert_eq!(lease("60ms"), Ok(LEASE_MIN));
        assert_eq!(lease("24h"), Ok(LEASE_MAX));
        assert!(timeout("0ms").is_err());
    }
}
