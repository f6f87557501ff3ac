//! Output: text and tables, JSON, errors and progress.

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::color::Style;

/// The standard output, as text or as JSON.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    color: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    /// Text is coloured if `color` is set, JSON never.
    pub(crate) fn new(json: bool, color: bool) -> Self {
        Self { json, color: color && !json, out: BufWriter::new(io::stdout()) }
    }

    /// Begins a round of `--watch`, on a cleared screen if the output is a terminal. JSON output
    /// has one document for each round and nothing else.
    pub(crate) fn begin_round(&mut self, heading: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        if io::stdout().is_terminal() {
            self.out.write_all(CLEAR.as_bytes())?;
        }
        self.line_as(Style::Heading, heading)?;
        self.line("")
    }

    /// Whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one document on one line.
    pub(crate) fn document(&mut self, document: &Value) -> io::Result<()> {
        writeln!(self.out, "{document}")
    }

    /// Prints one line with control characters escaped.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", escaped(text))
    }

    /// Prints one line as [`line`](Self::line) does, in a style if the output is coloured.
    pub(crate) fn line_as(&mut self, style: Style, text: &str) -> io::Result<()> {
        let text = escaped(text);
        let text = if self.color { style.paint(&text) } else { text };
        writeln!(self.out, "{text}")
    }

    /// Prints the text, or the document if the output is JSON.
    pub(crate) fn answer(&mut self, text: &str, document: &Value) -> io::Result<()> {
        match self.json {
            true => self.document(document),
            false => self.line(text),
        }
    }

    /// Prints these lines, or the document if the output is JSON.
    pub(crate) fn answer_lines(&mut self, lines: &[String], document: &Value) -> io::Result<()> {
        match self.json {
            true => self.document(document),
            false => lines.iter().try_for_each(|line| self.line(line)),
        }
    }

    /// Prints one line for each name and its value.
    pub(crate) fn pairs<const N: usize>(&mut self, pairs: [(&str, String); N]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        pairs.iter().try_for_each(|(name, value)| self.line(&format!("{name:width$}  {value}")))
    }

    /// Prints a table. Each column is as wide as its widest cell; the last column is not padded.
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
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let cells = cells.collect::<Vec<_>>();
            if number == 0 {
                self.line_as(Style::Heading, cells.join("  ").trim_end())?;
                continue;
            }
            let styled = cells.iter().map(|cell| match Style::of(cell) {
                Some(style) if self.color => style.paint(cell),
                _ => cell.clone(),
            });
            let line = styled.collect::<Vec<_>>().join("  ");
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints progress to standard error, at most once a second.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: Option<usize>,
    printed: Instant,
}

impl Progress {
    /// `total` is the number of steps, if it is known.
    pub(crate) fn new(what: &'static str, total: Option<usize>) -> Self {
        Self { what, total, printed: Instant::now() }
    }

    pub(crate) fn at(&mut self, done: usize) {
        if self.printed.elapsed() >= PROGRESS_EVERY {
            self.printed = Instant::now();
            let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
            print_note(&format!("{} {done}{of}", self.what));
        }
    }
}

/// Prints a line to standard error.
pub(crate) fn print_note(text: &str) {
    // A closed standard error is ignored.
    let _ = writeln!(io::stderr(), "{}", escaped(text));
}

/// Prints an error to standard error.
pub(crate) fn print_error(text: &str) {
    print_note(&format!("streamjobs: {text}"));
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(cause) = source else { break };
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The text with control characters and direction marks escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        let redirects = matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(letter, '\u{2066}'..='\u{2069}');
        match letter.is_control() || redirects {
            true => safe.extend(letter.escape_default()),
            false => safe.push(letter),
        }
    }
    safe
}

/// The text, cut to `most` characters with three dots at the end.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect(),
    }
}

/// Milliseconds since 1970 as a date and time in UTC. Ids can hold times outside of the calendar.
pub(crate) fn time(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    match time {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        None => format!("{milliseconds} ms"),
    }
}

/// A duration, in whole seconds if it is a second or longer.
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

/// A duration in milliseconds, for JSON.
pub(crate) fn milliseconds(duration: Option<Duration>) -> Option<u64> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A number that may be unknown.
pub(crate) fn or_unknown(number: Option<u64>) -> String {
    number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
}

/// Moves the cursor to the top and clears the screen; earlier output stays above it.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";
/// How many causes of an error are followed; an error may be its own cause.
const CAUSES_MAX: usize = 32;
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
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(cut("äbcdef", 6), "äbcdef");
        assert_eq!(cut("äbcdefg", 6), "äbc...");
    }

    #[test]
    fn times_outside_of_the_calendar_are_milliseconds() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_400_999), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_764_000_000_000), "2025-11-24 16:00:00Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn durations_are_in_seconds_or_milliseconds() {
        assert_eq!(span(None), "-");
        assert_eq!(span(Some(Duration::ZERO)), "0s");
        assert_eq!(span(Some(Duration::from_micros(7_900))), "7ms");
        assert_eq!(span(Some(Duration::from_millis(9_061_900))), "2h 31m 1s");
        assert_eq!(span(Some(Duration::MAX)), format!("{}s", u64::MAX));
    }
}
