//! Why a server refuses, in words, and as a value that code can match.

use std::error::Error;

use thiserror::Error;

use crate::model::cause::{BoxError, CAUSES_MAX, chain, display, source};

/// Why the server refused, where that needs an operator.
///
/// Errors of this crate name it in their text, with the server's own words; `refusal()` of
/// [`ConnectError`](super::error::ConnectError), [`PublishError`](super::error::PublishError) and
/// [`StartError`](super::error::StartError) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The server asks for a login, or the user name or password is wrong.
    Login,
    /// The user lacks a right that the access list of the server would have to grant.
    NoRight,
    /// The server has reached its `maxmemory`.
    OutOfMemory,
    /// The server is a replica, which cannot be written to.
    ReadOnlyReplica,
}

impl Refusal {
    /// The refusal among an error and its causes.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        for _ in 0..CAUSES_MAX {
            let error = next?;
            if let Some(lacking) = error.downcast_ref::<Lacking>() {
                return matches!(lacking, Lacking::Right { .. }).then_some(Self::NoRight);
            }
            let text = display(error);
            let answer = text.strip_prefix("the server refused: ").unwrap_or(&text);
            let refusal = Self::of_answer(answer);
            if refusal.is_some() {
                return refusal;
            }
            next = source(error).ok().flatten();
        }
        None
    }

    /// From the server's answer, whose first word is its code.
    fn of_answer(answer: &str) -> Option<Self> {
        match answer.split(' ').next()? {
            "NOAUTH" | "WRONGPASS" => Some(Self::Login),
            "NOPERM" => Some(Self::NoRight),
            "OOM" => Some(Self::OutOfMemory),
            "READONLY" => Some(Self::ReadOnlyReplica),
            // The refusal of a command in a script, in the words of two versions.
            "ERR" if IN_SCRIPTS.iter().any(|words| answer.contains(words)) => Some(Self::NoRight),
            _ => None,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Login => "the login is missing or wrong",
            Self::NoRight => "the user lacks a right",
            Self::OutOfMemory => "the server is out of memory",
            Self::ReadOnlyReplica => "the server is a read-only replica",
        }
    }
}

/// A cause in one line: what it means in words, where that is known, and the server's text.
pub(crate) fn explained(cause: &BoxError) -> String {
    let text = chain(cause.as_ref());
    match Refusal::of(cause.as_ref()) {
        Some(refusal) => format!("{}: {text}", refusal.words()),
        None => text,
    }
}

/// A needed command that the user of the connection may not run, or that the server does not have.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Lacking {
    /// The server's access list does not allow it.
    #[error(
        "user {user} has no right to run {command}{place}, and without it no job is ever done; grant it \
         with ACL SETUSER {user} {grant}"
    )]
    Right {
        /// The user.
        user: String,
        /// The command, as access lists name it.
        command: &'static str,
        /// The key, with ` on ` in front; empty for a command without a key.
        place: String,
        /// The rules to add.
        grant: String,
    },
    /// The server does not know the command.
    #[error(
        "the server does not know {0}, and without it no job is ever done; remove its \
         rename-command from the server's configuration"
    )]
    Command(&'static str),
}

const IN_SCRIPTS: [&str; 2] = ["ACL failure in script", "The user executing the script can't"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_refusals_are_told_apart_in_words_and_as_values() {
        for (text, refusal) in [
            ("NOAUTH Authentication required.", Some(Refusal::Login)),
            ("WRONGPASS invalid username-password pair", Some(Refusal::Login)),
            (
                "NOPERM User bob has no permissions to run the 'xadd' command",
                Some(Refusal::NoRight),
            ),
            ("ERR ACL failure in script: User bob has no permissions", Some(Refusal::NoRight)),
            (
                "ERR The user executing the script can't run this command or subcommand",
                Some(Refusal::NoRight),
            ),
            ("OOM command not allowed when used memory", Some(Refusal::OutOfMemory)),
            (
                "READONLY You can't write against a read only replica.",
                Some(Refusal::ReadOnlyReplica),
            ),
            ("WRONGTYPE Operation against a key", None),
        ] {
            for text in [text.to_owned(), format!("the server refused: {text}")] {
                let cause = BoxError::from(text.clone());
                assert_eq!(Refusal::of(cause.as_ref()), refusal, "{text}");
                let words = refusal.map_or_else(String::new, |it| format!("{}: ", it.words()));
                assert_eq!(explained(&cause), format!("{words}{text}"));
            }
        }
    }

    #[test]
    fn an_error_of_the_application_that_cannot_be_shown_is_no_panic() {
        #[derive(Debug)]
        struct Bad;
        impl std::fmt::Display for Bad {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                panic!("in Display")
            }
        }
        impl Error for Bad {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                panic!("in source")
            }
        }
        let text = explained(&BoxError::from(Bad));
        assert!(text.contains("Display panicked") && text.contains("source() panicked"), "{text}");
    }
}
