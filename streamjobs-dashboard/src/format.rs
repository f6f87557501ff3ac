//! Formats numbers, times and untrusted text for pages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use maud::{Markup, PreEscaped, Render, html};

/// Text that the dashboard did not write, such as names and errors. Invisible characters and those
/// that change the text direction are written as escapes. HTML is escaped as well, as for all text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untrusted<'a>(pub(crate) &'a str);

impl Render for Untrusted<'_> {
    fn render_to(&self, buffer: &mut String) {
        visible(self.0).render_to(buffer);
    }
}

/// The text with invisible, control and direction characters as escapes. Line ends and tabs stay.
pub(crate) fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => seen.push(character),
            hidden if is_hidden(hidden) => seen.extend(hidden.escape_unicode()),
            plain => seen.push(plain),
        }
    }
    seen
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A duration with at most two units.
pub(crate) fn span(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.as_millis());
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A time in milliseconds since 1970, as UTC to the second.
pub(crate) fn moment(millis: u64) -> String {
    let timestamp = i64::try_from(millis).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match timestamp {
        Some(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => format!("{millis} ms"),
    }
}

/// A time as UTC to the second.
pub(crate) fn moment_at(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A number with thousands separated by a thin space.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate per second; below one, per minute.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => "0/s".to_owned(),
        rate if rate < 1.0 => format!("{:.1}/min", rate * 60.0),
        rate if rate < 10.0 => format!("{rate:.1}/s"),
        rate => format!("{rate:.0}/s"),
    }
}

/// A size in bytes with a binary unit.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{}.{} GiB", bytes >> 30, ((bytes & 0x3fff_ffff) * 10) >> 30),
    }
}

/// A number, or a question mark whose tooltip says why it is unknown.
pub(crate) fn known(number: Option<u64>, why_not: &str) -> Markup {
    match number {
        Some(number) => PreEscaped(count(number)),
        None => html! { span.unknown title=(why_not) { "?" } },
    }
}

/// A number that is a lower bound if there are more than were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) number: u64,
    pub(crate) more: bool,
}

impl Counted {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { number: self.number + other.number, more: self.more || other.more }
    }

    pub(crate) fn text(self) -> String {
        let number = count(self.number);
        if self.more { format!("≥ {number}") } else { number }
    }
}

/// As [`known`], for a number that may be a lower bound.
pub(crate) fn counted(number: Option<Counted>, why_not: &str) -> Markup {
    match number {
        Some(number) => html! { (number.text()) },
        None => known(None, why_not),
    }
}

/// The beginning of a text: at most so many bytes, cut between two characters.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_and_direction_characters_are_escaped() {
        assert_eq!(visible("a\u{202e}b\u{0}\u{1b}[31m\tc\n"), "a\\u{202e}b\\u{0}\\u{1b}[31m\tc\n");
        assert_eq!(visible("\u{200b}\u{feff}\u{2066}é漢🦀"), "\\u{200b}\\u{feff}\\u{2066}é漢🦀");
        let shown = html! { (Untrusted("<script>\u{202e}")) }.into_string();
        assert_eq!(shown, "&lt;script&gt;\\u{202e}");
        let attribute = html! { a title=(Untrusted("\" onmouseover=\"x")) {} }.into_string();
        assert_eq!(attribute, "<a title=\"&quot; onmouseover=&quot;x\"></a>");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(["", "ab", "aé", "é"].map(|text| beginning(text, 2)), ["", "ab", "a", "é"]);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let spans = [(0, 250), (3, 290), (11, 0), (119, 0), (600, 0), (7_260, 0), (200_000, 0)];
        let spans = spans.map(|(s, ms)| span(Duration::from_millis(s * 1_000 + ms)));
        assert_eq!(spans, ["250 ms", "3.2 s", "11 s", "119 s", "10 min", "2 h 1 min", "2 d 7 h"]);
    }

    #[test]
    fn numbers_rates_and_sizes_have_their_units() {
        assert_eq!(count(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!((count(999), count(1_000)), ("999".into(), "1\u{2009}000".into()));
        assert_eq!([0.0, 0.25, 3.12, 250.4].map(rate), ["0/s", "15.0/min", "3.1/s", "250/s"]);
        assert_eq!([10, 2_048, 5 << 20, 3 << 29].map(size), ["10 B", "2 KiB", "5 MiB", "1.5 GiB"]);
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(u64::MAX), format!("{} ms", u64::MAX));
    }
}
