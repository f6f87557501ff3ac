//! Text that a `text` column accepts.

use std::borrow::Cow;
use std::error::Error;

/// Escapes control characters (no column accepts NUL) and cuts the text to at most `bytes_max`.
pub(crate) fn clean(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    escaped(text, bytes_max, char::is_control).into()
}

/// As [`clean`], and also escapes what a database with an encoding other than UTF-8 cannot store.
pub(crate) fn plain(text: &str, bytes_max: usize) -> String {
    escaped(text, bytes_max, |character| character.is_control() || !character.is_ascii())
}

/// An error with its causes in one line, cut to the length to which the archive cuts errors.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(error) = cause else { break };
        let cause_text = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        cause = error.source();
    }
    clean(&text, ERROR_BYTES_MAX).into_owned()
}

const CAUSES_MAX: usize = 32;
const ERROR_BYTES_MAX: usize = 4096;

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escaped(text: &str, bytes_max: usize, escape: impl Fn(char) -> bool) -> String {
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let length = clean.len();
        if escape(character) {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
        if clean.len() > bytes_max {
            clean.truncate(length);
            break;
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_column_refuses_is_escaped_and_long_text_is_cut() {
        assert!(matches!(clean("déjà vu", 100), Cow::Borrowed("déjà vu")));
        assert_eq!(clean("a\0b\u{1b}[1m\n", 100), "a\\u{0}b\\u{1b}[1m\\n");
        assert_eq!(clean("éé", 3), "é");
        assert_eq!(clean("ab\n", 3), "ab", "no half of an escape");
        assert_eq!(plain("é\0a", 100), "\\u{e9}\\u{0}a");
    }
}
