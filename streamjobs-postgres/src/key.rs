//! What the guard knows an event by.

use sha2::{Digest, Sha256};
use streamjobs::{Entry, EventId, Job, JobError};

use crate::text::hex;

/// By what a guarded handler knows that it has done its work before.
///
/// [`Once`](crate::Once) goes by the event id, which is right for everything that is published with
/// this framework. Write a key of your own where one piece of work can come as several events, as
/// when somebody else's program writes an order to the stream twice:
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
/// The handler then takes `&mut Once<ByOrder>`. Keys count within one group and event type, so that
/// two handlers of a group do not take each other's work for their own.
pub trait GuardKey: Send + 'static {
    /// The key for this job; none for its event id.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error, and the handler is not run.
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

/// The key as it stands in the table.
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

/// The key that an application derived from an event. The line break keeps it apart from event ids,
/// which have none.
fn of_own(event_type: &str, key: &str) -> String {
    stored(&[event_type, "\n", key].concat())
}

/// Short keys as they are, for people to read; others as a hash, since an index takes only so much.
pub(crate) fn stored(key: &str) -> String {
    let plain = key.len() <= KEY_BYTES_MAX && !key.starts_with(HASHED) && !key.contains('\0');
    if plain { key.to_owned() } else { [HASHED, &hex(&Sha256::digest(key))].concat() }
}

/// Tells one payload from another: nothing that a retry or a redrive changes is part of it.
pub(crate) fn payload_hash(entry: &Entry) -> [u8; 16] {
    let mut hash = Sha256::new();
    let payload = entry.fields().iter().filter(|(name, _)| !name.starts_with(b"sj-"));
    for part in payload.flat_map(|(name, value)| [name, value]) {
        // Lengths in front keep the parts apart, whatever they hold.
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
    use bytes::Bytes;
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
        assert_ne!(of_event(&EventId::new(long.clone()).unwrap()), long, "nobody can name a hash");
    }

    #[test]
    fn a_key_of_ones_own_belongs_to_its_event_type() {
        assert_ne!(of_own("order.placed", "7"), of_own("order.cancelled", "7"));
        assert!(of_own("t", "a\0").starts_with("sha256:"));
    }

    #[test]
    fn the_hash_is_of_the_payload_alone() {
        let first = entry(&[("type", "t"), ("data", "{}"), ("sj-id", "e-1")]);
        let retried =
            entry(&[("type", "t"), ("data", "{}"), ("sj-id", "e-1"), ("sj-attempt", "2")]);
        let other = entry(&[("type", "t"), ("data", "{ }"), ("sj-id", "e-1")]);
        assert_eq!(payload_hash(&first), payload_hash(&retried));
        assert_ne!(payload_hash(&first), payload_hash(&other));
        assert_ne!(payload_hash(&entry(&[("ab", "c")])), payload_hash(&entry(&[("a", "bc")])));
    }
}
