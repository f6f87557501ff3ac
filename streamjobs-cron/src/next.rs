//! The next occurrence: converts wall clock times to instants, and handles changes of the clock.

use crate::calendar;
use crate::error::NextError;
use crate::expression::Expression;
use crate::zone::Zone;

/// The first occurrence after this time, within eight years. Times are milliseconds since 1970.
pub(crate) fn after(
    cron: &Expression,
    zone: &Zone,
    after_ms: u64,
) -> Result<Option<u64>, NextError> {
    let after = i64::try_from(after_ms / 1_000).ok().filter(|after| *after < AFTER_MAX);
    let after = after.ok_or_else(|| NextError::new(after_ms))?;
    let next = match cron.is_repeating() {
        true => repeating(cron, zone, after),
        false => fixed(cron, zone, after),
    };
    // Occurrences are whole seconds, so an occurrence after the second of the time is after the
    // time.
    let next = next.and_then(|next| u64::try_from(next).ok());
    Ok(next.map(|next| next * 1_000))
}

/// For an expression that follows the clock: each instant at which the clock shows one of its
/// times.
fn repeating(cron: &Expression, zone: &Zone, after: i64) -> Option<i64> {
    let end = after + SEARCH;
    for stretch in zone.stretches(after).take_while(|stretch| stretch.start < end) {
        let from = stretch.start.max(after + 1) + stretch.offset;
        let until = stretch.end.min(end) + stretch.offset;
        if let Some(time) = calendar::first(cron, from, until) {
            return Some(time - stretch.offset);
        }
    }
    None
}

/// For an expression whose times each occur once a day, however the clock changes.
///
/// `done` is the wall clock time up to which all times have had their occurrence. A stretch that begins below `done`
/// shows times a second time. A stretch that begins above `done` ends a gap, and the times in the gap occur at the
/// gap's end.
fn fixed(cron: &Expression, zone: &Zone, after: i64) -> Option<i64> {
    let end = after + SEARCH;
    // No clock changes by more than about a day, so earlier times have had their occurrences.
    let mut done = i64::MIN;
    let mut moved = None::<i64>;
    for stretch in zone.stretches(after - MEMORY).take_while(|stretch| stretch.start < end) {
        if moved.is_some_and(|moved| moved <= stretch.start) {
            break;
        }
        let begins = stretch.start + stretch.offset;
        if done != i64::MIN && done < begins {
            let found = first_moved(cron, done, begins, after - stretch.start);
            moved = earlier(moved, found.map(|after_gap| stretch.start + after_gap));
        }
        let from = begins.max(done).max(after + 1 + stretch.offset);
        let until = stretch.end.min(end) + stretch.offset;
        if let Some(time) = calendar::first(cron, from, until) {
            return earlier(moved, Some(time - stretch.offset));
        }
        done = done.max(stretch.end + stretch.offset);
    }
    moved.filter(|moved| *moved < end)
}

/// Finds the first of the times in a gap of the wall clock that occurs more than `after` seconds after the gap's end.
/// Returns how many seconds after that end it occurs.
fn first_moved(cron: &Expression, gap_start: i64, gap_end: i64, after: i64) -> Option<i64> {
    let first = calendar::first(cron, gap_start, gap_end)?;
    let from = first.max(first + after + 1);
    calendar::first(cron, from, gap_end).map(|time| time - first)
}

fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

/// The first time that is refused: the first second of the year 9990. A search from an earlier time
/// ends before the calendar does.
const AFTER_MAX: i64 = 253_086_768_000;
/// How far ahead is searched: eight years, so that 29 February is found on both sides of a year
/// such as 2100.
const SEARCH: i64 = 8 * 366 * 86_400;
/// How far back the search begins: more than twice the largest change of a clock.
const MEMORY: i64 = 4 * 86_400;

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZoneDatabase;

    use super::*;

    /// The occurrences within some hours, as the wall clock shows them with its offset.
    fn shown(cron: &str, zone: &str, after: &str, hours: u64) -> Vec<String> {
        let expression = Expression::parse(cron).unwrap();
        let zone = Zone::parse(zone).unwrap();
        let clock = TimeZoneDatabase::bundled().get(zone.name()).unwrap();
        let start = after.parse::<Timestamp>().unwrap().as_millisecond();
        let start = u64::try_from(start).unwrap();
        let mut found = Vec::new();
        let mut now = start;
        while let Some(next) = super::after(&expression, &zone, now).unwrap() {
            assert!(next > now, "{cron}: time goes on");
            if next > start + hours * 3_600_000 {
                return found;
            }
            let at = Timestamp::from_millisecond(i64::try_from(next).unwrap()).unwrap();
            found.push(clock.to_offset(at).to_datetime(at).strftime("%d %H:%M").to_string());
            now = next;
        }
        panic!("{cron} ends at {now}");
    }

    #[test]
    fn a_single_time_in_a_gap_occurs_at_its_end() {
        // Berlin, 29 March 2026: from 02:00 to 03:00 at 01:00 UTC.
        let night = |cron| shown(cron, "Europe/Berlin", "2026-03-28T12:00:00Z", 40);
        assert_eq!(night("30 2 * * *"), ["29 03:00", "30 02:30"]);
        assert_eq!(night("0 2 * * *"), ["29 03:00", "30 02:00"]);
        assert_eq!(night("0 3 * * *"), ["29 03:00", "30 03:00"]);
    }

    #[test]
    fn several_times_in_a_gap_keep_their_distances() {
        let night = |cron| shown(cron, "Europe/Berlin", "2026-03-28T12:00:00Z", 16);
        assert_eq!(night("0,30 2 * * *"), ["29 03:00", "29 03:30"]);
        assert_eq!(night("15,45 2,3 * * *"), ["29 03:00", "29 03:15", "29 03:30", "29 03:45"]);
        assert_eq!(night("0 1-4 * * *"), ["29 01:00", "29 03:00", "29 04:00"], "one instant");
        assert_eq!(night("*/20 2 * * *"), ["29 03:00", "29 03:20", "29 03:40"]);
    }

    #[test]
    fn a_fixed_line_occurs_in_the_first_pass_of_a_fold() {
        // Berlin, 25 October 2026: from 03:00 to 02:00 at 01:00 UTC.
        let night = |cron, after| shown(cron, "Europe/Berlin", after, 13);
        let evening = "2026-10-24T20:00:00Z";
        assert_eq!(night("0,30 2 * * *", evening), ["25 02:00", "25 02:30"]);
        assert_eq!(night("30 1-3 * * *", evening), ["25 01:30", "25 02:30", "25 03:30"]);
        let instant = |after: &str| {
            let after = after.parse::<Timestamp>().unwrap().as_millisecond();
            let next = super::after(
                &Expression::parse("30 2 * * *").unwrap(),
                &Zone::parse("Europe/Berlin").unwrap(),
                u64::try_from(after).unwrap(),
            );
            let next = i64::try_from(next.unwrap().unwrap()).unwrap();
            Timestamp::from_millisecond(next).unwrap().to_string()
        };
        assert_eq!(instant("2026-10-25T00:29:59.999Z"), "2026-10-25T00:30:00Z");
        assert_eq!(instant("2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
        assert_eq!(instant("2026-10-25T01:10:00Z"), "2026-10-26T01:30:00Z", "in the second pass");
    }

    #[test]
    fn a_repeating_line_follows_the_clock() {
        let spring = |cron| shown(cron, "Europe/Berlin", "2026-03-29T00:15:00Z", 2);
        assert_eq!(spring("*/30 * * * *"), ["29 01:30", "29 03:00", "29 03:30", "29 04:00"]);
        assert_eq!(spring("30 */2 * * *"), [""; 0], "02:30 does not exist");
        let autumn = |cron| shown(cron, "Europe/Berlin", "2026-10-24T23:45:00Z", 3);
        assert_eq!(
            autumn("*/30 * * * *"),
            ["25 02:00", "25 02:30", "25 02:00", "25 02:30", "25 03:00", "25 03:30"]
        );
        assert_eq!(autumn("0 */2 * * *"), ["25 02:00", "25 02:00"]);
    }

    #[test]
    fn the_rest_of_a_gap_day_goes_on() {
        let day = shown("0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30:00Z", 23);
        assert_eq!(day.len(), 11, "02:00 does not exist: {day:?}");
        assert_eq!(day.last().unwrap(), "29 22:00");
    }

    #[test]
    fn a_fold_of_half_an_hour_is_followed() {
        // Lord Howe, 5 April 2026: from 02:00 to 01:30 at 15:00 UTC of the 4th.
        let night = |cron| shown(cron, "Australia/Lord_Howe", "2026-04-04T13:45:00Z", 4);
        assert_eq!(night("0 * * * *"), ["05 01:00", "05 02:00", "05 03:00", "05 04:00"]);
        assert_eq!(night("45 * * * *"), ["05 01:45", "05 01:45", "05 02:45", "05 03:45"]);
        assert_eq!(night("45 1,2 * * *"), ["05 01:45", "05 02:45"]);
        // 4 October 2026: from 02:00 to 02:30.
        let spring = |cron| shown(cron, "Australia/Lord_Howe", "2026-10-03T14:45:00Z", 3);
        assert_eq!(spring("0,15,45 2 * * *"), ["04 02:30", "04 02:45"], "02:15 comes to 02:45");
        assert_eq!(spring("15 2 * * *"), ["04 02:30"]);
    }

    #[test]
    fn a_midnight_that_does_not_exist_occurs_at_one() {
        // Cairo, 24 April 2026: from 00:00 to 01:00.
        let night = |cron| shown(cron, "Africa/Cairo", "2026-04-23T12:00:00Z", 36);
        assert_eq!(night("0 0 * * *"), ["24 01:00", "25 00:00"]);
        assert_eq!(night("@daily"), ["24 01:00", "25 00:00"]);
        assert_eq!(night("0 0 24 * *"), ["24 01:00"]);
        // The date is the one that midnight would have had.
        assert_eq!(night("30 0 * * FRI"), ["24 01:00"]);
        // 29 October 2026: from 24:00 back to 23:00, in the evening.
        let autumn = |cron| shown(cron, "Africa/Cairo", "2026-10-29T12:00:00Z", 36);
        assert_eq!(autumn("0 23 * * *"), ["29 23:00", "30 23:00"]);
        assert_eq!(autumn("0 0 * * *"), ["30 00:00", "31 00:00"]);
    }

    #[test]
    fn a_day_that_does_not_exist_occurs_when_it_would_have_ended() {
        // Apia went from 29 December 2011 24:00 to 31 December 00:00, at 10:00 UTC.
        let days = |cron| shown(cron, "Pacific/Apia", "2011-12-29T12:00:00Z", 60);
        assert_eq!(days("0 9 * * *"), ["29 09:00", "31 00:00", "31 09:00", "01 09:00"]);
        assert_eq!(
            days("0 9,17 * * *"),
            ["29 09:00", "29 17:00", "31 00:00", "31 08:00", "31 09:00", "31 17:00", "01 09:00"]
        );
        assert_eq!(days("0 9 30 12 *"), ["31 00:00"]);
        assert_eq!(
            days("0 */12 * * *"),
            ["29 12:00", "31 00:00", "31 12:00", "01 00:00", "01 12:00"]
        );
    }

    #[test]
    fn a_gap_that_begins_in_a_second_pass_moves_only_what_has_not_occurred() {
        // On 10 April, the clock goes from 03:00 back to 02:00 at 02:00 UTC, and half an hour later from
        // 02:30 to 03:30.
        let zone = Zone::with_rules("STD0DST-1,J100/2:30,J100/3");
        let line = Expression::parse("15,30,45 2,3 * * *").unwrap();
        let midnight = "2026-04-10T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let mut now = midnight;
        let mut found = Vec::new();
        for _ in 0..6 {
            let next = super::after(&line, &zone, u64::try_from(now * 1_000).unwrap());
            now = i64::try_from(next.unwrap().unwrap() / 1_000).unwrap();
            found.push((now - midnight) / 60);
        }
        // In UTC: the first time at 01:15, 01:30 and 01:45; 03:15 when the gap ends; then 03:30 and 03:45.
        assert_eq!(found, [75, 90, 105, 150, 165, 24 * 60 + 75], "03:15 and 03:30 are one instant");
    }

    #[test]
    fn what_never_occurs_is_found_out_and_29_february_is_found_across_2100() {
        let next = |cron, at: &str| {
            let at = at.parse::<Timestamp>().unwrap().as_millisecond();
            let expression = Expression::parse(cron).unwrap();
            let next = super::after(&expression, &Zone::utc(), u64::try_from(at).unwrap()).unwrap();
            let shown = |next| Timestamp::from_millisecond(i64::try_from(next).unwrap()).unwrap();
            next.map(|next| shown(next).to_string())
        };
        assert_eq!(next("0 0 31 2 *", "2026-01-01T00:00:00Z"), None);
        let leap = Some("2104-02-29T00:00:00Z".to_owned());
        assert_eq!(next("0 0 29 2 *", "2096-02-29T00:00:00Z"), leap);
        // A fifth Monday in February comes every 28 years: 2044 is the next.
        assert_eq!(next("0 0 * 2 MON#5", "2026-01-01T00:00:00Z"), None);
        let fifth = Some("2044-02-29T00:00:00Z".to_owned());
        assert_eq!(next("0 0 * 2 MON#5", "2036-06-01T00:00:00Z"), fifth);
    }

    #[test]
    fn times_beyond_the_calendar_are_an_error_and_not_an_end() {
        let cron = Expression::parse("* * * * *").unwrap();
        for beyond in [u64::MAX, u64::MAX / 1_000, 253_086_768_000_000] {
            let error = super::after(&cron, &Zone::utc(), beyond).unwrap_err();
            assert_eq!(error, NextError::new(beyond));
        }
        let last = super::after(&cron, &Zone::utc(), 253_086_767_999_999);
        assert_eq!(last, Ok(Some(253_086_768_000_000)));
        for zone in ["Pacific/Kiritimati", "Pacific/Niue", "Europe/Berlin"] {
            let zone = Zone::parse(zone).unwrap();
            let fixed = Expression::parse("0 0 29 2 *").unwrap();
            let next = super::after(&fixed, &zone, 253_086_767_999_999).unwrap();
            assert!(next.is_some(), "{zone}");
            assert_eq!(super::after(&cron, &zone, 0), Ok(Some(60_000)));
        }
    }
}
