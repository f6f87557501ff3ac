//! Text that a `text` column accepts.

use std::borrow::Cow;

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
