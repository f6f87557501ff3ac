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
    match timestamp(millis) {
        Some(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => format!("{millis} ms"),
    }
}

/// A time in milliseconds since 1970, shown as how long ago it was or in how long it will be. The exact
/// time is its title, which the script shows in the browser's time zone.
pub(crate) fn when(millis: u64) -> Markup {
    // The clock of the server that wrote the time may be ahead of this machine's clock.
    let now = now();
    let is_skew = millis.saturating_sub(now) < SKEW_MAX;
    let clock = if is_skew { now.max(millis) } else { now };
    when_from(clock, (clock - now).div_ceil(1_000), millis)
}

/// Like [`when`].
pub(crate) fn when_at(time: SystemTime) -> Markup {
    when(millis_of(time))
}

/// Like [`when`], with the exact time beside it.
pub(crate) fn when_exactly(millis: u64) -> Markup {
    html! { (when(millis)) " " span.soft { (moment(millis)) } }
}

/// When something is due, given in how long that is by the server.
pub(crate) fn due(millis: u64, due_in: Duration) -> Markup {
    let since = u64::try_from(due_in.as_millis()).unwrap_or(u64::MAX);
    let clock = millis.saturating_sub(since);
    // A difference of up to a second may be the time that the answer took.
    let ahead = clock.saturating_sub(now()) / 1_000;
    when_from(clock, ahead, millis)
}

/// Like [`when`], by a clock that is this many seconds ahead of this machine's.
fn when_from(clock: u64, ahead: u64, millis: u64) -> Markup {
    let exact = moment(millis);
    let text = relative(clock, millis);
    let ahead = (ahead > 0).then_some(ahead);
    match timestamp(millis) {
        Some(at) => {
            html! { time datetime=(at) title=(exact) data-relative data-ahead=[ahead] { (text) } }
        }
        None => html! { (exact) },
    }
}

/// A time as seen from another time. The script does the same for pages that are not updated.
fn relative(now: u64, millis: u64) -> String {
    let seconds = now.abs_diff(millis) / 1_000;
    let span = match seconds {
        0 => return "now".to_owned(),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    if millis > now { format!("in {span}") } else { format!("{span} ago") }
}

/// The time of this machine in milliseconds since 1970.
pub(crate) fn now() -> u64 {
    millis_of(SystemTime::now())
}

fn millis_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn timestamp(millis: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()
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

/// The sum of some rates: a lower bound if any rate is unknown or not included, and unknown if all rates are unknown.
pub(crate) fn sum_of_rates(rates: impl Iterator<Item = Option<f64>>, is_partial: bool) -> String {
    let (mut sum, mut is_bound) = (None::<f64>, is_partial);
    for of in rates {
        match of {
            Some(known) => sum = Some(sum.unwrap_or_default() + known),
            None => is_bound = true,
        }
    }
    match sum {
        None => "–".to_owned(),
        Some(sum) if is_bound => format!("≥ {}", rate(sum)),
        Some(sum) => rate(sum),
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

/// Like [`known`], for a number that may be a lower bound.
pub(crate) fn counted(number: Option<Counted>, why_not: &str) -> Markup {
    match number {
        Some(number) => html! { (number.text()) },
        None => known(None, why_not),
    }
}

/// The beginning of a text: at most this many bytes, cut between two characters.
pub(crate) fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// How many milliseconds clocks may differ before a past time is shown as a future time.
const SKEW_MAX: u64 = 60_000;

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
    fn a_time_is_relative_and_has_its_exact_time_for_people_and_programs() {
        let minute = 60_000;
        let shown = when_from(10 * minute, 0, 5 * minute).into_string();
        let expected = "<time datetime=\"1970-01-01T00:05:00Z\" title=\"1970-01-01 00:05:00 UTC\" \
             data-relative>5 min ago</time>";
        assert_eq!(shown, expected);
        let spans = [0, 999, 1_000, 119_000, 120_000, 7_200_000, 172_800_000];
        let ago = spans.map(|ms| relative(ms, 0));
        assert_eq!(ago, ["now", "now", "1 s ago", "119 s ago", "2 min ago", "2 h ago", "2 d ago"]);
        assert_eq!(relative(0, 3_599_999), "in 59 min");
        assert_eq!(when(u64::MAX).into_string(), format!("{} ms", u64::MAX));
        let due = due(10 * minute, Duration::from_secs(60)).into_string();
        assert!(due.contains(">in 60 s<") && due.contains("00:10:00"), "{due}");
    }

    #[test]
    fn a_sum_of_rates_says_whether_some_are_unknown() {
        let sum = |rates: &[Option<f64>], partial| sum_of_rates(rates.iter().copied(), partial);
        assert_eq!(sum(&[], false), "–");
        assert_eq!(sum(&[None, None], false), "–");
        assert_eq!(sum(&[Some(2.0), Some(1.5)], false), "3.5/s");
        assert_eq!(sum(&[Some(2.0), None], false), "≥ 2.0/s");
        assert_eq!(sum(&[Some(0.0)], true), "≥ 0/s");
    }

    #[test]
    fn a_time_says_how_far_its_clock_is_ahead() {
        let written = when(now() + 4_500).into_string();
        assert!(written.contains("data-relative data-ahead=\"5\">now<"), "{written}");
        let later = when(now() + 10 * SKEW_MAX).into_string();
        assert!(!later.contains("data-ahead") && later.contains(">in "), "{later}");
        let due = due(now() + 65_500, Duration::from_secs(60)).into_string();
        assert!(due.contains("data-ahead=\"5\">in 60 s<"), "{due}");
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
