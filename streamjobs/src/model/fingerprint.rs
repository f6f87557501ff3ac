//! The fingerprint: one short name for all failures of one kind.

use uuid::Uuid;

use crate::model::policy::Reason;

/// 16 characters of a hash of the error without its numbers, ids, quoted values, addresses and paths.
///
/// If a dead letter has no error, or its error says nothing about its job, its reason and event type are hashed
/// instead. A change of this rule changes every fingerprint, so new dead letters would no longer match old ones.
pub(crate) fn fingerprint(reason: Reason, event_type: Option<&str>, error: Option<&str>) -> String {
    let says_cause = match reason {
        Reason::Exhausted | Reason::Rejected | Reason::Undecodable => true,
        Reason::Crashed | Reason::Trimmed | Reason::Unhandled => false,
        Reason::Expired | Reason::Cancelled => false,
    };
    let kind = match error.filter(|error| says_cause && !error.is_empty()) {
        Some(error) => ["error\0", &kind_of(error)].concat(),
        None => {
            let event_type = event_type.unwrap_or_default();
            ["reason\0", reason.as_str(), "\0", event_type].concat()
        }
    };
    let hash = Uuid::new_v5(&FINGERPRINTS, kind.as_bytes());
    hash.simple().to_string().chars().take(16).collect()
}

/// The error, with all parts that differ from one job to the next replaced.
fn kind_of(error: &str) -> String {
    let mut kind = String::with_capacity(error.len());
    let mut before = ' ';
    let mut rest = error;
    let mut open = String::new();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(length) = quoted(before, rest, &mut open) {
            kind.push_str("''");
            length
        } else if is_word(first) {
            let length = word_length(rest);
            word(rest.get(..length).unwrap_or_default(), &mut kind);
            length
        } else {
            if !(first.is_whitespace() && kind.ends_with(' ')) {
                kind.push(if first.is_whitespace() { ' ' } else { first });
            }
            first.len_utf8()
        };
        let (done, left) = rest.split_at_checked(length).unwrap_or((rest, ""));
        before = done.chars().next_back().unwrap_or(' ');
        rest = left;
    }
    kind
}

/// The length of a quoted value that begins here. An apostrophe inside a word is not a quote.
///
/// An unclosed quote is added to `open`: later quotes of its kind are unclosed too, and searching to
/// the end for each of them would take quadratic time.
fn quoted(before: char, text: &str, open: &mut String) -> Option<usize> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'))?;
    if before.is_alphanumeric() || open.contains(quote) {
        return None;
    }
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((place, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        if character == quote && !next.is_some_and(char::is_alphanumeric) {
            return Some(place + character.len_utf8());
        }
    }
    open.push(quote);
    None
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || "_-./\\:@+%~#$&?".contains(character)
}

/// The length of the word at the beginning. A URL extends to the next space.
fn word_length(text: &str) -> usize {
    let end = |stop: &dyn Fn(char) -> bool| text.find(stop).unwrap_or(text.len());
    let length = end(&|character| !is_word(character));
    if text.get(..length).is_some_and(|word| word.contains("://")) {
        end(&|character| character.is_whitespace() || "\"'`<>()".contains(character))
    } else {
        length
    }
}

fn word(word: &str, kind: &mut String) {
    let core = word.trim_end_matches(['.', ':', '?', '-']);
    let end = word.get(core.len()..).unwrap_or_default();
    if is_path(core) {
        kind.push('/');
    } else if core.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
    {
        kind.push('@');
    } else {
        parts(core, kind);
    }
    kind.push_str(end);
}

fn is_path(word: &str) -> bool {
    let slashes = word.matches('/').count();
    let rooted = ["/", "./", "../", "~/"].iter().any(|root| word.starts_with(root));
    word.contains("://")
        || word.contains(":\\")
        || word.len() > 1 && rooted
        || slashes > 1
        || slashes == 1 && word.contains(|letter: char| letter.is_ascii_digit())
}

/// Replaces the parts of a word that are numbers or ids.
fn parts(word: &str, kind: &mut String) {
    let mut rest = match word.strip_prefix(['-', '+']) {
        Some(number) if number.starts_with(|first: char| first.is_ascii_digit()) => number,
        _ => word,
    };
    while let Some(first) = rest.chars().next() {
        let length = if starts_with_uuid(rest) {
            number(kind);
            UUID_BYTES
        } else if first.is_alphanumeric() {
            let length = rest.find(|letter: char| !letter.is_alphanumeric());
            let length = length.unwrap_or(rest.len());
            part(rest.get(..length).unwrap_or_default(), kind);
            length
        } else {
            kind.push(first);
            first.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn part(part: &str, kind: &mut String) {
    let number_end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
    let unit = part.get(number_end..).unwrap_or_default();
    if number_end > 0 && (unit.is_empty() || UNITS.contains(&unit)) || is_id(part) {
        return number(kind);
    }
    let mut in_number = false;
    for letter in part.chars() {
        let digit = letter.is_ascii_digit();
        if digit && !in_number {
            number(kind);
        } else if !digit {
            kind.push(letter);
        }
        in_number = digit;
    }
}

/// Whether a part is an id rather than a word with a number: it alternates between letters and
/// digits, or is a long hexadecimal number.
fn is_id(part: &str) -> bool {
    let digits = |letter: char| letter.is_ascii_digit();
    let changes = part.chars().zip(part.chars().skip(1));
    let changes = changes.filter(|(one, next)| digits(*one) != digits(*next)).count();
    let hexadecimal = part.bytes().all(|byte| byte.is_ascii_hexdigit()) && changes > 0;
    let tagged = part
        .strip_prefix("0x")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    part.len() >= 6 && changes >= 2 || part.len() >= 8 && hexadecimal || tagged
}

/// Adds the sign of a number. Numbers that only punctuation separates, as in a time or a network address, count as one
/// number.
fn number(kind: &mut String) {
    let mut letters = kind.chars().rev();
    let (last, before) = (letters.next(), letters.next());
    match (before, last) {
        (_, Some('#')) => {}
        (Some('#'), Some('.' | ':' | '-' | '_' | '+')) => {
            kind.pop();
        }
        _ => kind.push('#'),
    }
}

fn starts_with_uuid(text: &str) -> bool {
    let Some(id) = text.as_bytes().get(..UUID_BYTES) else { return false };
    let fits = id.iter().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits && !text.as_bytes().get(UUID_BYTES).is_some_and(u8::is_ascii_alphanumeric)
}

const UUID_BYTES: usize = 36;
/// The name space of fingerprints.
const FINGERPRINTS: Uuid = Uuid::from_u128(0x8f1d_2a57_6c3e_4b09_9d42_51c7_e0b6_a318);
/// The units of printed durations: 950ms and 1.2s are of one kind.
const UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "h", "d"];

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn of(error: &str) -> String {
        fingerprint(Reason::Exhausted, Some("order.placed"), Some(error))
    }

    #[test]
    fn failures_of_one_kind_have_one_fingerprint() {
        let same = [
            ("order 17 not found", "order 4711 not found"),
            ("took 950ms", "took 1.234567s"),
            ("balance is -5", "balance is 12.50"),
            (
                "no row for 0199ab3e-1111-7abc-8def-000000000001",
                "no row for \
              abcdefab-cdef-abcd-efab-cdefabcdefab",
            ),
            ("commit 8f14e45fceea167a", "commit c9f0f895fb98ab91"),
            ("charge ch_3Kq8Zx2e failed", "charge ch_9Lm2Aa7b failed"),
            ("at 0x7ffd10 in f", "at 0xdeadbeef in f"),
            ("connect to 10.0.0.1:5432", "connect to 192.168.17.4:6379"),
            ("since 2026-11-24T10:00:00Z", "since 2025-01-02T03:04:05Z"),
            ("unknown field `a`", "unknown field `customer name`"),
            ("bad value \"x\"", "bad value \"a 'b' c\""),
            ("cannot open /tmp/a", "cannot open /var/lib/b.txt"),
            ("GET https://a.example/x?y=1 failed", "GET https://b.example/z?token=abc failed"),
            ("mail to alice@example.com refused", "mail to bob@example.org refused"),
            ("failed  twice", "failed twice"),
        ];
        for (one, other) in same {
            assert_eq!(kind_of(one), kind_of(other));
            assert_eq!(of(one), of(other));
        }
    }

    #[test]
    fn failures_of_other_kinds_have_others() {
        let different = [
            "connection refused",
            "connection reset",
            "order 17 not found",
            "customer 17 not found",
            "can't pay, won't pay",
            "can't eat, won't pay",
            "the handler panicked: no stock",
            "a::b failed",
            "a::c failed",
            "read/write",
        ];
        let mut seen = different.map(of).to_vec();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), different.len());
        assert_eq!(kind_of("can't pay, won't pay"), "can't pay, won't pay");
        assert_eq!(kind_of("don't take 'it all"), "don't take 'it all");
    }

    #[test]
    fn a_dead_letter_without_an_error_is_named_by_reason_and_type() {
        let of = |reason, event_type| fingerprint(reason, event_type, Some("delivered 5 times"));
        assert_ne!(of(Reason::Crashed, Some("a")), of(Reason::Crashed, Some("b")));
        assert_ne!(of(Reason::Crashed, Some("a")), of(Reason::Trimmed, Some("a")));
        assert_eq!(of(Reason::Rejected, Some("a")), of(Reason::Rejected, Some("b")));
        let silent = |event_type| fingerprint(Reason::Rejected, event_type, None);
        assert_ne!(silent(Some("a")), silent(None));
    }

    #[test]
    fn fingerprints_stay_what_they_are() {
        assert_eq!(
            kind_of("order 17: timed out after 1.5s at 'db'"),
            "order #: timed out after # at ''"
        );
        assert_eq!(of("order 17 not found"), "f0c176320a4a5457");
    }

    #[test]
    fn an_unclosed_quote_is_searched_for_once() {
        // A search for each of them would read six billion characters.
        let began = Instant::now();
        let kind = kind_of(&"'a \"b `c ".repeat(20_000));
        assert!(kind.starts_with("'a \"b `c 'a"));
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(kind_of("'a \"b\" 'c \"d\" `e"), "'a '' 'c '' `e");
    }

    #[test]
    fn any_text_has_a_kind() {
        for text in
            ["", "\0", "'", "''", "é'é'", "@", "://", "-", "+1", "#", "😀1😀2", "1e999", "\\"]
        {
            let kind = kind_of(text);
            assert_eq!(kind_of(text), kind);
        }
    }
}
