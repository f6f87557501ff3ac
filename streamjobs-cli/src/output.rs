//! What is printed: tables and texts for people, JSON for programs, complaints and progress.

use std::error::Error;
use std::io::{self, BufWriter, Stdout, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The standard output, and who reads it.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout()) }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One document, on one line.
    pub(crate) fn document(&mut self, document: &Value) -> io::Result<()> {
        writeln!(self.out, "{document}")
    }

    /// One line. Its control characters are escaped.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", escaped(text))
    }

    /// A table whose columns are as wide as their widest cell; the last one is not filled up.
    pub(crate) fn table<const N: usize>(
        &mut self,
        head: [&str; N],
        rows: Vec<[String; N]>,
    ) -> io::Result<()> {
        let rows = std::iter::once(head.map(str::to_owned))
            .chain(rows)
            .map(|row| row.map(|cell| escaped(&cell)))
            .collect::<Vec<_>>();
        let mut widths = [0; N];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Says on standard error how far something is that takes longer than a second.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    told: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        Self { what, total, told: Instant::now() }
    }

    pub(crate) fn at(&mut self, done: usize) {
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            note(&format!("{} {done} of {}", self.what, self.total));
        }
    }
}

/// Something beside the answer, for people.
pub(crate) fn note(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", escaped(text));
}

/// Why it did not work.
pub(crate) fn complain(text: &str) {
    note(&format!("streamjobs: {text}"));
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own text; once is enough.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A text that moves no cursor and turns no reading direction.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(letter, '\u{2066}'..='\u{2069}');
        match letter.is_control() || turns {
            true => safe.extend(letter.escape_default()),
            false => safe.push(letter),
        }
    }
    safe
}

/// At most so many characters; three dots stand for the rest.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect(),
    }
}

/// Milliseconds since 1970 as a date and a time, in UTC.
pub(crate) fn time(milliseconds: u64) -> String {
    let (days, seconds) = (milliseconds / 86_400_000, milliseconds / 1000 % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970. Years are counted from March, so that a leap day is the
/// last of its year, and 400 of them have the same number of days every time.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert_eq!(escaped("a\u{1b}[31m\nb\t"), "a\\u{1b}[31m\\nb\\t");
        assert_eq!(escaped("a\u{202e}b\u{9b}"), "a\\u{202e}b\\u{9b}");
        assert_eq!(escaped("héllo 漢字 \\n"), "héllo 漢字 \\n");
    }

    #[test]
    fn long_texts_are_cut_on_a_character() {
        assert_eq!(cut("äbcdef", 6), "äbcdef");
        assert_eq!(cut("äbcdefg", 6), "äbc...");
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_399_999), "2000-02-28 23:59:59Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_764_000_000_000), "2025-11-24 16:00:00Z");
        assert_eq!(time(4_102_444_800_000), "2100-01-01 00:00:00Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00Z");
        assert!(time(u64::MAX).ends_with('Z'), "whatever an id says");
    }
}
