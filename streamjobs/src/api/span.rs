//! Parts of a stream, in the order of entry ids; the same id comes in the order of partitions.

use crate::model::entry::{EntryAddress, EntryId};
use crate::store::inspect::Span;

/// A part of a stream; both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressSpan {
    from: (EntryId, u16),
    to: (EntryId, u16),
}

impl AddressSpan {
    pub(super) const EVERYTHING: Self =
        Self { from: (EntryId::ZERO, 0), to: (EntryId::MAX, u16::MAX) };
    pub(super) const NOTHING: Self =
        Self { from: (EntryId::MAX, u16::MAX), to: (EntryId::ZERO, 0) };

    /// From an entry on; an address without a number applies to every partition.
    pub(super) fn from(self, address: EntryAddress) -> Self {
        Self { from: (address.id, address.partition.unwrap_or(0)), ..self }
    }

    /// After an entry.
    pub(super) fn after(self, address: EntryAddress) -> Self {
        let number = address.partition.and_then(|number| number.checked_add(1));
        let from = number.map(|number| (address.id, number));
        let from = from.or_else(|| address.id.next().map(|id| (id, 0)));
        from.map_or(Self::NOTHING, |from| Self { from, ..self })
    }

    /// Up to an entry.
    pub(super) fn up_to(self, address: EntryAddress) -> Self {
        Self { to: (address.id, address.partition.unwrap_or(u16::MAX)), ..self }
    }

    /// Before an entry.
    pub(super) fn before(self, address: EntryAddress) -> Self {
        let number = address.partition.and_then(|number| number.checked_sub(1));
        let to = number.map(|number| (address.id, number));
        let to = to.or_else(|| address.id.previous().map(|id| (id, u16::MAX)));
        to.map_or(Self::NOTHING, |to| Self { to, ..self })
    }

    /// The part in one partition. If it is empty, the end precedes the start.
    pub(super) fn of(self, partition: Option<u16>) -> Span {
        let number = partition.unwrap_or(0);
        let ((from, first), (to, last)) = (self.from, self.to);
        let from = if number >= first { Some(from) } else { from.next() };
        let to = if number <= last { Some(to) } else { to.previous() };
        let nothing = Span { from: EntryId::MAX, to: EntryId::ZERO };
        from.zip(to).map_or(nothing, |(from, to)| Span { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId::new(5, 3);
    const EVERYTHING: AddressSpan = AddressSpan::EVERYTHING;

    fn at(partition: Option<u16>) -> EntryAddress {
        EntryAddress { id: ID, partition }
    }

    /// The two ids around an id that two adjacent pages could both have, or both miss.
    #[test]
    fn of_one_id_some_partitions_are_before_a_cursor_and_the_others_after_it() {
        let (before, after) = (EntryId::new(5, 2), EntryId::new(5, 4));
        let (earlier, later) = (EVERYTHING.up_to(at(Some(2))), EVERYTHING.after(at(Some(2))));
        for (partition, last, first) in [(1, ID, after), (2, ID, after), (3, before, ID)] {
            assert_eq!(earlier.of(Some(partition)).to, last, "{partition}");
            assert_eq!(later.of(Some(partition)).from, first, "{partition}");
        }
        let (earlier, later) = (EVERYTHING.before(at(Some(2))), EVERYTHING.from(at(Some(2))));
        for (partition, last, first) in [(1, ID, after), (2, before, ID), (3, before, ID)] {
            assert_eq!(earlier.of(Some(partition)).to, last, "{partition}");
            assert_eq!(later.of(Some(partition)).from, first, "{partition}");
        }
        assert_eq!(EVERYTHING.before(at(Some(0))).of(Some(0)).to, before);
    }

    #[test]
    fn an_id_without_a_number_is_in_every_partition() {
        for partition in [None, Some(0), Some(4_095)] {
            assert_eq!(EVERYTHING.after(at(None)).of(partition).from, EntryId::new(5, 4));
            assert_eq!(EVERYTHING.before(at(None)).of(partition).to, EntryId::new(5, 2));
            assert_eq!(EVERYTHING.from(at(None)).up_to(at(None)).of(partition), {
                Span { from: ID, to: ID }
            });
        }
    }

    #[test]
    fn nothing_is_beyond_the_ends() {
        let last = EntryAddress::from(EntryId::MAX);
        let first = EntryAddress::from(EntryId::ZERO);
        for nothing in [EVERYTHING.after(last), EVERYTHING.before(first), AddressSpan::NOTHING] {
            let span = nothing.of(Some(1));
            assert!(span.from > span.to, "{span:?}");
        }
    }
}
