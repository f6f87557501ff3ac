//! Validated names, and the keys that are derived from them.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use crate::model::slot::hash_tag;

/// Why a name was refused.
///
/// The message names the rule, and shows the name with its control characters escaped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("invalid {what} name {shown:?}: {rule}")]
pub struct NameError {
    what: &'static str,
    shown: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, name: &str, rule: &'static str) -> Self {
        let shown = name.chars().take(SHOWN_CHARACTERS_MAX).collect();
        Self { what, shown, rule }
    }
}

macro_rules! checked_name {
    ($(#[$docs:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates a name.
            ///
            /// # Errors
            ///
            /// When the name breaks a rule; the error says which.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                Self::read(&name.into())
            }

            /// Like [`new`](Self::new), in one allocation.
            pub(crate) fn read(name: &str) -> Result<Self, NameError> {
                match $check(name) {
                    Some(rule) => Err(NameError::new($what, name, rule)),
                    None => Ok(Self(name.into())),
                }
            }

            /// The name as the server stores it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

checked_name! {
    /// The key of a stream, exactly as in Redis.
    ///
    /// At most 200 bytes without control characters. Braces are allowed as one cluster hash tag (`orders:{acme}`).
    /// Any other use of braces is refused, because the helper keys could not share the stream's cluster slot. A name
    /// that looks like a helper key is refused too.
    StreamName, "stream", stream_rule
}

checked_name! {
    /// The name of a consumer group.
    ///
    /// At most 200 bytes without control characters or braces.
    GroupName, "group", plain_rule
}

checked_name! {
    /// The name under which a process reads: unique for every start.
    ConsumerName, "consumer", plain_rule
}

checked_name! {
    /// The identity of an event, chosen by its publisher or generated: the once-per-id key.
    ///
    /// It survives retries and redrives. At most 128 bytes without control characters.
    EventId, "event id", event_id_rule
}

checked_name! {
    /// The name of a schedule: 1 to 100 letters, digits and `.`, `_`, `-`, `:` of ASCII.
    ScheduleName, "schedule", schedule_rule
}

checked_name! {
    /// The token under which an archived job is redriven at most once.
    RedriveToken, "redrive token", event_id_rule
}

impl StreamName {
    /// The key of a group's lane: the stream of its due retries and redriven jobs.
    #[must_use]
    pub fn lane_key(&self, group: &GroupName) -> String {
        self.helper_key("lane", group)
    }

    /// The key of the stream of a group's dead letters.
    #[must_use]
    pub fn dead_key(&self, group: &GroupName) -> String {
        self.helper_key("dead", group)
    }

    /// The stream of a group's dead letters, to be read as any other. Users cannot make this name.
    pub(crate) fn dead_stream(&self, group: &GroupName) -> Self {
        Self(self.dead_key(group).into())
    }

    /// The stream of a group's lane, to be read as any other. Users cannot make this name.
    pub(crate) fn lane_stream(&self, group: &GroupName) -> Self {
        Self(self.lane_key(group).into())
    }

    /// The stream of notes of a group's jobs that are done, to be read as any other. Users cannot make this name.
    pub(crate) fn done_stream(&self, group: &GroupName) -> Self {
        Self(self.done_key(group).into())
    }

    /// Whether the stream can have partitions. With a hash tag, all of them would be in one slot.
    pub(crate) fn may_be_spread(&self) -> bool {
        hash_tag(&self.0).is_none()
    }

    /// The stream of the firings of all schedules, to be read as any other. Users cannot make this name.
    #[must_use]
    #[doc(hidden)]
    pub fn schedule_log(&self) -> Self {
        Self(self.schedule_log_key().into())
    }

    /// The prefix of the keys of all groups.
    pub(crate) fn helper_prefix(&self) -> String {
        let stream = &self.0;
        match hash_tag(stream) {
            Some(_) => format!("{stream}:"),
            None => format!("{{{stream}}}:"),
        }
    }

    pub(super) fn helper_key(&self, suffix: &str, group: &GroupName) -> String {
        format!("{}{suffix}:{group}", self.helper_prefix())
    }
}

impl ConsumerName {
    /// A unique name: the prefix and 64 random bits.
    ///
    /// # Errors
    ///
    /// When the prefix is invalid, or too long for the random part to fit.
    pub fn unique(prefix: &str) -> Result<Self, NameError> {
        Self::new(format!("{prefix}-{:016x}", fastrand::u64(..)))
    }
}

impl EventId {
    /// A new id: 128 bits, ordered by time.
    #[must_use]
    pub fn generate() -> Self {
        Self(text_of(Uuid::now_v7()))
    }

    /// Derives the id of an event that a job publishes.
    ///
    /// The same parent id and number give the same id, so that a retried handler publishes the *same*
    /// events again, and guarded handlers do them once.
    #[must_use]
    pub fn derive(&self, number: u64) -> Self {
        let name = format!("{}/{number}", self.0);
        Self(text_of(Uuid::new_v5(&DERIVED_IDS, name.as_bytes())))
    }

    /// The id of an occurrence of a schedule. It is the same whichever process fires the occurrence, and however
    /// often.
    pub(crate) fn of_occurrence(stream: &StreamName, schedule: &ScheduleName, at: u64) -> Self {
        // A line break separates the parts: a stream's name can contain any character but control characters.
        let name = format!("{stream}\n{schedule}\n{at}");
        Self(text_of(Uuid::new_v5(&OCCURRENCE_IDS, name.as_bytes())))
    }

    pub(crate) fn of_content(content: &[u8]) -> Self {
        Self(text_of(Uuid::new_v5(&CONTENT_IDS, content)))
    }
}

/// The text of an id, in one allocation: publishing makes one for each event.
fn text_of(id: Uuid) -> Arc<str> {
    let mut text = Uuid::encode_buffer();
    Arc::from(&*id.hyphenated().encode_lower(&mut text))
}

fn plain_rule(name: &str) -> Option<&'static str> {
    common_rule(name).or_else(|| name.contains(['{', '}']).then_some("braces are not allowed"))
}

fn stream_rule(name: &str) -> Option<&'static str> {
    if let Some(rule) = common_rule(name) {
        return Some(rule);
    }
    let braces = name.matches(['{', '}']).count();
    match hash_tag(name) {
        None if braces == 0 => None,
        Some(_) if braces == 2 => {
            let (_, rest) = name.split_once('}').unwrap_or_default();
            let helper = HELPER_SUFFIXES.iter().any(|suffix| rest.contains(suffix))
                || HELPER_ENDS.iter().any(|end| rest.ends_with(end));
            helper.then_some("it looks like a helper key of streamjobs")
        }
        _ => Some("braces are only allowed as one hash tag, as in orders:{acme}"),
    }
}

fn event_id_rule(name: &str) -> Option<&'static str> {
    text_rule(name, EVENT_ID_BYTES_MAX, "it is longer than 128 bytes")
}

fn schedule_rule(name: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    text_rule(name, SCHEDULE_BYTES_MAX, "it is longer than 100 bytes").or_else(|| {
        let is_plain = name.bytes().all(allowed);
        (!is_plain).then_some("only letters, digits and . _ - : of ASCII are allowed")
    })
}

fn common_rule(name: &str) -> Option<&'static str> {
    text_rule(name, NAME_BYTES_MAX, "it is longer than 200 bytes")
}

fn text_rule(name: &str, bytes_max: usize, too_long: &'static str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > bytes_max {
        Some(too_long)
    } else if has_control(name) {
        Some("control characters are not allowed")
    } else {
        None
    }
}

/// Whether the name has a control character. Most names are ASCII, for which looking at the bytes is enough.
fn has_control(name: &str) -> bool {
    if name.is_ascii() {
        // The whole name, without an early exit, so that several bytes are compared at once.
        return name.bytes().fold(false, |found, byte| found | byte.is_ascii_control());
    }
    name.chars().any(char::is_control)
}

const NAME_BYTES_MAX: usize = 200;
const EVENT_ID_BYTES_MAX: usize = 128;
const SCHEDULE_BYTES_MAX: usize = 100;
const SHOWN_CHARACTERS_MAX: usize = 64;
const HELPER_SUFFIXES: [&str; 21] = [
    ":done:",
    ":lane:",
    ":retry:",
    ":retry-records:",
    ":dead:",
    ":group:",
    ":progress:",
    ":rate:",
    ":redriven:",
    ":once:",
    ":result:",
    ":unique:",
    ":holds:",
    ":busy:",
    ":lines:",
    ":line-records:",
    ":turns:",
    ":shares:",
    ":trend-minutes:",
    ":trend-quarters:",
    ":partitions",
];
/// The endings of helper keys that belong to no group.
const HELPER_ENDS: [&str; 6] =
    [":later", ":later-records", ":cancelled", ":schedules", ":schedule-specs", ":schedule-log"];

/// The name space of ids for entries that other clients wrote without an event id.
const CONTENT_IDS: Uuid = Uuid::from_u128(0x8f0e_6f2c_53b1_5d0a_9a6b_6f10_2c1d_7e01);
/// The name space of ids derived from a parent's id.
const DERIVED_IDS: Uuid = Uuid::from_u128(0x8f0e_6f2c_53b1_5d0a_9a6b_6f10_2c1d_7e02);
/// The name space of ids of the occurrences of schedules.
const OCCURRENCE_IDS: Uuid = Uuid::from_u128(0x8f0e_6f2c_53b1_5d0a_9a6b_6f10_2c1d_7e03);

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> Result<StreamName, NameError> {
        StreamName::new(name)
    }

    #[test]
    fn helper_keys_share_the_slot_of_their_stream() {
        let group = GroupName::new("mail").unwrap();
        assert_eq!(stream("orders").unwrap().lane_key(&group), "{orders}:lane:mail");
        assert_eq!(stream("orders:{acme}").unwrap().dead_key(&group), "orders:{acme}:dead:mail");
        let token = RedriveToken::new("t:1").unwrap();
        let key = stream("orders").unwrap().redriven_key(&group, &token);
        assert_eq!(key, "{orders}:redriven:mail:{t:1}");
        assert_eq!(stream("orders").unwrap().later_key(), "{orders}:later");
        let records = stream("orders:{acme}").unwrap().later_records_key();
        assert_eq!(records, "orders:{acme}:later-records");
        assert_eq!(stream("orders").unwrap().unique_key("5f"), "{orders}:unique:5f");
    }

    #[test]
    fn braces_are_allowed_only_as_one_hash_tag() {
        assert!(stream("a:{b}:c").is_ok());
        for bad in ["a{", "a}", "{}a", "a}b{c", "{a}{b}", "{a", "a{}b{c}"] {
            assert!(stream(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn a_stream_may_not_look_like_a_helper_key() {
        assert!(stream("{orders}:lane:mail").is_err());
        for helper in [
            "{orders}:later",
            "orders:{acme}:later-records",
            "{orders}:cancelled",
            "{orders}:schedules",
            "{orders}:schedule-specs",
            "{orders}:schedule-log",
            "{orders}:unique:5f",
        ] {
            assert!(stream(helper).is_err(), "{helper}");
        }
        assert!(stream("{orders}:laterals").is_ok());
        assert!(stream("orders:lane:mail").is_ok(), "without a tag it collides with nothing");
    }

    #[test]
    fn empty_long_and_control_names_are_refused_with_their_rule() {
        let long = "x".repeat(201);
        for (bad, rule) in [("", "empty"), (long.as_str(), "200 bytes"), ("a\nb", "control")] {
            let error = GroupName::new(bad).unwrap_err().to_string();
            assert!(error.contains(rule) && error.contains("group"), "{error}");
            assert!(!error.contains('\n'), "control characters are escaped: {error}");
        }
    }

    #[test]
    fn event_ids_are_ordered_by_time_and_derived_ids_are_stable() {
        let (first, second) = (EventId::generate(), EventId::generate());
        assert!(first < second);
        assert_eq!(first.derive(1), first.derive(1));
        assert_ne!(first.derive(1), first.derive(2));
        assert!(EventId::new("x".repeat(129)).is_err());
    }

    #[test]
    fn an_occurrence_has_one_id_and_names_of_schedules_are_plain() {
        let name = |name: &str| ScheduleName::new(name);
        let id = |of: &str, at| {
            let (stream, schedule) = (stream("orders").unwrap(), name(of).unwrap());
            EventId::of_occurrence(&stream, &schedule, at)
        };
        assert_eq!(id("a", 5), id("a", 5));
        assert_ne!(id("a", 5), id("a", 6));
        assert_ne!(id("a", 5), id("b", 5));
        assert!(name("nightly-report:2.eu_west").is_ok());
        for bad in ["", "a b", "a#", "a/b", "ä", &"x".repeat(101)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn consumer_names_are_unique_for_every_start() {
        let (a, b) = (ConsumerName::unique("web").unwrap(), ConsumerName::unique("web").unwrap());
        assert!(a.as_str().starts_with("web-"));
        assert_ne!(a, b);
    }
}
