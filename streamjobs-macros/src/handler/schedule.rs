//! The schedule of a handler: `cron` or `every`, and their companion options.

use std::num::NonZeroU32;
use std::time::Duration;

use proc_macro2::Ident;
use streamjobs_cron::{CheckError, Cron, Every, Zone};
use syn::ext::IdentExt;
use syn::{Error, LitStr};

use super::parse::{Options, ScheduleOptions};
use crate::errors::Errors;
use crate::{count, duration};

/// A schedule whose options are compatible.
pub(crate) struct Schedule {
    pub(crate) name: String,
    pub(crate) timing: Timing,
    pub(crate) missed: Missed,
    pub(crate) skips_overlap: bool,
    pub(crate) jitter: Duration,
}

/// When it is due.
pub(crate) enum Timing {
    Cron { expression: String, zone: Option<String> },
    Every { period: Duration, offset: Duration },
}

/// What is done about missed occurrences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    One,
    None,
    All { max: NonZeroU32, within: Duration },
}

impl Schedule {
    /// Validates the options; `None` without a schedule, or with errors.
    pub(super) fn new(options: &Options, function: &Ident, errors: &mut Errors) -> Option<Self> {
        let named = &options.schedule;
        check_companions(options, errors);
        let missed = missed(named, errors);
        let overlap = |text: &str| match text {
            "allow" => Ok(false),
            "skip" => Ok(true),
            _ => Err(String::from("expected \"allow\" or \"skip\"")),
        };
        let skips_overlap = read(named.overlap.as_ref(), overlap, errors).unwrap_or_default();
        let jitter = read(named.jitter.as_ref(), jitter, errors).unwrap_or_default();
        let timing = match (&named.cron, &named.every) {
            (Some(_), Some(every)) => {
                let message = "a handler has one schedule: `cron` or `every`, not both";
                errors.push(Error::new(every.span(), message));
                None
            }
            (Some(expression), None) => cron(expression, named.zone.as_ref(), errors),
            (None, Some(every)) => interval(every, named.offset.as_ref(), errors),
            (None, None) => None,
        };
        let timing = timing?;
        let name = errors.keep(schedule_name(function))?;
        Some(Self { name, timing, missed, skips_overlap, jitter })
    }

    /// The event type of its ticks.
    pub(crate) fn event_type(&self) -> String {
        format!("tick.{}", self.name)
    }

    /// The stream of the ticks for a group, unless the attribute names another.
    pub(crate) fn stream(group: &LitStr) -> LitStr {
        LitStr::new(&format!("ticks:{}", group.value()), group.span())
    }
}

/// Refuses options that need another option which is missing.
fn check_companions(options: &Options, errors: &mut Errors) {
    let named = &options.schedule;
    let scheduled = options.is_scheduled();
    let all = named.missed.as_ref().is_some_and(|missed| missed.value() == "all");
    let needs = [
        ("zone", options.names("cron"), "`cron`"),
        ("offset", options.names("every"), "`every`"),
        ("missed", scheduled, "`cron` or `every`"),
        ("missed_max", all, "`missed = \"all\"`"),
        ("missed_within", all, "`missed = \"all\"`"),
        ("overlap", scheduled, "`cron` or `every`"),
        ("jitter", scheduled, "`cron` or `every`"),
    ];
    for (option, present, companion) in needs {
        if let Some(span) = options.span_of(option).filter(|_| !present) {
            errors.push(Error::new(span, format!("`{option}` needs {companion}")));
        }
    }
}

fn missed(named: &ScheduleOptions, errors: &mut Errors) -> Missed {
    let within = read(named.missed_within.as_ref(), missed_within, errors);
    let max = named.missed_max.as_ref().and_then(|max| {
        let checked = count::parse("missed_max", max).and_then(|max| match max.get() {
            1..=MISSED_MAX_MAX => Ok(max),
            _ => {
                Err(Error::new_spanned(named.missed_max.as_ref(), "`missed_max` is at most 10000"))
            }
        });
        errors.keep(checked)
    });
    let policy = |text: &str| match text {
        "one" => Ok(Missed::One),
        "none" => Ok(Missed::None),
        "all" => Ok(Missed::All {
            max: max.unwrap_or(MISSED_MAX),
            within: within.unwrap_or(MISSED_WITHIN),
        }),
        _ => Err(String::from("expected \"one\", \"none\" or \"all\"")),
    };
    read(named.missed.as_ref(), policy, errors).unwrap_or(Missed::One)
}

fn cron(expression: &LitStr, zone: Option<&LitStr>, errors: &mut Errors) -> Option<Timing> {
    let parsed_zone = zone.map(|literal| {
        let zone = Zone::parse(&literal.value());
        errors.keep(zone.map_err(|error| Error::new(literal.span(), error.to_string())))
    });
    let text = expression.value();
    let cron = Cron::parse(&text).map_err(|error| {
        // The compiler can show the whole literal only.
        Error::new(expression.span(), format!("{error}\n\n{}", error.mark(&text)))
    });
    let cron = errors.keep(cron)?;
    if never_occurs(&cron) {
        let message = format!("\"{cron}\" never occurs: there is no such day");
        errors.push(Error::new(expression.span(), message));
        return None;
    }
    let zone = match parsed_zone {
        Some(zone) => Some(zone?.to_string()),
        None => None,
    };
    Some(Timing::Cron { expression: cron.to_string(), zone })
}

/// Whether there is no occurrence in any of 32 years. Weekdays and leap years repeat after 28 years, so the answer
/// does not depend on when the program is compiled.
fn never_occurs(cron: &Cron) -> bool {
    let starts = (0..4).map(|count| YEAR_2026 + count * EIGHT_YEARS);
    let mut checks = starts.map(|start| cron.check(&Zone::utc(), start));
    checks.all(|check| check == Err(CheckError::Never))
}

fn interval(every: &LitStr, offset: Option<&LitStr>, errors: &mut Errors) -> Option<Timing> {
    let period = read(Some(every), duration::parse, errors);
    let parsed_offset = offset.map(|offset| read(Some(offset), duration::parse, errors));
    let (period, offset_value) = (period?, parsed_offset.unwrap_or(Some(Duration::ZERO))?);
    let plain = Every::new(period, Duration::ZERO);
    errors.keep(plain.map_err(|error| Error::new(every.span(), format!("`every`: {error}"))))?;
    if let Some(offset) = offset {
        let whole = Every::new(period, offset_value);
        let fault = |error| Error::new(offset.span(), format!("`offset`: {error}"));
        errors.keep(whole.map_err(fault))?;
    }
    Some(Timing::Every { period, offset: offset_value })
}

/// The function's name, by the rule for names of schedules in the core crate.
fn schedule_name(function: &Ident) -> syn::Result<String> {
    let name = function.unraw().to_string();
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match plain && name.len() <= NAME_BYTES_MAX {
        true => Ok(name),
        false => Err(Error::new(
            function.span(),
            "the schedule has the name of its function: at most 100 letters, digits and `_` of ASCII",
        )),
    }
}

fn jitter(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        jitter if jitter <= JITTER_MAX => Ok(jitter),
        _ => Err(String::from("`jitter` is at most 24h")),
    }
}

fn missed_within(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err(String::from("`missed_within` is at least 1ms")),
        within => Ok(within),
    }
}

fn read<T>(
    literal: Option<&LitStr>,
    check: impl Fn(&str) -> Result<T, String>,
    errors: &mut Errors,
) -> Option<T> {
    let literal = literal?;
    errors.keep(check(&literal.value()).map_err(|message| Error::new(literal.span(), message)))
}

const MISSED_MAX: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// The bound of the core crate.
const MISSED_MAX_MAX: u32 = 10_000;
const MISSED_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
/// The bounds of the core crate.
const JITTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const NAME_BYTES_MAX: usize = 100;
/// In milliseconds since 1970.
const YEAR_2026: u64 = 1_767_225_600_000;
const EIGHT_YEARS: u64 = 8 * 366 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_occurs_in_no_year_never_occurs() {
        let never = |text: &str| never_occurs(&Cron::parse(text).unwrap());
        assert!(never("0 0 31 2 *") && never("0 0 30,31 2 *") && never("0 0 31W 4,6 *"));
        assert!(!never("0 0 29 2 *") && !never("0 0 * 2 MON#5") && !never("0 0 31 2 MON"));
    }

    #[test]
    fn jitter_has_a_bound() {
        assert_eq!(jitter("24h"), Ok(JITTER_MAX));
        assert!(jitter("25h").is_err());
        assert!(missed_within("0s").is_err());
    }
}
