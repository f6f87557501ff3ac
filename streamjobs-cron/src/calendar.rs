//! The wall clock times that an expression names, without any zone.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::expression::Expression;
use crate::field::{Field, Item};

/// The first wall clock time that the expression names, from `from` on and before `until`. Each wall clock time is
/// given in seconds, as if it were a time in UTC. `None` if there is no such time, and also where the calendar ends.
pub(crate) fn first(cron: &Expression, from: i64, until: i64) -> Option<i64> {
    // Times are whole minutes.
    let minute = from.div_euclid(60) + i64::from(from.rem_euclid(60) > 0);
    let (mut day, minute_of_day) = (minute.div_euclid(1_440), minute.rem_euclid(1_440));
    let mut date = date(day)?;
    let mut earliest = u16::try_from(minute_of_day).ok()?;
    while day * DAY < until {
        if !month_matches(cron, date) {
            let left = i64::from(date.days_in_month() - date.day()) + 1;
            (day, date, earliest) = (day + left, date.last_of_month().tomorrow().ok()?, 0);
            continue;
        }
        if day_matches(cron, date)
            && let Some(minute) = time_of_day(cron, earliest)
        {
            let found = day * DAY + i64::from(minute) * 60;
            return (found < until).then_some(found);
        }
        (day, date, earliest) = (day + 1, date.tomorrow().ok()?, 0);
    }
    None
}

/// The date that is this many days after 1970-01-01.
fn date(day: i64) -> Option<Date> {
    let midnight = Timestamp::from_second(day.checked_mul(DAY)?).ok()?;
    Some(Offset::UTC.to_datetime(midnight).date())
}

/// The first minute of the day that matches, from the earliest on.
fn time_of_day(cron: &Expression, earliest: u16) -> Option<u16> {
    let hour = u8::try_from(earliest / 60).ok()?;
    let minute = u8::try_from(earliest % 60).ok()?;
    let later_minute = cron.minutes.next_from(minute).filter(|_| cron.hours.has(hour));
    let (hour, minute) = match later_minute {
        Some(minute) => (hour, minute),
        None => (cron.hours.next_from(hour + 1)?, cron.minutes.next_from(0)?),
    };
    Some(u16::from(hour) * 60 + u16::from(minute))
}

fn month_matches(cron: &Expression, date: Date) -> bool {
    u8::try_from(date.month()).is_ok_and(|month| cron.months.has(month))
}

/// If both day fields are other than `*`, a match of either is enough.
fn day_matches(cron: &Expression, date: Date) -> bool {
    match (cron.days.is_star(), cron.weekdays.is_star()) {
        (true, true) => true,
        (false, true) => has_day(&cron.days, date),
        (true, false) => has_weekday(&cron.weekdays, date),
        (false, false) => has_day(&cron.days, date) || has_weekday(&cron.weekdays, date),
    }
}

fn has_day(days: &Field, date: Date) -> bool {
    let day = date.day();
    let special = |item: &Item| match item {
        Item::LastDay => day == date.days_in_month(),
        Item::LastWorkingDay => day == working_day(date, date.days_in_month()),
        Item::Nearest(wanted) => i8::try_from(*wanted).is_ok_and(|wanted| {
            // A month that does not have the day has no day that is nearest to it.
            wanted <= date.days_in_month() && day == working_day(date, wanted)
        }),
        _ => false,
    };
    u8::try_from(day).is_ok_and(|day| days.has(day)) || days.items().iter().any(special)
}

fn has_weekday(weekdays: &Field, date: Date) -> bool {
    let day = date.day();
    let Ok(today) = u8::try_from(date.weekday().to_sunday_zero_offset()) else { return false };
    let special = |item: &Item| match *item {
        Item::Nth { weekday, nth } => {
            weekday == today
                && u8::try_from((day - 1) / 7 + 1).is_ok_and(|of_month| of_month == nth)
        }
        Item::LastWeekday(weekday) => weekday == today && day + 7 > date.days_in_month(),
        _ => false,
    };
    weekdays.has(today) || weekdays.items().iter().any(special)
}

/// The Monday to Friday nearest to a day of this date's month, in the same month.
fn working_day(date: Date, day: i8) -> i8 {
    let distance = i64::from(day) - i64::from(date.day());
    let weekday = date.weekday().wrapping_add(distance);
    match weekday.to_monday_one_offset() {
        6 if day == 1 => 3,
        6 => day - 1,
        7 if day == date.days_in_month() => day - 2,
        7 => day + 1,
        _ => day,
    }
}

const DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    /// The days of a year on which the expression has a time.
    fn days(text: &str, year: i16) -> Vec<String> {
        let cron = Expression::parse(&format!("0 0 {text}")).unwrap();
        let seconds = |date: Date| {
            let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap();
            midnight.as_second()
        };
        let end = seconds(Date::constant(year, 12, 31)) + DAY;
        let mut found = Vec::new();
        let mut from = seconds(Date::constant(year, 1, 1));
        while let Some(time) = first(&cron, from, end) {
            found.push(date(time / DAY).unwrap().to_string()[5..].to_owned());
            from = time + 1;
        }
        found
    }

    #[test]
    fn days_of_the_month_from_its_end_and_near_weekends() {
        assert_eq!(days("L 2,3,12 *", 2024), ["02-29", "03-31", "12-31"]);
        // 31 August 2024 is a Saturday, 30 June a Sunday.
        assert_eq!(days("LW 6,8,9 *", 2024), ["06-28", "08-30", "09-30"]);
        // 15 June 2024 is a Saturday, 15 September a Sunday, 1 June a Saturday.
        assert_eq!(days("15W 6,9,10 *", 2024), ["06-14", "09-16", "10-15"]);
        assert_eq!(days("1W 6 *", 2024), ["06-03"]);
        // 30 June 2024 is a Sunday. A month without a 31st has no day nearest to it.
        assert_eq!(days("30W,31W 6 *", 2024), ["06-28"]);
        assert_eq!(days("31 2,4 *", 2024), [""; 0]);
        // Each item of a list names its days, whatever the other items name.
        assert_eq!(days("L,LW,15W 8,9 *", 2024), ["08-15", "08-30", "08-31", "09-16", "09-30"]);
    }

    #[test]
    fn weekdays_counted_in_their_month() {
        assert_eq!(days("* 1,3 FRI#3", 2024), ["01-19", "03-15"]);
        assert_eq!(days("* 2,12 5L", 2024), ["02-23", "12-27"]);
        assert_eq!(days("* 2 THU#5,7L", 2024), ["02-25", "02-29"]);
        assert_eq!(days("* 4 3#5", 2024), [""; 0]);
    }

    #[test]
    fn either_day_field_is_enough_when_both_are_set() {
        assert_eq!(days("13 9 FRI", 2024), ["09-06", "09-13", "09-20", "09-27"]);
        assert_eq!(days("13 9 *", 2024), ["09-13"]);
        assert_eq!(days("* 9 FRI", 2024), ["09-06", "09-13", "09-20", "09-27"]);
        assert_eq!(days("*/10 9 TUE#1", 2024), ["09-01", "09-03", "09-11", "09-21"]);
    }

    #[test]
    fn times_are_found_from_any_second_of_a_day() {
        let cron = Expression::parse("15,45 8,17 * * *").unwrap();
        let found = |hour: i64, minute: i64, second: i64| {
            let from = hour * 3_600 + minute * 60 + second;
            let time = first(&cron, from, 2 * DAY).unwrap();
            (time / DAY, time % DAY / 3_600, time % 3_600 / 60)
        };
        assert_eq!(found(0, 0, 0), (0, 8, 15));
        assert_eq!(found(8, 15, 0), (0, 8, 15));
        assert_eq!(found(8, 15, 1), (0, 8, 45));
        assert_eq!(found(8, 46, 0), (0, 17, 15));
        assert_eq!(found(17, 45, 1), (1, 8, 15));
        assert_eq!(found(23, 59, 59), (1, 8, 15));
        assert_eq!(first(&cron, 0, 8 * 3_600 + 15 * 60), None, "the end is not part of it");
    }
}
