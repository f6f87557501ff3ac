//! Parts of a stream's history: from one position to another.

use std::ops::{self, Bound};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::span::AddressSpan;
use crate::model::entry::{EntryAddress, EntryId};

/// A position in a stream: an entry, or a time by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// An entry; in each partition, if there are several.
    Id(EntryId),
    /// All entries of a millisecond, in milliseconds since 1970.
    Milliseconds(u64),
    /// An entry of one of several partitions. In the order of the stream, it follows the entries with the same id in
    /// partitions with lower numbers.
    Address(EntryAddress),
}

impl Position {
    fn first(self) -> EntryAddress {
        match self {
            Self::Id(id) => id.into(),
            Self::Milliseconds(milliseconds) => EntryId::new(milliseconds, 0).into(),
            Self::Address(address) => address,
        }
    }

    fn last(self) -> EntryAddress {
        match self {
            Self::Id(id) => id.into(),
            Self::Milliseconds(milliseconds) => EntryId::new(milliseconds, u64::MAX).into(),
            Self::Address(address) => address,
        }
    }
}

impl From<EntryId> for Position {
    fn from(id: EntryId) -> Self {
        Self::Id(id)
    }
}

impl From<EntryAddress> for Position {
    fn from(address: EntryAddress) -> Self {
        Self::Address(address)
    }
}

impl From<u64> for Position {
    fn from(milliseconds: u64) -> Self {
        Self::Milliseconds(milliseconds)
    }
}

impl From<SystemTime> for Position {
    /// A time before 1970 is the beginning.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::Milliseconds(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A part of a stream's history, made from a range of [positions](Position): `..`, `from..`,
/// `from..to`, `..=to` and so on. A range whose end precedes its start is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(AddressSpan);

impl Range {
    pub(super) fn span(self) -> AddressSpan {
        self.0
    }

    fn new<P: Into<Position>>(start: Bound<P>, end: Bound<P>) -> Self {
        let from = match start {
            Bound::Unbounded => AddressSpan::EVERYTHING,
            Bound::Included(position) => AddressSpan::EVERYTHING.from(position.into().first()),
            Bound::Excluded(position) => AddressSpan::EVERYTHING.after(position.into().last()),
        };
        Self(match end {
            Bound::Unbounded => from,
            Bound::Included(position) => from.up_to(position.into().last()),
            Bound::Excluded(position) => from.before(position.into().first()),
        })
    }
}

impl From<ops::RangeFull> for Range {
    fn from(_: ops::RangeFull) -> Self {
        Self::new::<Position>(Bound::Unbounded, Bound::Unbounded)
    }
}

impl<P: Into<Position>> From<(Bound<P>, Bound<P>)> for Range {
    fn from((start, end): (Bound<P>, Bound<P>)) -> Self {
        Self::new(start, end)
    }
}

impl<P: Into<Position>> From<ops::Range<P>> for Range {
    fn from(range: ops::Range<P>) -> Self {
        Self::new(Bound::Included(range.start), Bound::Excluded(range.end))
    }
}

impl<P: Into<Position>> From<ops::RangeInclusive<P>> for Range {
    fn from(range: ops::RangeInclusive<P>) -> Self {
        let (start, end) = range.into_inner();
        Self::new(Bound::Included(start), Bound::Included(end))
    }
}

impl<P: Into<Position>> From<ops::RangeFrom<P>> for Range {
    fn from(range: ops::RangeFrom<P>) -> Self {
        Self::new(Bound::Included(range.start), Bound::Unbounded)
    }
}

impl<P: Into<Position>> From<ops::RangeTo<P>> for Range {
    fn from(range: ops::RangeTo<P>) -> Self {
        Self::new(Bound::Unbounded, Bound::Excluded(range.end))
    }
}

impl<P: Into<Position>> From<ops::RangeToInclusive<P>> for Range {
    fn from(range: ops::RangeToInclusive<P>) -> Self {
        Self::new(Bound::Unbounded, Bound::Included(range.end))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::inspect::Span;

    fn ids(range: impl Into<Range>) -> (EntryId, EntryId) {
        let Span { from, to } = range.into().span().of(None);
        (from, to)
    }

    #[test]
    fn a_range_holds_what_it_says() {
        let at = Position::Milliseconds;
        let whole = |from: u64, to: u64| (EntryId::new(from, 0), EntryId::new(to, u64::MAX));
        assert_eq!(ids(..), (EntryId::ZERO, EntryId::MAX));
        assert_eq!(ids(at(5)..=at(7)), whole(5, 7));
        assert_eq!(ids(at(5)..at(7)), whole(5, 6));
        let id = EntryId::new(5, 3);
        assert_eq!(ids(Position::Id(id)..=Position::Id(id)), (id, id));
        let after = (Bound::Excluded(Position::Id(id)), Bound::Unbounded);
        assert_eq!(ids(after), (EntryId::new(5, 4), EntryId::MAX));
    }

    #[test]
    fn a_range_whose_end_precedes_its_start_is_empty() {
        let highest = (Bound::Excluded(Position::Id(EntryId::MAX)), Bound::Unbounded);
        let (from, to) = ids(highest);
        assert!(from > to);
        let (from, to) = ids(..Position::Id(EntryId::ZERO));
        assert!(from > to);
        let (from, to) = ids(Position::Milliseconds(7)..Position::Milliseconds(7));
        assert!(from > to);
    }

    #[test]
    fn times_before_1970_are_the_beginning() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Position::from(before), Position::Milliseconds(0));
    }
}
