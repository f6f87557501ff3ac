//! Uniqueness: which publications count as the same, and for how long others are refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::model::entry::Entry;
use crate::model::event::{EncodeError, Event, UniqueFields, put_part};
use crate::model::name::{EventId, GroupName, NameError};

/// How long other publications that count as the same are refused after a publication, for
/// [`Client::publish_unique`](crate::Client::publish_unique).
///
/// Two publications to a stream count as the same if they have the same event type, the same key (as
/// `#[event(key = "…")]` names it, if there is one), and the same values in the fields that `#[event(unique = "…")]`
/// names. With [`key`](Self::key), a text that the call gives takes the place of these fields.
///
/// ```
/// use std::time::Duration;
/// use streamjobs::unique::Unique;
///
/// let hour = Duration::from_secs(3_600);
/// let once_an_hour = Unique::within(hour);
/// let one_at_a_time = Unique::until_done("imports", hour).key("customer-7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Unique {
    same: Same,
    until: Until,
}

/// What makes two publications count as the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Same {
    /// The fields that the event names.
    #[default]
    Fields,
    /// A text of the caller.
    Key(String),
}

/// Until when other publications that count as the same are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Until {
    Over(Duration),
    Done { group: String, at_most: Duration },
}

/// How long a lock lasts, and the group whose job can free it earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockTime {
    pub(crate) window: Duration,
    pub(crate) group: Option<GroupName>,
}

/// Why a publication cannot be unique or debounced. Nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UniqueFault {
    /// The event names no `unique` fields, and the call gave no key.
    #[error(
        "nothing says which publications are the same: name fields with #[event(unique = \"…\")] or \
         give a key"
    )]
    NoKey,
    /// The key of the call is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// A time is zero, or longer than a hundred years.
    #[error("{name} is {time:?}: it has to be between a millisecond and a hundred years")]
    Time {
        /// Which time.
        name: &'static str,
        /// Its value.
        time: Duration,
    },
    /// The longest wait is shorter than the delay.
    #[error("max_wait {wait_max:?} is shorter than the delay {delay:?}")]
    WaitBelowDelay {
        /// The delay.
        delay: Duration,
        /// The longest wait.
        wait_max: Duration,
    },
    /// The group has no valid name.
    #[error(transparent)]
    Group(#[from] NameError),
    /// A named field cannot be written as JSON.
    #[error("a field that `unique` names cannot be encoded")]
    Encode(#[from] EncodeError),
}

impl Unique {
    /// Other publications that count as the same are refused for this time after the publication, by the server's
    /// clock, whatever becomes of the event. From a millisecond to a hundred years.
    pub fn within(window: Duration) -> Self {
        Self { same: Same::Fields, until: Until::Over(window) }
    }

    /// Other publications that count as the same are refused until this group's job has ended: it is done, or a dead
    /// letter. A retry does not end it.
    ///
    /// When `at_most` has passed since the publication, the job counts as ended, whatever has happened: a job can end
    /// without its fields being known, and the group might not exist. From a millisecond to a hundred years. If it is
    /// too short, a second event is published while the first one still runs; if it is too long, a lock that is left
    /// over refuses for that long.
    pub fn until_done(group: impl Into<String>, at_most: Duration) -> Self {
        Self { same: Same::Fields, until: Until::Done { group: group.into(), at_most } }
    }

    /// Compares this text instead of fields of the event, in addition to the event type and the event's own key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.same = Same::Key(key.into());
        self
    }

    /// Checked times.
    pub(crate) fn times(&self) -> Result<LockTime, UniqueFault> {
        match &self.until {
            Until::Over(window) => {
                Ok(LockTime { window: time("the window", *window)?, group: None })
            }
            Until::Done { group, at_most } => {
                let group = Some(GroupName::new(group.as_str())?);
                Ok(LockTime { window: time("at_most", *at_most)?, group })
            }
        }
    }

    /// The digest of an event.
    pub(crate) fn digest<E: Event>(&self, event: &E) -> Result<UniqueDigest, UniqueFault> {
        self.same.digest(event)
    }
}

impl Same {
    pub(super) fn digest<E: Event>(&self, event: &E) -> Result<UniqueDigest, UniqueFault> {
        let key = event.key();
        match self {
            Self::Fields => {
                let fields = event.unique()?.and_then(UniqueFields::parts);
                let fields = fields.ok_or(UniqueFault::NoKey)?;
                Ok(UniqueDigest::made(event.event_type(), key.as_deref(), "fields", &fields))
            }
            Self::Key(text) => UniqueDigest::of_key(event.event_type(), key.as_deref(), text),
        }
    }
}

/// The digest that is equal for publications that count as the same, in 64 characters: the SHA-256 of the event type,
/// the key, and the named fields or the text of the call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UniqueDigest(Box<str>);

/// A text that is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a digest: expected 64 characters 0-9 and a-f")]
pub struct UniqueDigestError;

impl UniqueDigest {
    /// The digest of an event that names `unique` fields.
    ///
    /// # Errors
    ///
    /// When the event names no such field, or one cannot be written as JSON.
    pub fn of<E: Event>(event: &E) -> Result<Self, UniqueFault> {
        Same::Fields.digest(event)
    }

    /// The digest of an event of this type that is published with a text as its key for uniqueness, as
    /// [`Unique::key`] takes it. `event_key` is the event's own key, which `#[event(key = "…")]` names.
    ///
    /// # Errors
    ///
    /// When the text is empty.
    pub fn of_key(
        event_type: &str,
        event_key: Option<&str>,
        text: &str,
    ) -> Result<Self, UniqueFault> {
        match text {
            "" => Err(UniqueFault::EmptyKey),
            text => Ok(Self::made(event_type, event_key, "text", text.as_bytes())),
        }
    }

    /// The digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn made(event_type: &str, event_key: Option<&str>, kind: &str, what: &[u8]) -> Self {
        let mut parts = BytesMut::new();
        put_part(&mut parts, event_type.as_bytes());
        // The number of parts says whether there is a key.
        event_key.into_iter().for_each(|key| put_part(&mut parts, key.as_bytes()));
        put_part(&mut parts, kind.as_bytes());
        put_part(&mut parts, what);
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update([u8::from(event_key.is_some())]);
        hash.update(&parts);
        let text = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(text.into_boxed_str())
    }
}

impl fmt::Display for UniqueDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UniqueDigest {
    type Err = UniqueDigestError;

    fn from_str(text: &str) -> Result<Self, UniqueDigestError> {
        let is_digest = text.len() == DIGEST_LENGTH
            && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_digest.then(|| Self(text.into())).ok_or(UniqueDigestError)
    }
}

/// The lock that an entry names for a group, which the end of its job frees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueLock {
    /// The digest that is locked.
    pub digest: UniqueDigest,
    /// The event that has it.
    pub event_id: EventId,
}

impl UniqueLock {
    /// The lock that the end of a job in this group frees, if its entry names one.
    pub(crate) fn of(entry: &Entry, event_id: &EventId, group: &GroupName) -> Option<Self> {
        let digest = Self::digest(entry.text(LOCK)?, group)?;
        Some(Self { digest, event_id: event_id.clone() })
    }

    /// The lock that a dead letter of this group frees, if its fields name one.
    pub(crate) fn of_letter(letter: &[(Bytes, Bytes)], group: &GroupName) -> Option<Self> {
        let text = |wanted: &str| {
            let found = letter.iter().find(|(name, _)| name == wanted.as_bytes());
            found.and_then(|(_, value)| std::str::from_utf8(value).ok())
        };
        let digest = Self::digest(text(LOCK)?, group)?;
        Some(Self { digest, event_id: EventId::new(text(LETTER_EVENT)?).ok()? })
    }

    /// The field of an entry that names its lock.
    pub(crate) fn field(digest: &UniqueDigest, group: &GroupName) -> (Bytes, Bytes) {
        (Bytes::from_static(LOCK.as_bytes()), format!("{digest} {group}").into())
    }

    fn digest(field: &str, group: &GroupName) -> Option<UniqueDigest> {
        let (digest, of) = field.split_once(' ')?;
        (of == group.as_str()).then(|| digest.parse().ok()).flatten()
    }
}

pub(super) fn time(name: &'static str, time: Duration) -> Result<Duration, UniqueFault> {
    match (TIME_MIN..=TIME_MAX).contains(&time) {
        true => Ok(time),
        false => Err(UniqueFault::Time { name, time }),
    }
}

/// The field of an entry that names its lock: digest and group.
pub(crate) const LOCK: &str = "sj-unique";
const LETTER_EVENT: &str = "sj-dead-event";
/// Hashed in front of the parts, which keeps this digest different from any other digest of the same parts.
const DOMAIN: &[u8] = b"streamjobs unique 1\0";
const DIGEST_LENGTH: usize = 64;
const TIME_MIN: Duration = Duration::from_millis(1);
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::{EntryId, Fields};

    fn of_key(event_type: &str, key: Option<&str>, text: &str) -> UniqueDigest {
        UniqueDigest::of_key(event_type, key, text).unwrap()
    }

    #[test]
    fn a_digest_is_one_of_type_key_and_text() {
        let all = [
            of_key("a", None, "x"),
            of_key("b", None, "x"),
            of_key("a", Some("k"), "x"),
            of_key("a", Some(""), "x"),
            of_key("a", Some("text"), "x"),
            of_key("a", None, "y"),
            UniqueDigest::made("a", None, "fields", b"x"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| other != one), "{place}");
            assert_eq!(one.as_str().parse::<UniqueDigest>().as_ref(), Ok(one));
        }
        // Processes of different versions have to compute the same digest.
        let known = "84b8d37a0b89c3b7f886c2b76b107e9ffb2cfc6d727d20a00d38fc7067a8f6aa";
        assert_eq!(all[0].as_str(), known);
        for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(text.parse::<UniqueDigest>(), Err(UniqueDigestError), "{text}");
        }
        assert!(matches!(UniqueDigest::of_key("a", None, ""), Err(UniqueFault::EmptyKey)));
    }

    #[test]
    fn times_that_cannot_be_meant_are_refused_by_name() {
        let second = Duration::from_secs(1);
        let unique = |unique: Unique| unique.times().unwrap_err().to_string();
        assert!(unique(Unique::within(Duration::ZERO)).contains("window"));
        assert!(unique(Unique::within(Duration::MAX)).contains("window"));
        assert!(unique(Unique::until_done("work", Duration::ZERO)).contains("at_most"));
        assert!(unique(Unique::until_done("{", second)).contains("group"));
    }

    #[test]
    fn the_lock_of_an_entry_is_one_of_its_group_alone() {
        let [work, mail] = ["work", "mail"].map(|name| GroupName::new(name).unwrap());
        let (digest, id) = (of_key("a", None, "x"), EventId::new("e-1").unwrap());
        let entry = |fields: Fields| Entry::new(EntryId::ZERO, fields);
        let locked = entry(vec![UniqueLock::field(&digest, &work)]);
        let lock = UniqueLock { digest: digest.clone(), event_id: id.clone() };
        assert_eq!(UniqueLock::of(&locked, &id, &work), Some(lock.clone()));
        assert_eq!(UniqueLock::of(&locked, &id, &mail), None);
        let mut letter = vec![UniqueLock::field(&digest, &work)];
        assert_eq!(UniqueLock::of_letter(&letter, &work), None);
        letter.push((LETTER_EVENT.into(), "e-1".into()));
        assert_eq!(UniqueLock::of_letter(&letter, &work), Some(lock));
        assert_eq!(UniqueLock::of_letter(&letter, &mail), None);
        for bad in ["", " work", "xyz work", &"0".repeat(64)] {
            let entry = entry(vec![(LOCK.into(), bad.to_owned().into())]);
            assert_eq!(UniqueLock::of(&entry, &id, &work), None, "{bad}");
        }
    }
}
