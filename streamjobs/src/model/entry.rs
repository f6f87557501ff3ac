//! Entry ids, entries and deliveries.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::model::block::BlockSlice;

/// The server's id of an entry: milliseconds of the server's clock and a sequence number.
///
/// It changes when a job is retried or redriven, and after a failover two different entries may
/// have had the same id: use the [event id](crate::EventId) to recognise an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    milliseconds: u64,
    sequence: u64,
}

/// A string that is not an entry id.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not an entry id: expected milliseconds-sequence, such as 1700000000000-0")]
pub struct EntryIdError;

impl EntryId {
    /// The lowest id; no entry has it.
    pub const ZERO: Self = Self::new(0, 0);
    /// The highest id.
    pub const MAX: Self = Self::new(u64::MAX, u64::MAX);

    /// An id from its two parts.
    #[must_use]
    pub const fn new(milliseconds: u64, sequence: u64) -> Self {
        Self { milliseconds, sequence }
    }

    /// The server's clock when the entry was appended, in milliseconds since 1970.
    #[must_use]
    pub const fn milliseconds(self) -> u64 {
        self.milliseconds
    }

    /// The number that distinguishes entries of one millisecond.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.sequence
    }

    /// The next possible id, or `None` after the highest.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.sequence.checked_add(1) {
            Some(sequence) => Some(Self::new(self.milliseconds, sequence)),
            None => match self.milliseconds.checked_add(1) {
                Some(milliseconds) => Some(Self::new(milliseconds, 0)),
                None => None,
            },
        }
    }

    /// The id before this one, or `None` before the lowest.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Some(Self::new(self.milliseconds, sequence)),
            None => match self.milliseconds.checked_sub(1) {
                Some(milliseconds) => Some(Self::new(milliseconds, u64::MAX)),
                None => None,
            },
        }
    }

    /// The id in these bytes, read like a text by [`from_str`](Self::from_str).
    pub(crate) fn from_ascii(text: &[u8]) -> Option<Self> {
        let (milliseconds, rest) = leading_number(text)?;
        match rest.split_first() {
            None => Some(Self::new(milliseconds, 0)),
            Some((b'-', sequence)) => match leading_number(sequence)? {
                (sequence, []) => Some(Self::new(milliseconds, sequence)),
                _ => None,
            },
            Some(_) => None,
        }
    }
}

/// Reads consecutive ids. Most begin with the same milliseconds as the id before, which are then not read again.
#[derive(Debug, Default)]
pub(crate) struct IdReader<'a> {
    /// The milliseconds of the last id: as text with the dash behind them, and as a number.
    beginning: &'a [u8],
    milliseconds: u64,
}

impl<'a> IdReader<'a> {
    /// The id in these bytes, read like a text by [`from_str`](EntryId::from_str).
    pub(crate) fn read(&mut self, text: &'a [u8]) -> Option<EntryId> {
        if !self.beginning.is_empty()
            && let Some(sequence) = text.strip_prefix(self.beginning)
            && let Some((sequence, [])) = leading_number(sequence)
        {
            return Some(EntryId::new(self.milliseconds, sequence));
        }
        let id = EntryId::from_ascii(text)?;
        let dash = text.iter().position(|byte| *byte == b'-');
        self.beginning = dash.and_then(|dash| text.get(..=dash)).unwrap_or_default();
        self.milliseconds = id.milliseconds;
        Some(id)
    }
}

/// The number in front, and what follows it.
fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let digits = text.iter().map_while(digit);
    let (length, number) = if text.len() <= DIGITS_SAFE {
        digits.fold((0, 0), |(length, number), digit| (length + 1, number * 10 + digit))
    } else {
        digits.zip(1..).try_fold((0, 0_u64), |(_, number), (digit, length)| {
            Some((length, number.checked_mul(10)?.checked_add(digit)?))
        })?
    };
    (length > 0).then_some((number, text.get(length..)?))
}

/// A number with this many digits does not overflow.
const DIGITS_SAFE: usize = 19;

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntryId {
    type Err = EntryIdError;

    /// Reads `milliseconds-sequence`, or milliseconds alone for the first id of that millisecond.
    fn from_str(text: &str) -> Result<Self, EntryIdError> {
        Self::from_ascii(text.as_bytes()).ok_or(EntryIdError)
    }
}

/// Where an entry is: its id, and the number of the partition that has it.
///
/// Ids are unique within one partition only. Rows of a stream that is spread over
/// [partitions](crate::ClientBuilder::partitions) have an address with a number, in text `1700000000000-0@5`, and
/// calls that act on a row take that address. An id without a number is enough for a stream with one partition, and
/// where only one partition has the id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryAddress {
    /// The id.
    pub id: EntryId,
    /// The number of the partition, from 0; `None` if the stream has only one, or if it is not known.
    pub partition: Option<u16>,
}

/// A string that is not the address of an entry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "not an entry id: expected milliseconds-sequence, such as 1700000000000-0; on a stream with \
     partitions also the number of the partition, such as 1700000000000-0@5"
)]
pub struct EntryAddressError;

impl From<EntryId> for EntryAddress {
    fn from(id: EntryId) -> Self {
        Self { id, partition: None }
    }
}

impl From<&EntryId> for EntryAddress {
    fn from(id: &EntryId) -> Self {
        Self::from(*id)
    }
}

impl From<&Self> for EntryAddress {
    fn from(address: &Self) -> Self {
        *address
    }
}

impl fmt::Display for EntryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "{}@{partition}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

impl fmt::Debug for EntryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntryAddress {
    type Err = EntryAddressError;

    fn from_str(text: &str) -> Result<Self, EntryAddressError> {
        let (id, partition) = split_partition(text).ok_or(EntryAddressError)?;
        Ok(Self { id: id.parse().map_err(|_| EntryAddressError)?, partition })
    }
}

/// The text before the number of a partition, and the number; `None` if it is not a number.
pub(crate) fn split_partition(text: &str) -> Option<(&str, Option<u16>)> {
    match text.split_once('@') {
        None => Some((text, None)),
        Some((id, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((id, Some(number.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// The fields of an entry, in the server's order. Names may repeat and need not be text.
pub type Fields = Vec<(Bytes, Bytes)>;

/// One record of a stream, as the server holds it.
///
/// A handler with this as its first argument takes every entry of the stream, without decoding:
///
/// ```
/// use streamjobs::{Entry, handler};
///
/// #[handler(group = "audit", stream = "orders")]
/// async fn note(entry: Entry) {
///     println!("{} {:?}", entry.id(), entry.event_type());
/// }
/// ```
///
/// `Debug` shows the id and the names of the fields, never their values.
#[derive(Clone)]
pub struct Entry {
    id: EntryId,
    fields: BlockSlice<(Bytes, Bytes)>,
    /// The size of all fields, names included.
    bytes: usize,
    /// The partition from which it was read, if there are several.
    partition: Option<u16>,
}

impl Entry {
    /// An entry from its parts, for tests of handlers.
    #[must_use]
    pub fn new(id: EntryId, fields: Fields) -> Self {
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        Self { id, fields: fields.into(), bytes, partition: None }
    }

    /// An entry with these fields of a block, which have this many bytes.
    pub(crate) fn sharing(
        id: EntryId,
        block: &Arc<[(Bytes, Bytes)]>,
        fields: Range<usize>,
        bytes: usize,
    ) -> Self {
        let fields = BlockSlice::of(block, fields.start, fields.len());
        Self { id, fields, bytes, partition: None }
    }

    /// This entry, as read from one of several partitions.
    pub(crate) fn in_partition(self, partition: Option<u16>) -> Self {
        Self { partition, ..self }
    }

    /// The size of all fields, names included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The server's id of the entry.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// Its address, for calls that act on it. The address has the number of the partition if the
    /// entry was read through a [stream](crate::stream) with several; the entries of handlers have
    /// no number.
    #[must_use]
    pub fn address(&self) -> EntryAddress {
        EntryAddress { id: self.id, partition: self.partition }
    }

    /// All fields in the server's order.
    #[must_use]
    pub fn fields(&self) -> &[(Bytes, Bytes)] {
        &self.fields
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        let found = self.fields.iter().find(|(field, _)| field == name.as_bytes());
        found.map(|(_, value)| value)
    }

    /// The value of the first field of that name, if it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The event type, if the entry has a readable one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.text("type")
    }

    /// The fields, without the entry around them.
    #[must_use]
    pub fn into_fields(self) -> Fields {
        self.fields.to_vec()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address() && self.fields() == other.fields()
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields.iter().map(|(name, _)| name).collect::<Vec<_>>();
        f.debug_struct("Entry").field("id", &self.address()).field("fields", &names).finish()
    }
}

/// One of the keys that a group reads from: an index into the inlets of its queue.
///
/// Code that handles entries iterates over [`Inlet::ALL`] and does not name inlets, so that another
/// inlet needs only another constant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inlet(u8);

impl Inlet {
    /// The stream that everybody publishes to.
    pub const STREAM: Self = Self(0);
    /// The group's own stream of due retries and redriven jobs; acknowledged entries are deleted.
    pub const LANE: Self = Self(1);
    /// Every inlet, in the order in which loops serve them.
    pub const ALL: [Self; 2] = [Self::STREAM, Self::LANE];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its word in scripts and in stored dead letters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        if self.is_lane() { "lane" } else { "stream" }
    }

    /// Whether this inlet is the group's own stream.
    #[must_use]
    pub const fn is_lane(self) -> bool {
        self.0 == Self::LANE.0
    }
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry delivered to this consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The inlet of the entry.
    pub inlet: Inlet,
    /// The entry.
    pub entry: Entry,
    /// How often it was delivered, this time included.
    pub delivery_count: u64,
}

impl Delivery {
    /// What the server compares to check that this delivery is still the current one.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { inlet: self.inlet, id: self.entry.id(), delivery_count: self.delivery_count }
    }
}

/// A claim to an entry: together with the consumer, it identifies one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    /// The inlet of the entry.
    pub inlet: Inlet,
    /// The entry.
    pub id: EntryId,
    /// The delivery count of that attempt.
    pub delivery_count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_the_server_writes_them() {
        assert_eq!("5-3".parse(), Ok(EntryId::new(5, 3)));
        assert_eq!("5".parse(), Ok(EntryId::new(5, 0)));
        let max = format!("{0}-{0}", u64::MAX);
        assert_eq!(max.parse(), Ok(EntryId::MAX));
        assert_eq!(EntryId::MAX.to_string(), max);
        for bad in ["", "-", "x", "1-", "-1", "+1-0", "1-2-3", "18446744073709551616-0"] {
            assert_eq!(bad.parse::<EntryId>(), Err(EntryIdError), "{bad}");
        }
    }

    #[test]
    fn ids_behind_each_other_are_read_as_each_alone() {
        let max = u64::MAX.to_string();
        let texts =
            ["5-3", "5-4", "5", "5-", "5-4-1", "5-x", "50-1", "5-5", "x", "50-2", "7", "7-1"];
        let overflowing = format!("7-{max}0");
        let mut reader = IdReader::default();
        for text in texts.into_iter().chain([overflowing.as_str()]) {
            let alone = EntryId::from_ascii(text.as_bytes());
            assert_eq!(reader.read(text.as_bytes()), alone, "{text}");
        }
    }

    #[test]
    fn an_address_is_read_as_it_is_shown() {
        let id = EntryId::new(5, 3);
        assert_eq!("5-3".parse(), Ok(EntryAddress::from(id)));
        assert_eq!("5-3@47".parse(), Ok(EntryAddress { id, partition: Some(47) }));
        assert_eq!(EntryAddress { id, partition: Some(47) }.to_string(), "5-3@47");
        for bad in ["5-3@", "5-3@-1", "5-3@+1", "5-3@65536", "@5", "5-3@1@2"] {
            assert_eq!(bad.parse::<EntryAddress>(), Err(EntryAddressError), "{bad}");
        }
    }

    #[test]
    fn cursor_arithmetic_neither_overflows_nor_wraps() {
        assert_eq!(EntryId::MAX.next(), None);
        assert_eq!(EntryId::ZERO.previous(), None);
        assert_eq!(EntryId::new(1, u64::MAX).next(), Some(EntryId::new(2, 0)));
        assert_eq!(EntryId::new(2, 0).previous(), Some(EntryId::new(1, u64::MAX)));
    }

    #[test]
    fn debug_shows_no_payload() {
        let fields = vec![(Bytes::from_static(b"data"), Bytes::from_static(b"secret"))];
        let shown = format!("{:?}", Entry::new(EntryId::new(1, 0), fields));
        assert!(shown.contains("data") && !shown.contains("secret"), "{shown}");
    }
}
