//! Random expressions in random zones and months, against the clock of each minute.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests say what is wrong by failing"
)]

mod stepping;

use jiff::civil::DateTime;
use jiff::tz::TimeZoneDatabase;
use proptest::collection::vec;
use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Just;
use proptest::test_runner::Config;
use streamjobs_cron::{Cron, Every, Zone};

use self::stepping::Minutes;

const DAY: i64 = 86_400;
/// Zones whose clocks change at unusual times or by unusual amounts, and some that never change.
const ZONES: [&str; 16] = [
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Scoresbysund",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Chatham",
];

/// A field: its text, its values, and whether it is `*`.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: Vec<u8>,
}

impl Field {
    fn is_star(&self) -> bool {
        self.text == "*"
    }

    fn has(&self, value: i8) -> bool {
        self.values.contains(&u8::try_from(value).unwrap())
    }
}

/// One item, with the values that it stands for.
fn item(min: u8, max: u8) -> impl Strategy<Value = Field> {
    let values = move |first: u8, last: u8, step: u8| {
        (first..=last).filter(move |value| (value - first).is_multiple_of(step)).collect::<Vec<_>>()
    };
    let one = (min..=max).prop_map(|value| Field { text: value.to_string(), values: vec![value] });
    let range = (min..max).prop_flat_map(move |first| (Just(first), first + 1..=max));
    let range = range.prop_flat_map(|(first, last)| (Just(first), Just(last), 1..=last - first));
    let range = range.prop_map(move |(first, last, step)| Field {
        text: if step == 1 { format!("{first}-{last}") } else { format!("{first}-{last}/{step}") },
        values: values(first, last, step),
    });
    let stepped = (2..=max - min)
        .prop_map(move |step| Field { text: format!("*/{step}"), values: values(min, max, step) });
    prop_oneof![3 => one, 2 => range, 1 => stepped]
}

fn field(min: u8, max: u8) -> impl Strategy<Value = Field> {
    let star = Just(Field { text: "*".to_owned(), values: (min..=max).collect() });
    let list = vec(item(min, max), 1..4).prop_map(|items| Field {
        text: items.iter().map(|item| item.text.as_str()).collect::<Vec<_>>().join(","),
        values: items.into_iter().flat_map(|item| item.values).collect(),
    });
    prop_oneof![star, list]
}

/// The same for the weekday, where 7 is Sunday as well.
fn weekday() -> impl Strategy<Value = Field> {
    field(0, 6).prop_flat_map(|field| {
        let seven = Field { text: "7".to_owned(), values: vec![0] };
        prop_oneof![4 => Just(field), 1 => Just(seven)]
    })
}

fn fields() -> impl Strategy<Value = [Field; 5]> {
    let day =
        prop_oneof![2 => field(1, 31), 1 => Just(Field { text: "*".to_owned(), values: vec![] })];
    (field(0, 59), field(0, 23), day, field(1, 12), weekday())
        .prop_map(|(minute, hour, day, month, weekday)| [minute, hour, day, month, weekday])
}

fn matches(fields: &[Field; 5], at: DateTime) -> bool {
    let [minute, hour, day, month, weekday] = fields;
    let of_month = day.has(at.day());
    let of_week = weekday.has(at.date().weekday().to_sunday_zero_offset());
    let day = match (day.is_star(), weekday.is_star()) {
        (true, true) => true,
        (true, false) => of_week,
        (false, true) => of_month,
        (false, false) => of_month || of_week,
    };
    minute.has(at.minute()) && hour.has(at.hour()) && month.has(at.month()) && day
}

/// By the text of the field and not by its values.
fn is_repeating(hour: &Field) -> bool {
    let whole = |item: &str| item.starts_with('*') || item == "0-23" || item.starts_with("0-23/");
    let all = (0..24).all(|value| hour.has(value));
    hour.text.split(',').any(whole) || all
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_occurrence_is_left_out_and_none_is_added(
        fields in fields(),
        zone in prop::sample::select(&ZONES[..]),
        // Days of the years 1990 to 2040.
        day in 7_305_i64..25_567,
    ) {
        let text = fields.clone().map(|field| field.text).join(" ");
        let (cron, zone) = (Cron::parse(&text).unwrap(), Zone::parse(zone).unwrap());
        let clock = TimeZoneDatabase::bundled().get(zone.name()).unwrap();
        // Days at both ends, for what a change of the clock outside of the month does inside.
        let (start, end) = (day * DAY, (day + 31) * DAY);
        let minutes = Minutes::of(&clock, start - 2 * DAY, 35 * 1_440);
        let expected = match is_repeating(&fields[1]) {
            true => minutes.repeating(|at| matches(&fields, at)),
            false => minutes.fixed(|at| matches(&fields, at)),
        };
        let expected = expected.into_iter().filter(|at| *at > start && *at <= end);
        let mut found = Vec::new();
        let mut now = u64::try_from(start * 1_000).unwrap();
        while let Some(next) = cron.next_after(&zone, now).unwrap() {
            prop_assert!(next > now, "{text} in {zone}: {next} after {now}");
            now = next;
            let seconds = i64::try_from(next / 1_000).unwrap();
            if seconds > end {
                break;
            }
            found.push(seconds);
        }
        prop_assert_eq!(found, expected.collect::<Vec<_>>(), "{} in {}", text, zone);
    }

    #[test]
    fn an_interval_goes_on_by_its_period(period in 1_000_u64..31_536_000_000, offset: u64, after in 0..u64::MAX / 2) {
        let offset = offset % period;
        let milliseconds = std::time::Duration::from_millis;
        let every = Every::new(milliseconds(period), milliseconds(offset)).unwrap();
        let next = every.next_after(after);
        prop_assert!(next > after && (next - after <= period || next == offset));
        prop_assert_eq!(next % period, offset);
        prop_assert_eq!(every.next_after(next), next + period);
        prop_assert_eq!(every.next_after(next - 1), next);
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place_in_it(text in "[-*/,0-9LW#a-zA-Z@? \t]{0,40}|\\PC{0,300}") {
        if let Err(error) = Cron::parse(&text) {
            let place = error.position();
            prop_assert!(text.get(place.clone()).is_some(), "{place:?} of {text:?}");
            prop_assert!(error.mark(&text).ends_with('^'));
        }
    }
}
