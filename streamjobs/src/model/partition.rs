//! Partitions: the streams over which one stream is spread, and the choice of the partition for an event.

use std::collections::HashMap;

use crate::model::name::{NameError, StreamName};
use crate::model::slot::{SLOTS, slot_of};

/// The partitions of one stream. Each is a stream of its own, with groups and helper keys of its own.
///
/// The first one is the stream itself. So a stream with one partition is a stream like any other, and a stream that
/// gets more partitions keeps its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partitions {
    /// The stream itself.
    first: StreamName,
    others: Vec<StreamName>,
}

impl Partitions {
    /// The partitions of a stream.
    pub(crate) fn new(stream: &StreamName, count: u16) -> Result<Self, PartitionError> {
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(PartitionError::Count { stream: stream.clone(), count });
        }
        if count > 1 && !stream.may_be_spread() {
            return Err(PartitionError::HashTag { stream: stream.clone() });
        }
        let first = slot_of(stream.as_str());
        let slots = (1..count).map(|index| (first + offset(index)) % SLOTS).collect::<Vec<_>>();
        let tags = tags_of(&slots);
        let mut others = Vec::with_capacity(slots.len());
        for (index, slot) in (1..count).zip(slots) {
            let tag = tags.get(&slot).copied().unwrap_or_default();
            others.push(StreamName::new(format!("{stream}:p{index}:{{{tag}}}"))?);
        }
        Ok(Self { first: stream.clone(), others })
    }

    /// Their streams, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &StreamName> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.others.len() + 1).unwrap_or(u16::MAX)
    }

    /// The partition of an event with a key: always the same, in each process and language.
    pub(crate) fn of_key(&self, key: &str) -> &StreamName {
        self.at(crc32fast::hash(key.as_bytes()))
    }

    /// The partition of an event without a key: `turn` is its number among such events.
    pub(crate) fn in_turn(&self, turn: u32) -> &StreamName {
        self.at(turn)
    }

    fn at(&self, number: u32) -> &StreamName {
        let place = usize::try_from(number % u32::from(self.count())).unwrap_or_default();
        place.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }
}

/// The numbers of partitions in an error.
pub(crate) fn listed(numbers: &[u16]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a stream cannot have this many partitions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PartitionError {
    #[error("stream {stream} cannot have {count} partitions: 1 to {COUNT_MAX} are allowed")]
    Count { stream: StreamName, count: u16 },
    #[error("stream {stream} cannot have partitions: they would all have the slot of its hash tag")]
    HashTag { stream: StreamName },
    #[error("a partition would have too long a name: {0}")]
    Name(#[from] NameError),
}

/// How many slots lie between the first partition and this one. The first three partitions are a third of all slots
/// apart, the next three lie in the middle of the gaps, and so on by halves. So 3, 6, 12, 24, … partitions are exactly
/// evenly spread, and any other number nearly so.
fn offset(index: u16) -> u16 {
    let third = u32::from(index % 3);
    let within = u32::from((index / 3).reverse_bits());
    let slots = u32::from(SLOTS);
    // In units of 1/65536 of a third.
    let offset = ((third << 16) + within) * slots / (3 << 16);
    u16::try_from(offset).unwrap_or_default()
}

/// For each slot, the smallest number whose decimal text hashes to it.
fn tags_of(slots: &[u16]) -> HashMap<u16, u32> {
    let mut tags = HashMap::with_capacity(slots.len());
    let mut missing = slots.iter().copied().collect::<std::collections::HashSet<_>>();
    let mut text = itoa::Buffer::new();
    // Each slot has a number among the first 300,000.
    for number in 0..u32::MAX {
        if missing.is_empty() {
            break;
        }
        let slot = slot_of(text.format(number));
        if missing.remove(&slot) {
            tags.insert(slot, number);
        }
    }
    tags
}

/// The most partitions of a stream: more than the largest cluster has nodes, and few enough to list.
pub(crate) const COUNT_MAX: u16 = 4096;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn partitions(stream: &str, count: u16) -> Partitions {
        Partitions::new(&StreamName::new(stream).unwrap(), count).unwrap()
    }

    fn names(stream: &str, count: u16) -> Vec<String> {
        partitions(stream, count).names().map(ToString::to_string).collect()
    }

    /// The vectors of docs/partitions.md. Other languages must compute the same.
    #[test]
    fn names_and_places_never_change() {
        assert_eq!(names("orders", 1), ["orders"]);
        let six = [
            "orders",
            "orders:p1:{1801}",
            "orders:p2:{22348}",
            "orders:p3:{3427}",
            "orders:p4:{25828}",
            "orders:p5:{19148}",
        ];
        assert_eq!(names("orders", 6), six);
        for (key, hash, place) in [
            ("", 0, 0),
            ("alice", 663_665_735, 5),
            ("customer-7", 42_760_520, 2),
            ("Zoë", 1_739_342_378, 2),
        ] {
            assert_eq!(crc32fast::hash(key.as_bytes()), hash, "{key}");
            assert_eq!(partitions("orders", 6).of_key(key).as_str(), six[place], "{key}");
        }
    }

    #[test]
    fn more_partitions_keep_those_that_there_are() {
        assert_eq!(names("orders", 100)[..7], names("orders", 7)[..]);
        let all = names("orders", COUNT_MAX);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), usize::from(COUNT_MAX));
        let slots = all.iter().map(|name| slot_of(name)).collect::<HashSet<_>>();
        assert_eq!(slots.len(), usize::from(COUNT_MAX), "no two in one slot");
    }

    /// For masters that have equal shares of the slots, in order.
    #[test]
    fn they_lie_evenly_over_the_nodes() {
        for stream in ["orders", "bills", "parcels", "a"] {
            for (count, nodes, most) in
                [(3, 3, 1), (12, 3, 4), (12, 4, 3), (48, 3, 16), (48, 6, 8), (384, 3, 128)]
            {
                let mut on = vec![0; nodes];
                for name in names(stream, count) {
                    on[usize::from(slot_of(&name)) * nodes / usize::from(SLOTS)] += 1;
                }
                let largest = *on.iter().max().unwrap();
                assert!(largest <= most + 1, "{stream} {count}: {on:?}");
            }
        }
    }

    #[test]
    fn events_with_keys_are_spread_and_those_without_come_in_turn() {
        let twelve = partitions("orders", 12);
        let mut on = HashMap::<&StreamName, usize>::new();
        for number in 0..12_000 {
            *on.entry(twelve.of_key(&format!("customer-{number}"))).or_default() += 1;
        }
        assert!(on.len() == 12 && on.values().all(|count| (850..1150).contains(count)), "{on:?}");
        let in_turn = (0..24).map(|turn| twelve.in_turn(turn)).collect::<HashSet<_>>();
        assert_eq!(in_turn.len(), 12);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |stream: &str, count| {
            let stream = StreamName::new(stream).unwrap();
            Partitions::new(&stream, count).unwrap_err().to_string()
        };
        assert!(refused("orders", 0).contains("orders cannot have 0 partitions"));
        assert!(refused("orders", COUNT_MAX + 1).contains("1 to 4096"));
        assert!(refused("orders:{acme}", 2).contains("hash tag"));
        assert!(refused(&"x".repeat(195), 2).contains("too long a name"));
        assert_eq!(names("orders:{acme}", 1), ["orders:{acme}"]);
    }
}
