//! The wording of measured facts in a diagnosis and in an alert.

use std::time::Duration;

use crate::insight::line_holder::LineHolder;
use crate::model::cause::bounded_text;
use crate::model::entry::EntryId;
use crate::model::rate::Rate;

pub(super) fn pending(entries: u64) -> String {
    format!("{entries} entries are delivered and not acknowledged")
}

pub(super) fn oldest_waiting(age: Duration) -> String {
    format!("the oldest entry has waited for {} s", age.as_secs())
}

pub(super) fn oldest_pending(idle: Duration) -> String {
    format!("the oldest pending entry has been idle for {} s", idle.as_secs())
}

pub(super) fn next_start(rate: Option<Rate>, next: Duration) -> String {
    let next = match next.as_secs() {
        0 => "the next job starts within a second".to_owned(),
        seconds => format!("no job starts for {seconds} s"),
    };
    match rate {
        Some(rate) => format!("{next}, because of the rate of {rate}"),
        None => format!("{next}, because a job of the group has asked for this wait"),
    }
}

pub(super) fn rates_differ(rates: &[(String, String)]) -> String {
    let each = rates.iter().map(|(rate, consumer)| format!("{rate} in {consumer}"));
    let each = bounded_text(&each.collect::<Vec<_>>().join("; "));
    format!("processes have different rates: {each}")
}

pub(super) fn unhandled(types: &[String]) -> String {
    let types = bounded_text(&types.join(", "));
    format!("no live process has a handler for event types {types}")
}

pub(super) fn cursor_beyond(cursor: EntryId, last: EntryId) -> String {
    format!("the cursor {cursor} is beyond the last id {last}")
}

pub(super) fn trimmed_unread(entries: u64) -> String {
    format!("{entries} entries were trimmed before they were delivered; the group has lost them")
}

pub(super) fn failing(failed: u64, attempts: u64) -> String {
    format!("{failed} of {attempts} attempts of the last five minutes failed")
}

pub(super) fn retrying(jobs: u64) -> String {
    format!("{jobs} jobs wait for a retry after a failure")
}

pub(super) fn new_dead_letters(letters: u64) -> String {
    let or_more = if letters >= 100 { " or more" } else { "" };
    format!("{letters}{or_more} dead letters were stored within the last hour")
}

pub(super) fn last_error(error: Option<&str>) -> String {
    error.map(|error| format!(", with the error: {}", bounded_text(error))).unwrap_or_default()
}

pub(super) fn claimed_early(consumer: &str) -> String {
    let other = "a consumer of other software";
    format!("{consumer}, {other}, takes running jobs before their leases have ended")
}

pub(super) fn limit_reached(
    limits: &str,
    parked: u64,
    longest_line: Option<(&(String, u64), Option<&LineHolder>)>,
) -> String {
    let mut text = format!("no more jobs run, because of the limit: {limits}");
    if parked > 0 {
        text += &format!("; {parked} jobs wait for their key");
        if let Some(((key, jobs), holder)) = longest_line {
            text += &format!(", {jobs} of them for {key}");
            // Another line may be the longest by now.
            let holder = holder.filter(|holder| holder.key == *key);
            text += &holder.map_or_else(String::new, |holder| format!(", whose {holder}"));
        }
    }
    text
}
