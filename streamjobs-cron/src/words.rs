//! An expression in English.

use crate::expression::Expression;
use crate::field::{Field, Item};

/// As in "At 09:00 on Monday to Friday".
pub(crate) fn of(cron: &Expression) -> String {
    let (times, at_times) = match listed_times(cron) {
        Some(times) => (format!("At {}", joined(&times)), true),
        None => (format!("{}{}", minutes(&cron.minutes), hours(cron)), false),
    };
    let days = match (cron.days.is_star(), cron.weekdays.is_star()) {
        (true, true) if at_times => " every day".to_owned(),
        (true, true) => String::new(),
        (false, true) => format!(" on {}", days(&cron.days)),
        (true, false) => format!(" on {}", weekdays(&cron.weekdays)),
        (false, false) => {
            format!(" on {} or on {}", days(&cron.days), weekdays(&cron.weekdays))
        }
    };
    let months = match cron.months.is_star() {
        true => String::new(),
        false => format!(" in {}", plain(&cron.months, &month)),
    };
    format!("{times}{days}{months}")
}

/// All times of a day, if they are few.
fn listed_times(cron: &Expression) -> Option<Vec<String>> {
    let (hours, minutes) = (cron.hours.values(), cron.minutes.values());
    let times = hours
        .iter()
        .flat_map(|hour| minutes.iter().map(move |minute| format!("{hour:02}:{minute:02}")));
    (hours.len() * minutes.len() <= TIMES_MAX).then(|| times.collect())
}

fn minutes(field: &Field) -> String {
    match field.items() {
        [Item::All { step: 1 }] => "Every minute".to_owned(),
        [Item::All { step }] if 60 % step == 0 => format!("Every {step} minutes"),
        [Item::One(minute)] => format!("At minute {minute}"),
        _ => format!("At minutes {}", plain(field, &|minute| minute.to_string())),
    }
}

fn hours(cron: &Expression) -> String {
    // "Every 5 minutes" needs no "of every hour".
    let every_minutes = matches!(cron.minutes.items(), [Item::All { step }] if 60 % step == 0);
    match cron.hours.items() {
        _ if cron.hours.values().len() == 24 && every_minutes => String::new(),
        _ if cron.hours.values().len() == 24 => " of every hour".to_owned(),
        [Item::All { step }] if 24 % step == 0 => {
            format!(" of every {} hour from 00:00", ordinal(*step))
        }
        [Item::One(hour)] => format!(" of hour {hour}"),
        _ => format!(" of hours {}", plain(&cron.hours, &|hour| hour.to_string())),
    }
}

/// As in "day 1 and the last day of the month".
fn days(field: &Field) -> String {
    let phrase = |item: &Item| match *item {
        Item::All { step: 1 } => "every day".to_owned(),
        Item::All { step } => format!("every {} day", ordinal(step)),
        Item::LastDay => "the last day".to_owned(),
        Item::LastWorkingDay => "the last Monday to Friday".to_owned(),
        Item::Nearest(day) => format!("the Monday to Friday nearest to day {day}"),
        Item::Range { .. } => format!("days {}", simple(*item, &|day| day.to_string())),
        other => format!("day {}", simple(other, &|day| day.to_string())),
    };
    let phrases = field.items().iter().map(phrase).collect::<Vec<_>>();
    format!("{} of the month", joined(&phrases))
}

/// As in "Monday to Friday" or "the third Friday of the month".
fn weekdays(field: &Field) -> String {
    let phrase = |item: &Item| match *item {
        Item::Nth { weekday: day, nth } => {
            let count = NTH.get(usize::from(nth)).copied().unwrap_or_default();
            format!("the {count} {} of the month", weekday(day))
        }
        Item::LastWeekday(day) => format!("the last {} of the month", weekday(day)),
        Item::All { .. } => plain(field, &weekday),
        other => simple(other, &weekday),
    };
    joined(&field.items().iter().map(phrase).collect::<Vec<_>>())
}

/// The plain items of a field; a step over all values is the list of them.
fn plain(field: &Field, name: &dyn Fn(u8) -> String) -> String {
    let all = field.items().iter().any(|item| matches!(item, Item::All { .. }));
    let parts = match all {
        true => field.values().into_iter().map(name).collect::<Vec<_>>(),
        false => field.items().iter().map(|item| simple(*item, name)).collect(),
    };
    joined(&parts)
}

/// A value, or a range with its step.
fn simple(item: Item, name: &dyn Fn(u8) -> String) -> String {
    match item {
        Item::One(value) => name(value),
        Item::Range { first, last, step: 1 } => format!("{} to {}", name(first), name(last)),
        Item::Range { first, last, step } => {
            let values = (first..=last).step_by(usize::from(step));
            joined(&values.map(name).collect::<Vec<_>>())
        }
        _ => String::new(),
    }
}

/// As in "a, b and c".
fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

fn ordinal(number: u8) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn weekday(day: u8) -> String {
    WEEKDAYS.get(usize::from(day % 7)).copied().unwrap_or_default().to_owned()
}

fn month(month: u8) -> String {
    let index = usize::from(month).checked_sub(1);
    index.and_then(|index| MONTHS.get(index)).copied().unwrap_or_default().to_owned()
}

/// The most times of a day that are listed.
const TIMES_MAX: usize = 6;
const NTH: [&str; 6] = ["", "first", "second", "third", "fourth", "fifth"];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_read_as_english() {
        for (text, words) in [
            ("0 9 * * MON-FRI", "At 09:00 on Monday to Friday"),
            ("0 9 * * *", "At 09:00 every day"),
            ("@daily", "At 00:00 every day"),
            ("@hourly", "At minute 0 of every hour"),
            ("@weekly", "At 00:00 on Sunday"),
            ("@monthly", "At 00:00 on day 1 of the month"),
            ("@yearly", "At 00:00 on day 1 of the month in January"),
            ("* * * * *", "Every minute"),
            ("*/15 * * * *", "Every 15 minutes"),
            ("*/7 * * * *", "At minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
            ("*/15 9-17 * * 1-5", "Every 15 minutes of hours 9 to 17 on Monday to Friday"),
            ("0,30 2 * * *", "At 02:00 and 02:30 every day"),
            ("0 */6 * * *", "At 00:00, 06:00, 12:00 and 18:00 every day"),
            ("5 */2 * * *", "At minute 5 of every 2nd hour from 00:00"),
            ("* 2 * * *", "Every minute of hour 2"),
            ("10-20,50 */5 * * *", "At minutes 10 to 20 and 50 of hours 0, 5, 10, 15 and 20"),
            ("0 0-23 * * *", "At minute 0 of every hour"),
            ("0 0 13 * FRI", "At 00:00 on day 13 of the month or on Friday"),
            ("0 0 1,15-17,L * *", "At 00:00 on day 1, days 15 to 17 and the last day of the month"),
            ("0 0 LW * *", "At 00:00 on the last Monday to Friday of the month"),
            ("0 0 15W * *", "At 00:00 on the Monday to Friday nearest to day 15 of the month"),
            ("0 0 */2 * *", "At 00:00 on every 2nd day of the month"),
            ("0 0 * * 5#3", "At 00:00 on the third Friday of the month"),
            ("0 0 * * 5L,1", "At 00:00 on the last Friday of the month and Monday"),
            ("0 0 * * */2", "At 00:00 on Sunday, Tuesday, Thursday and Saturday"),
            ("0 0 * * FRI-SUN", "At 00:00 on Friday to Sunday"),
            ("0 0 * 6-8,12 *", "At 00:00 every day in June to August and December"),
            ("0 0 * */6 *", "At 00:00 every day in January and July"),
            ("0 0 1-9/4 * *", "At 00:00 on days 1, 5 and 9 of the month"),
        ] {
            assert_eq!(of(&Expression::parse(text).unwrap()), words, "{text}");
        }
    }
}
