//! Causes of errors, and how they are shown.

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Any error, as the cause of an error of this crate.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// An error and its causes in one line.
///
/// The code of the error may be the application's. If it fails, panics or names causes without an
/// end, the text says so instead.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = display(error);
    let mut next = source(error);
    for _ in 0..CAUSES_MAX {
        let Ok(Some(cause)) = next else { break };
        let cause_text = display(cause);
        // Many errors repeat their cause in their own message; it is shown once.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = source(cause);
    }
    match next {
        Ok(None) => {}
        Ok(Some(_)) => text.push_str(" (causes after the first 32 are not shown)"),
        Err(Panicked) => text.push_str(" (its cause cannot be shown: source() panicked)"),
    }
    text
}

/// The message of a panic, if it is a string. Consumes the payload, whose drop may panic as well.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let mut text = if let Some(text) = panic.downcast_ref::<&'static str>() {
        String::from(*text)
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        String::from("a panic without a message")
    };
    if drop_caught(panic).is_err() {
        text.push_str(" (the drop of its payload panicked)");
    }
    text
}

/// Drops a value of the application.
pub(crate) fn drop_caught<T>(value: T) -> Result<(), Panicked> {
    caught(|| drop(value))
}

/// Calls code of the application that is not asynchronous.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|mut payload| {
        // If the drop of a payload panics, that panic has a payload too.
        for _ in 0..PAYLOADS_MAX {
            match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                Ok(()) => return Panicked,
                Err(next) => payload = next,
            }
        }
        #[expect(clippy::mem_forget, reason = "dropping it would panic again")]
        std::mem::forget(payload);
        Panicked
    })
}

/// Code of the application panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// The message of an error of the application.
pub(crate) fn display(error: &dyn Error) -> String {
    let mut text = Limited(String::new());
    let shown = caught(|| write!(text, "{error}"));
    let Limited(mut text) = text;
    let fault = match shown {
        Ok(Ok(())) => return text,
        Ok(Err(fmt::Error)) if text.len() >= TEXT_BYTES_MAX => return text,
        Ok(Err(fmt::Error)) => "(the error cannot be shown: its Display failed)",
        Err(Panicked) => "(the error cannot be shown: its Display panicked)",
    };
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(fault);
    text
}

/// The cause of an error of the application.
pub(crate) fn source<'e>(
    error: &'e (dyn Error + 'static),
) -> Result<Option<&'e (dyn Error + 'static)>, Panicked> {
    caught(|| error.source())
}

/// A text that refuses writes beyond its limit, so that an endless message fails.
struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len() >= TEXT_BYTES_MAX {
            return Err(fmt::Error);
        }
        let room = TEXT_BYTES_MAX - self.0.len();
        let cut = part.char_indices().map(|(at, _)| at).find(|at| *at >= room);
        self.0.push_str(cut.map_or(part, |cut| part.split_at(cut).0));
        Ok(())
    }
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
/// The limit for one message, before it is escaped and cut further.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How many causes are followed at most: an error that is its own cause, or a chain of causes that
/// returns to an earlier error, has no end.
pub(crate) const CAUSES_MAX: usize = 32;
const PAYLOADS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// An error whose parts misbehave as its name says.
    #[derive(Debug)]
    struct Bad(&'static str);

    impl fmt::Display for Bad {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                "display fails" => Err(fmt::Error),
                "display panics" => {
                    f.write_str("halfway")?;
                    panic!("in Display")
                }
                "display never ends" => loop {
                    f.write_str("again ")?;
                },
                name => f.write_str(name),
            }
        }
    }

    impl Error for Bad {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            match self.0 {
                "its own cause" => Some(self),
                "source panics" => panic!("in source"),
                _ => None,
            }
        }
    }

    #[test]
    fn an_error_that_cannot_be_shown_is_said_to_be_one() {
        for (name, text) in [
            ("display fails", "(the error cannot be shown: its Display failed)"),
            ("display panics", "halfway (the error cannot be shown: its Display panicked)"),
            ("its own cause", "its own cause (causes after the first 32 are not shown)"),
            ("source panics", "source panics (its cause cannot be shown: source() panicked)"),
            ("well", "well"),
        ] {
            assert_eq!(chain(&Bad(name)), text);
        }
        assert!(chain(&Bad("display never ends")).len() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn a_payload_whose_drop_panics_is_dropped_without_a_panic() {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                std::panic::panic_any(Payload);
            }
        }
        let panic = catch_unwind(|| std::panic::panic_any(Payload)).unwrap_err();
        let text = panic_text(panic);
        assert_eq!(text, "a panic without a message (the drop of its payload panicked)");
    }

    #[test]
    fn error_text_is_cut_on_a_character_and_escaped() {
        assert_eq!(bounded_text("a\u{1b}[1m\nb"), "a\\u{1b}[1m\\nb");
        let long = bounded_text(&"é".repeat(10_000));
        assert_eq!(long.len(), ERROR_TEXT_BYTES_MAX);
    }
}
