//! Names that are constants of the program, validated when it is compiled.
//!
//! The rules are those of `name`. Faults that these checks do not catch are refused when a runtime
//! starts.

/// The name of a group.
///
/// # Panics
///
/// When the name breaks a rule, which ends the compilation.
#[must_use]
pub const fn group_name(name: &'static str) -> &'static str {
    check(name);
    let mut bytes = name.as_bytes();
    while let Some((byte, rest)) = bytes.split_first() {
        assert!(*byte != b'{' && *byte != b'}', "invalid group name: braces are not allowed");
        bytes = rest;
    }
    name
}

/// The name of a stream.
///
/// # Panics
///
/// When the name breaks a rule, which ends the compilation.
#[must_use]
pub const fn stream_name(name: &'static str) -> &'static str {
    check(name);
    name
}

/// The length of the name of a group's tick stream.
#[must_use]
pub const fn tick_stream_length(group: &str) -> usize {
    TICKS.len() + group.len()
}

/// The name of a group's tick stream. Its length is [`tick_stream_length`].
#[must_use]
pub const fn tick_stream_bytes<const LENGTH: usize>(group: &str) -> [u8; LENGTH] {
    let mut name = [0; LENGTH];
    let (head, tail) = name.split_at_mut(TICKS.len());
    head.copy_from_slice(TICKS.as_bytes());
    tail.copy_from_slice(group.as_bytes());
    name
}

/// The text of the name that [`tick_stream_bytes`] returns.
///
/// # Panics
///
/// When the name breaks a rule, which ends the compilation.
#[must_use]
pub const fn tick_stream_text(name: &'static [u8]) -> &'static str {
    match std::str::from_utf8(name) {
        Ok(name) => stream_name(name),
        Err(_) => stream_name(""),
    }
}

const fn check(name: &str) {
    assert!(!name.is_empty(), "invalid name: it is empty");
    assert!(name.len() <= BYTES_MAX, "invalid name: it is longer than 200 bytes");
    let (mut bytes, mut before) = (name.as_bytes(), 0);
    while let Some((byte, rest)) = bytes.split_first() {
        // The second block of control characters has two bytes in UTF-8.
        let is_control = byte.is_ascii_control() || (before == 0xc2 && *byte < 0xa0);
        assert!(!is_control, "invalid name: control characters are not allowed");
        (bytes, before) = (rest, *byte);
    }
}

const TICKS: &str = "ticks:";
const BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::model::name::{GroupName, StreamName};

    #[test]
    fn what_passes_is_a_name_and_what_breaks_a_rule_does_not_pass() {
        let long = |length| &*"x".repeat(length).leak();
        let names = ["mail", "", "a{b}", "a\nb", "a\u{7f}", "a\u{85}b", "aé", long(200), long(201)];
        for name in names {
            let passes = catch_unwind(|| group_name(name)).is_ok();
            assert_eq!(passes, GroupName::new(name).is_ok(), "{name:?}");
            let passes = catch_unwind(|| stream_name(name)).is_ok();
            assert!(passes || StreamName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_stream_of_ticks_has_the_name_of_its_group() {
        const BYTES: &[u8; tick_stream_length("reports")] = &tick_stream_bytes("reports");
        assert_eq!(tick_stream_text(BYTES), "ticks:reports");
    }
}
