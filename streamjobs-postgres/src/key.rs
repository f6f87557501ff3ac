//! The key by which the guard recognizes an event.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use streamjobs::{Entry, EventId, Job, JobError};

use crate::text::hex;

/// The key by which a guarded handler recognizes work that was done before.
///
/// [`Once`](crate::Once) uses the event id, which is right for everything that is published with
/// this framework. Implement your own key where one piece of work can arrive as several events, for
/// example if another program writes an order to the stream twice:
///
/// ```
/// use streamjobs::{Event, Job, JobError, ResultExt};
/// use streamjobs_postgres::GuardKey;
/// # #[derive(Event, serde::Serialize, serde::Deserialize)]
/// # #[event(stream = "orders", type = "order.placed")]
/// # struct OrderPlaced { order_id: String }
///
/// struct ByOrder;
///
/// impl GuardKey for ByOrder {
///     fn key(job: &Job) -> Result<Option<String>, JobError> {
///         Ok(Some(job.read::<OrderPlaced>().dead()?.order_id))
///     }
/// }
/// ```
///
/// The handler then takes `&mut Once<ByOrder>`. A key is unique within one group and event type, so
/// two handlers of a group can use the same keys.
pub trait GuardKey: Send + 'static {
    /// The key for this job; `None` uses the event id.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error, and the handler does not run.
    fn key(job: &Job) -> Result<Option<String>, JobError>;
}

/// The event id, which stays the same for every delivery, retry and redrive.
#[derive(Clone, Copy, Debug)]
pub struct ByEventId;

impl GuardKey for ByEventId {
    fn key(_job: &Job) -> Result<Option<String>, JobError> {
        Ok(None)
    }
}

/// The key as it is stored in the table.
pub(crate) fn of_job<K: GuardKey>(job: &Job) -> Result<String, JobError> {
    Ok(match K::key(job)? {
        None => of_event(job.event_id()),
        Some(own) => of_own(job.entry().event_type().unwrap_or_default(), &own),
    })
}

/// The key of an event.
pub(crate) fn of_event(id: &EventId) -> String {
    stored(id.as_str())
}

/// The key that an application derived from an event. The line break separates such keys from event
/// ids, which contain none.
fn of_own(event_type: &str, key: &str) -> String {
    stored(&[event_type, "\n", key].concat())
}

/// A short key as it is, for people to read; a long one as a hash, since index entries are limited
/// in size.
pub(crate) fn stored(key: &str) -> String {
    let plain = key.len() <= KEY_BYTES_MAX && !key.starts_with(HASHED) && !key.contains('\0');
    if plain { key.to_owned() } else { [HASHED, &hex(&Sha256::digest(key))].concat() }
}

/// A hash of the payload, without the fields that a retry or a redrive changes.
pub(crate) fn payload_hash(entry: &Entry) -> [u8; 16] {
    payload_hash_of(entry.fields())
}

/// As [`payload_hash`], of the fields of an entry.
pub(crate) fn payload_hash_of(fields: &[(Bytes, Bytes)]) -> [u8; 16] {
    let mut hash = Sha256::new();
    let payload = fields.iter().filter(|(name, _)| !name.starts_with(b"sj-"));
    for part in payload.flat_map(|(name, value)| [name, value]) {
        // The length in front makes the boundary of each part unambiguous.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.iter_mut().zip(hash.finalize()).for_each(|(short, byte)| *short = byte);
    short
}

const HASHED: &str = "sha256:";
const KEY_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use streamjobs::EntryId;

    use super::*;

    fn entry(fields: &[(&'static str, &'static str)]) -> Entry {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let fields = fields.iter().map(|(name, value)| (bytes(name), bytes(value)));
        Entry::new(EntryId::new(1, 0), fields.collect())
    }

    #[test]
    fn short_ids_are_readable_and_long_ones_hashed() {
        assert_eq!(of_event(&EventId::new("order-7").unwrap()), "order-7");
        let long = of_event(&EventId::new("x".repeat(128)).unwrap());
        assert!(long.starts_with("sha256:") && long.len() == 7 + 64);
        assert_ne!(long, of_event(&EventId::new("x".repeat(127)).unwrap()));
        assert_ne!(
            of_event(&EventId::new(long.clone()).unwrap()),
            long,
            "an id cannot forge a hash"
        );
    }

    #[test]
    fn an_applications_key_belongs_to_its_event_type() {
        assert_ne!(of_own("order.placed", "7"), of_own("order.cancelled", "7"));
        assert!(of_own("t", "a\0").starts_with("sha256:"));
    }

    #[test]
    fn the_hash_covers_the_payload_alone() {
        let first = entry(&[("type", "t"), ("data", "{}"), ("sj-id", "e-1")]);
        let retried =
            entry(&[("type", "t"), ("data", "{}"), ("sj-id", "e-1"), ("sj-attempt", "2")]);
        let other = entry(&[("type", "t"), ("data", "{ }"), ("sj-id", "e-1")]);
        assert_eq!(payload_hash(&first), payload_hash(&retried));
        assert_ne!(payload_hash(&first), payload_hash(&other));
        assert_ne!(payload_hash(&entry(&[("ab", "c")])), payload_hash(&entry(&[("a", "bc")])));
    }
}
