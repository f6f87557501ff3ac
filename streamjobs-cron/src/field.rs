//! One field of an expression: its items, and the values that they name.

use crate::error::CronError;

/// One of the five fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

/// One item of a field's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    /// `*` or `*/2`.
    All { step: u8 },
    /// `5`.
    One(u8),
    /// `1-5` or `1-5/2`.
    Range { first: u8, last: u8, step: u8 },
    /// `L` as day of month: its last day.
    LastDay,
    /// `LW`: the last day of the month that is a Monday to Friday.
    LastWorkingDay,
    /// `15W`: the Monday to Friday of the month that is nearest to this day.
    Nearest(u8),
    /// `5#3`: the third Friday of the month.
    Nth { weekday: u8, nth: u8 },
    /// `5L`: the last Friday of the month.
    LastWeekday(u8),
}

/// A field: its items as written, and their plain values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Field {
    items: Vec<Item>,
    /// Bit `n` stands for the value `n`; Sunday is 0.
    values: u64,
}

impl Kind {
    /// The field's name in messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of month",
            Self::Month => "month",
            Self::Weekday => "weekday",
        }
    }

    const fn with_article(self) -> &'static str {
        match self {
            Self::Minute => "a minute",
            Self::Hour => "an hour",
            Self::Day => "a day of month",
            Self::Month => "a month",
            Self::Weekday => "a weekday",
        }
    }

    /// The lowest value of `*`, and the highest.
    const fn bounds(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::Day => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (0, 6),
        }
    }

    /// The highest number that may be written.
    const fn written_max(self) -> u8 {
        match self {
            // Sunday is 0 and 7.
            Self::Weekday => 7,
            _ => self.bounds().1,
        }
    }

    /// The names of the values, from the lowest value on.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => &MONTHS,
            Self::Weekday => &WEEKDAYS,
            _ => &[],
        }
    }

    /// What may be written, for messages.
    fn expected(self) -> String {
        let (min, max) = (self.bounds().0, self.written_max());
        match self.names() {
            [first, .., last] => format!("{min} to {max} or {first} to {last}"),
            _ => format!("{min} to {max}"),
        }
    }
}

impl Field {
    /// Reads a field that begins at this byte of the expression.
    pub(crate) fn parse(kind: Kind, text: &str, at: usize) -> Result<Self, CronError> {
        let mut field = Self { items: Vec::new(), values: 0 };
        let mut start = at;
        for part in text.split(',') {
            if part.is_empty() {
                // The comma that has nothing on one side.
                let comma = if start > at { start - 1 } else { start };
                let message = format!("a list of the {} field has an empty item", kind.name());
                return Err(CronError::new(comma..comma + 1, message));
            }
            field.items.push(item(Word { kind, text: part, at: start })?);
            start += part.len() + 1;
        }
        if field.items.len() > 1 && field.items.contains(&Item::All { step: 1 }) {
            let message = format!("`*` is every {} already: write no list", kind.name());
            return Err(CronError::new(at..at + text.len(), message));
        }
        field.values = field.items.iter().fold(0, |values, item| values | bits(kind, *item));
        Ok(field)
    }

    /// The items in the order in which they were written.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether the field is `*`, which leaves the choice to other fields.
    pub(crate) fn is_star(&self) -> bool {
        self.items == [Item::All { step: 1 }]
    }

    /// Whether the value is named.
    pub(crate) const fn has(&self, value: u8) -> bool {
        value < 64 && self.values >> value & 1 == 1
    }

    /// The lowest named value that is not below this value.
    pub(crate) fn next_from(&self, value: u8) -> Option<u8> {
        let rest = self.values.checked_shr(u32::from(value)).unwrap_or(0);
        let skipped = u8::try_from(rest.trailing_zeros()).unwrap_or(u8::MAX);
        (rest != 0).then(|| value + skipped)
    }

    /// All named values in order.
    pub(crate) fn values(&self) -> Vec<u8> {
        (0..64).filter(|value| self.has(*value)).collect()
    }
}

/// The plain values of an item; items that depend on the month have none.
fn bits(kind: Kind, item: Item) -> u64 {
    let (min, max) = kind.bounds();
    let (first, last, step) = match item {
        Item::All { step } => (min, max, step),
        Item::One(value) => (value, value, 1),
        Item::Range { first, last, step } => (first, last, step),
        _ => return 0,
    };
    let values = (first..=last).step_by(usize::from(step));
    values.fold(0, |bits, value| {
        let sunday = kind == Kind::Weekday && value == 7;
        bits | 1 << if sunday { 0 } else { value }
    })
}

/// A part of the expression with its place.
#[derive(Clone, Copy)]
struct Word<'a> {
    kind: Kind,
    text: &'a str,
    at: usize,
}

impl<'a> Word<'a> {
    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let at = self.at + before.len() + separator.len_utf8();
        Some((Self { text: before, ..self }, Self { text: after, at, ..self }))
    }

    /// The text without a letter at its end, in upper or lower case.
    fn without_suffix(self, letter: char) -> Option<Self> {
        let (last, rest) = self.text.char_indices().next_back().map(|(at, last)| (last, at))?;
        let text = self.text.get(..rest)?;
        last.eq_ignore_ascii_case(&letter).then_some(Self { text, ..self })
    }

    fn error(self, message: impl Into<String>) -> CronError {
        CronError::new(self.at..self.at + self.text.len(), message.into())
    }
}

fn item(word: Word<'_>) -> Result<Item, CronError> {
    if word.text == "*" {
        return Ok(Item::All { step: 1 });
    }
    if word.text == "?" {
        return Err(word.error("`?` is not known here: write `*`"));
    }
    if let Some((range, step)) = word.split_once('/') {
        return stepped(word, range, step);
    }
    let of_month = match word.kind {
        Kind::Day => day_of_month(word)?,
        Kind::Weekday => weekday_of_month(word)?,
        _ => None,
    };
    if let Some(item) = of_month {
        return Ok(item);
    }
    match word.split_once('-') {
        Some((first, last)) => {
            let (first, last) = range(word, first, last)?;
            Ok(Item::Range { first, last, step: 1 })
        }
        None => value(word).map(Item::One),
    }
}

/// `L`, `LW` and `15W`.
fn day_of_month(word: Word<'_>) -> Result<Option<Item>, CronError> {
    if word.text.eq_ignore_ascii_case("L") {
        return Ok(Some(Item::LastDay));
    }
    if word.text.eq_ignore_ascii_case("LW") {
        return Ok(Some(Item::LastWorkingDay));
    }
    match word.without_suffix('W') {
        Some(day) => value(day).map(|day| Some(Item::Nearest(day))),
        None => Ok(None),
    }
}

/// `5#3`, `5#L` and `5L`.
fn weekday_of_month(word: Word<'_>) -> Result<Option<Item>, CronError> {
    if let Some((day, nth)) = word.split_once('#') {
        let weekday = weekday(day)?;
        return match nth.text.as_bytes() {
            [digit @ b'1'..=b'5'] => Ok(Some(Item::Nth { weekday, nth: digit - b'0' })),
            b"L" | b"l" => Ok(Some(Item::LastWeekday(weekday))),
            _ => Err(word.error("after `#` comes which one of the month it is: 1 to 5, or L")),
        };
    }
    match word.without_suffix('L') {
        Some(day) if day.text.is_empty() => {
            let message = "`L` needs its weekday, as in `5L` for the last Friday of the month";
            Err(word.error(message))
        }
        Some(day) => weekday(day).map(|weekday| Some(Item::LastWeekday(weekday))),
        None => Ok(None),
    }
}

/// A single weekday; Sunday is 0.
fn weekday(word: Word<'_>) -> Result<u8, CronError> {
    if word.text.contains('-') {
        let message = "one weekday is expected before `#` or `L`: write a list, as in `1#1,2#1`";
        return Err(word.error(message));
    }
    value(word).map(|weekday| weekday % 7)
}

fn stepped(word: Word<'_>, base: Word<'_>, step: Word<'_>) -> Result<Item, CronError> {
    let number = number(step.text).filter(|_| step.text.len() <= 3);
    let Some(number) = number else {
        let message = format!("`{}` is not a step: expected a whole number", shown(step.text));
        return Err(if step.text.is_empty() { word } else { step }.error(message));
    };
    if number == 0 {
        return Err(step.error("a step of 0 never moves: the least step is 1"));
    }
    let (first, last) = match base.text {
        "*" => word.kind.bounds(),
        "" => {
            let message = format!("a step needs what it steps over: write `*/{}`", step.text);
            return Err(word.error(message));
        }
        _ => match base.split_once('-') {
            Some((first, last)) => range(base, first, last)?,
            None => {
                value(base)?;
                let (from, max) = (base.text, word.kind.bounds().1);
                let message = format!("a step needs a range: write `{from}-{max}/{number}`");
                return Err(word.error(message));
            }
        },
    };
    if number > u16::from(last - first) {
        let message =
            format!("a step of {number} leaves `{}` with its first value only", base.text);
        return Err(step.error(message));
    }
    // The number is at most 59.
    let step = u8::try_from(number).unwrap_or(u8::MAX);
    match base.text {
        "*" => Ok(Item::All { step }),
        _ => Ok(Item::Range { first, last, step }),
    }
}

fn range(word: Word<'_>, from: Word<'_>, to: Word<'_>) -> Result<(u8, u8), CronError> {
    if from.text.is_empty() || to.text.is_empty() {
        let message = format!("`{}` is not a range: write first-last", shown(word.text));
        return Err(word.error(message));
    }
    let (first, mut last) = (value(from)?, value(to)?);
    // A week that ends with Sunday, as in FRI-SUN.
    if word.kind == Kind::Weekday && first > 0 && to.text.eq_ignore_ascii_case("SUN") {
        last = 7;
    }
    if first <= last {
        return Ok((first, last));
    }
    let message =
        format!("the range `{}` wraps: write `{}`", word.text, unwrapped(from, to, first, last));
    Err(word.error(message))
}

/// The list that expresses a range that wraps around.
fn unwrapped(from: Word<'_>, to: Word<'_>, first: u8, last: u8) -> String {
    // The week goes from Monday to Sunday, because its last number is 7.
    let (start, end) = match from.kind {
        Kind::Weekday => (1, 7),
        kind => kind.bounds(),
    };
    let named = from.text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let names = from.kind.names().iter().filter(|_| named).collect::<Vec<_>>();
    let text = |value: u8| {
        let index = usize::from(value - from.kind.bounds().0).checked_rem(names.len());
        let name = index.and_then(|index| names.get(index));
        name.map_or_else(|| value.to_string(), |name| (**name).to_owned())
    };
    let mut list = from.text.to_owned();
    if first < end {
        list.push_str(&format!("-{}", text(end)));
    }
    if last > start {
        list.push_str(&format!(",{}-{}", text(start), to.text));
    } else if last == start {
        list.push_str(&format!(",{}", to.text));
    }
    list
}

/// A number or a name; a weekday may be 7.
fn value(word: Word<'_>) -> Result<u8, CronError> {
    let (kind, text) = (word.kind, word.text);
    let (min, max) = (kind.bounds().0, kind.written_max());
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        let value = number(text).and_then(|value| u8::try_from(value).ok());
        return value.filter(|value| (min..=max).contains(value)).ok_or_else(|| {
            word.error(format!("the {} {text} is out of range: {min} to {max}", kind.name()))
        });
    }
    let named = kind.names().iter().zip(min..).find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, value)| value).ok_or_else(|| {
        let text = shown(text);
        word.error(format!("`{text}` is not {}: expected {}", kind.with_article(), kind.expected()))
    })
}

/// A whole number of ASCII digits.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Text of the user without control characters.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: Kind, text: &str) -> Vec<u8> {
        Field::parse(kind, text, 0).unwrap_or_else(|error| panic!("{text}: {error}")).values()
    }

    fn fault(kind: Kind, text: &str) -> (String, String) {
        let error = Field::parse(kind, text, 0).unwrap_err();
        (text.get(error.position()).unwrap().to_owned(), error.to_string())
    }

    #[test]
    fn values_ranges_steps_and_lists_are_read() {
        assert_eq!(values(Kind::Minute, "*").len(), 60);
        assert_eq!(values(Kind::Minute, "*/20"), [0, 20, 40]);
        assert_eq!(values(Kind::Minute, "5-59/15"), [5, 20, 35, 50]);
        assert_eq!(values(Kind::Hour, "22,1-3,02"), [1, 2, 3, 22]);
        assert_eq!(values(Kind::Day, "*/10"), [1, 11, 21, 31]);
        assert_eq!(values(Kind::Month, "jan,Mar-MAY,12"), [1, 3, 4, 5, 12]);
        assert_eq!(values(Kind::Weekday, "*"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(values(Kind::Weekday, "MON-fri"), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn sunday_is_0_and_7_and_ends_a_week() {
        assert_eq!(values(Kind::Weekday, "7"), [0]);
        assert_eq!(values(Kind::Weekday, "5-7"), [0, 5, 6]);
        assert_eq!(values(Kind::Weekday, "FRI-SUN"), [0, 5, 6]);
        assert_eq!(values(Kind::Weekday, "SUN-TUE"), [0, 1, 2]);
        assert_eq!(values(Kind::Weekday, "1-7/3"), [0, 1, 4]);
    }

    #[test]
    fn days_that_depend_on_the_month_are_items_without_values() {
        let items = |kind, text| {
            let field = Field::parse(kind, text, 0).unwrap();
            assert_eq!(field.values(), [0; 0]);
            field.items().to_vec()
        };
        assert_eq!(
            items(Kind::Day, "l,lw,15w"),
            [Item::LastDay, Item::LastWorkingDay, Item::Nearest(15)]
        );
        let fridays = [Item::Nth { weekday: 5, nth: 3 }, Item::LastWeekday(5)];
        assert_eq!(items(Kind::Weekday, "5#3,5L"), fridays);
        assert_eq!(items(Kind::Weekday, "FRI#3,fri#L"), fridays);
        assert_eq!(items(Kind::Weekday, "7L"), [Item::LastWeekday(0)]);
    }

    #[test]
    fn a_fault_is_named_with_its_place() {
        let cases = [
            (Kind::Minute, "5,70", "70", "the minute 70 is out of range: 0 to 59"),
            (Kind::Minute, "99999999999", "99999999999", "is out of range"),
            (Kind::Hour, "24", "24", "the hour 24 is out of range: 0 to 23"),
            (Kind::Day, "0", "0", "the day of month 0 is out of range: 1 to 31"),
            (Kind::Month, "JUNE", "JUNE", "`JUNE` is not a month: expected 1 to 12 or JAN to DEC"),
            (Kind::Weekday, "8", "8", "the weekday 8 is out of range: 0 to 7"),
            (Kind::Weekday, "1,MO", "MO", "`MO` is not a weekday: expected 0 to 7 or SUN to SAT"),
            (Kind::Minute, "*/70", "70", "a step of 70 leaves `*` with its first value only"),
            (Kind::Minute, "*/60", "60", "a step of 60 leaves `*` with its first value only"),
            (Kind::Hour, "8-12/5", "5", "a step of 5 leaves `8-12` with its first value only"),
            (Kind::Minute, "*/0", "0", "a step of 0 never moves: the least step is 1"),
            (Kind::Minute, "*/x", "x", "`x` is not a step: expected a whole number"),
            (Kind::Minute, "*/", "*/", "`` is not a step: expected a whole number"),
            (Kind::Minute, "5/15", "5/15", "a step needs a range: write `5-59/15`"),
            (Kind::Weekday, "MON/2", "MON/2", "a step needs a range: write `MON-6/2`"),
            (Kind::Minute, "/10", "/10", "a step needs what it steps over: write `*/10`"),
            (Kind::Minute, "1,,2", ",", "a list of the minute field has an empty item"),
            (Kind::Minute, ",1", ",", "a list of the minute field has an empty item"),
            (Kind::Minute, "1,", ",", "a list of the minute field has an empty item"),
            (Kind::Minute, "1,*", "1,*", "`*` is every minute already: write no list"),
            (Kind::Minute, "1-", "1-", "`1-` is not a range: write first-last"),
            (Kind::Minute, "1-2-3", "2-3", "`2-3` is not a minute: expected 0 to 59"),
            (Kind::Hour, "22-2", "22-2", "the range `22-2` wraps: write `22-23,0-2`"),
            (Kind::Hour, "23-0", "23-0", "the range `23-0` wraps: write `23,0`"),
            (Kind::Weekday, "FRI-MON", "FRI-MON", "wraps: write `FRI-SUN,MON`"),
            (Kind::Weekday, "5-2", "5-2", "wraps: write `5-7,1-2`"),
            (Kind::Weekday, "5-0", "5-0", "wraps: write `5-7`"),
            (Kind::Month, "NOV-FEB", "NOV-FEB", "wraps: write `NOV-DEC,JAN-FEB`"),
            (Kind::Day, "?", "?", "`?` is not known here: write `*`"),
            (Kind::Day, "32W", "32", "the day of month 32 is out of range: 1 to 31"),
            (Kind::Day, "L-3", "L", "`L` is not a day of month: expected 1 to 31"),
            (Kind::Hour, "L", "L", "`L` is not an hour: expected 0 to 23"),
            (Kind::Weekday, "L", "L", "`L` needs its weekday, as in `5L`"),
            (Kind::Weekday, "5#6", "5#6", "1 to 5, or L"),
            (Kind::Weekday, "1-5#2", "1-5", "write a list, as in `1#1,2#1`"),
            (Kind::Minute, "\u{7}", "\u{7}", "`\\u{7}` is not a minute"),
            (Kind::Weekday, "üL", "ü", "`ü` is not a weekday"),
        ];
        for (kind, text, place, message) in cases {
            let (found_place, found) = fault(kind, text);
            assert_eq!(found_place, place, "{text}: {found}");
            assert!(found.contains(message), "{text}: {found}");
        }
    }

    #[test]
    fn the_next_value_is_found_in_both_directions_of_the_bounds() {
        let field = Field::parse(Kind::Minute, "0,30,59", 0).unwrap();
        assert_eq!(
            [0, 1, 30, 59, 60, 63, 64, 255].map(|from| field.next_from(from)),
            [Some(0), Some(30), Some(30), Some(59), None, None, None, None]
        );
    }
}
