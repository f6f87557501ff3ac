//! What the texts of the project say, and what they must not say.

use std::collections::BTreeSet;

use super::all_texts;

/// All that may be called exactly once, with the page that says so: effects in the guard's own
/// transaction. Everything else happens at least once.
const EXACTLY_ONCE: [(&str, &str); 4] = [
    ("README.md", "What a handler writes through `&mut Once` happens exactly once"),
    ("streamjobs/src/handler/once/mod.rs", "There is no window: such effects happen exactly once."),
    (
        "streamjobs-postgres/docs/front.md",
        "What a handler writes through [`&mut Once`](Once) happens exactly once",
    ),
    (
        "streamjobs-postgres/src/once/guard.rs",
        "What is written through this transaction happens exactly once",
    ),
];

#[test]
fn exactly_once_is_said_of_guarded_effects_alone() {
    let mut told = BTreeSet::new();
    for (name, text) in all_texts() {
        let marks = ["//!", "///", "//", "--", "#"];
        let bare = |line: &str| {
            let line = line.trim();
            let mark = marks.iter().find_map(|mark| line.strip_prefix(mark));
            mark.unwrap_or(line).trim().to_owned()
        };
        let mut rest = text.lines().map(bare).collect::<Vec<_>>().join(" ");
        for (_, sentence) in EXACTLY_ONCE.iter().filter(|(page, _)| *page == name) {
            assert!(rest.contains(sentence), "{name} does not say any more: {sentence}");
            rest = rest.replacen(sentence, "", 1);
            told.insert(*sentence);
        }
        // As one word or as two, whatever lines it stands on.
        let rest = rest.to_lowercase().replace('-', " ");
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!rest.contains("exactly once"), "{name} says it of something else");
    }
    assert_eq!(told.len(), EXACTLY_ONCE.len());
}

/// Words that make a reader stop, or that name a thing otherwise than docs/glossary.md does.
const REFUSED: [&str; 36] = [
    "nobody",
    "whoever",
    "somebody",
    "for ever",
    "seldom",
    "is none",
    "are none",
    "unheard of",
    "not heard of",
    "makes no sense",
    "closed on purpose",
    "hand back",
    "hands back",
    "handed back",
    "hand-back",
    "hand-backs",
    "handing back",
    "bury",
    "buries",
    "buried",
    "burial",
    "set aside",
    "sets aside",
    "set-aside",
    "put off",
    "speak for",
    "speaks for",
    "is well",
    "all well",
    "made again",
    "makes again",
    "in hand",
    "take up",
    "takes up",
    "taken up",
    "taking up",
];

/// Texts that quote old words: the table of what was renamed, this list, and the module that knows
/// the account of that name.
const QUOTES: [&str; 3] =
    ["CHANGELOG.md", "servers/src/machine/account.rs", "tests/tests/tidy/words.rs"];

#[test]
fn texts_use_the_glossarys_words() {
    let mut wrong = Vec::new();
    for (name, text) in all_texts() {
        if QUOTES.contains(&name.as_str()) || name.contains("/migrations/") {
            continue;
        }
        let plain = text.to_lowercase();
        let mut lines = plain.lines().map(bare).collect::<Vec<_>>();
        lines.push(String::new());
        for (number, pair) in lines.windows(2).enumerate() {
            let both = format!("{} {}", pair[0], pair[1]);
            let found = REFUSED.iter().filter(|word| {
                // A phrase may begin on one line and end on the next; each is told where it begins.
                position(&both, word).is_some_and(|at| at < pair[0].len().max(1))
            });
            wrong.extend(found.map(|word| format!("{name}:{}: {word}", number + 1)));
        }
    }
    let all = wrong.len();
    wrong.truncate(200);
    assert!(wrong.is_empty(), "{all} lines: {wrong:#?}");
}

/// A line without the mark of its comment.
fn bare(line: &str) -> String {
    let line = line.trim();
    let marks = ["//!", "///", "//", "--", "#"];
    marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line).trim().to_owned()
}

/// Where a word stands by itself: not inside of an identifier.
fn position(text: &str, word: &str) -> Option<usize> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}
