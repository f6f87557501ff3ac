//! What is printed: tables and texts for people, JSON for programs, complaints and progress.

use std::error::Error;
use std::io::{self, BufWriter, Stdout, Write};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
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

    /// The same for people as a line, and for programs as a document.
    pub(crate) fn answer(&mut self, text: &str, document: &Value) -> io::Result<()> {
        match self.json {
            true => self.document(document),
            false => self.line(text),
        }
    }

    /// One line for each name with its value.
    pub(crate) fn pairs<const N: usize>(&mut self, pairs: [(&str, String); N]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        pairs.iter().try_for_each(|(name, value)| self.line(&format!("{name:width$}  {value}")))
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
    total: Option<usize>,
    told: Instant,
}

impl Progress {
    /// Of so many, where that is known.
    pub(crate) fn new(what: &'static str, total: Option<usize>) -> Self {
        Self { what, total, told: Instant::now() }
    }

    pub(crate) fn at(&mut self, done: usize) {
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
            note(&format!("{} {done}{of}", self.what));
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

/// Milliseconds since 1970 as a date and a time, in UTC. Ids can name times that no calendar has.
pub(crate) fn time(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    match time {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        None => format!("{milliseconds} ms"),
    }
}

/// How long something is or lasts, in whole seconds where it is longer than one.
pub(crate) fn span(duration: Option<Duration>) -> String {
    let Some(duration) = duration else { return "-".to_owned() };
    let whole = match duration.as_secs() {
        0 => Duration::from_millis(u64::from(duration.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    match SignedDuration::try_from(whole) {
        Ok(duration) => format!("{duration:#}"),
        Err(_) => format!("{}s", whole.as_secs()),
    }
}

/// How long something is or lasts, for programs.
pub(crate) fn milliseconds(duration: Option<Duration>) -> Option<u64> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A number that the server may not tell.
pub(crate) fn or_unknown(number: Option<u64>) -> String {
    number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
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
    fn times_are_dates_where_the_calendar_has_them() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_400_999), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_764_000_000_000), "2025-11-24 16:00:00Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn spans_are_as_exact_as_they_matter() {
        assert_eq!(span(None), "-");
        assert_eq!(span(Some(Duration::ZERO)), "0s");
        assert_eq!(span(Some(Duration::from_micros(7_900))), "7ms");
        assert_eq!(span(Some(Duration::from_millis(9_061_900))), "2h 31m 1s");
        assert_eq!(span(Some(Duration::MAX)), format!("{}s", u64::MAX));
    }
}
