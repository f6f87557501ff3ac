//! Causes of errors, and how they are shown.

use std::error::Error;
use std::time::Duration;

/// Any error, as the cause of an error of this crate.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own message; it is shown once.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A string for a log line or a dead letter: control characters escaped, at most 4 KiB.
pub(crate) fn bounded_text(text: &str) -> String {
    let mut bounded = String::new();
    for character in text.chars() {
        let length = bounded.len();
        if character.is_control() {
            bounded.extend(character.escape_default());
        } else {
            bounded.push(character);
        }
        if bounded.len() > ERROR_TEXT_BYTES_MAX {
            bounded.truncate(length);
            break;
        }
    }
    bounded
}

/// A duration as a settings error shows it.
pub(crate) fn shown(duration: Duration) -> String {
    format!("{duration:?}")
}

const ERROR_TEXT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_text_is_cut_on_a_character_and_escaped() {
        assert_eq!(bounded_text("a\u{1b}[1m\nb"), "a\\u{1b}[1m\\nb");
        let long = bounded_text(&"é".repeat(10_000));
        assert_eq!(long.len(), ERROR_TEXT_BYTES_MAX);
    }
}
