//! Entries in the form that scripts pack them into: one string in MessagePack. As an answer of its own,
//! each name and value of each entry would be a value to parse, and a claim has thousands of them.

use redis::Value;
use rmp::decode::{read_array_len, read_str_len};

use super::net::scan::Copier;
use super::reply;
use crate::model::entry::{Entry, EntryId};
use crate::store::types::Result;
use crate::store::{Delivery, Inlet, StoreError};

/// The entries of an answer, with their delivery counts.
pub(super) fn deliveries(
    answer: Value,
    inlet: Inlet,
    command: &'static str,
) -> Result<Vec<Delivery>> {
    let packed = reply::bytes(answer, command)?;
    unpack(&packed, inlet).ok_or(StoreError::Protocol { command })
}

/// `None` if the bytes are something else.
fn unpack(mut packed: &[u8], inlet: Inlet) -> Option<Vec<Delivery>> {
    let count = array(&mut packed)?;
    // Limited by the size of the answer, so that a wrong count reserves no memory.
    let mut deliveries = Vec::with_capacity(count.min(packed.len() / ENTRY_BYTES_MIN));
    let mut copier = Copier::default();
    for _ in 0..count {
        deliveries.push(delivery(&mut packed, &mut copier, inlet)?);
    }
    packed.is_empty().then_some(deliveries)
}

fn delivery<'p>(packed: &mut &'p [u8], copier: &mut Copier<'p>, inlet: Inlet) -> Option<Delivery> {
    let 3 = array(packed)? else { return None };
    let id = text(packed)?.parse::<EntryId>().ok()?;
    let length = array(packed)?;
    if length % 2 != 0 {
        return None;
    }
    copier.begin();
    for _ in 0..length / 2 {
        copier.add(string(packed)?, string(packed)?);
    }
    let delivery_count = text(packed)?.parse().ok()?;
    Some(Delivery { inlet, entry: Entry::new(id, copier.fields()), delivery_count })
}

fn array(packed: &mut &[u8]) -> Option<usize> {
    usize::try_from(read_array_len(packed).ok()?).ok()
}

fn string<'p>(packed: &mut &'p [u8]) -> Option<&'p [u8]> {
    let length = usize::try_from(read_str_len(packed).ok()?).ok()?;
    let (string, rest) = packed.split_at_checked(length)?;
    *packed = rest;
    Some(string)
}

fn text<'p>(packed: &mut &'p [u8]) -> Option<&'p str> {
    std::str::from_utf8(string(packed)?).ok()
}

/// Three lengths, an id of three characters and a count of one.
const ENTRY_BYTES_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two entries, the second one with a field without name and 300 bytes.
    fn packed() -> Vec<u8> {
        let mut bytes = b"\x92\x93\xa35-1\x92\xa4type\xa1x\xa12".to_vec();
        bytes.extend_from_slice(b"\x93\xa35-2\x94\xa4type\xa1y\xa0\xda\x01\x2c");
        bytes.extend_from_slice(&[0xff; 300]);
        bytes.extend_from_slice(b"\xd9\x1418446744073709551615");
        bytes
    }

    #[test]
    fn order_counts_and_bytes_survive() {
        let read = unpack(&packed(), Inlet::LANE).unwrap();
        let counts = read.iter().map(|delivery| (delivery.entry.id(), delivery.delivery_count));
        let expected = [(EntryId::new(5, 1), 2), (EntryId::new(5, 2), u64::MAX)];
        assert_eq!(counts.collect::<Vec<_>>(), expected);
        let (name, value) = &read[1].entry.fields()[1];
        assert_eq!((&name[..], &value[..]), (&b""[..], &[0xff; 300][..]));
        assert!(read.iter().all(|delivery| delivery.inlet == Inlet::LANE));
        assert!(unpack(b"\x90", Inlet::STREAM).unwrap().is_empty());
    }

    #[test]
    fn part_of_an_answer_or_more_than_one_is_none() {
        let packed = packed();
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end], Inlet::STREAM).is_none(), "{end}");
        }
        assert!(unpack(&[&packed[..], b"\xa0"].concat(), Inlet::STREAM).is_none());
    }

    #[test]
    fn what_is_no_entry_is_none() {
        for bytes in [
            b"\xc0".as_slice(),
            b"\x91\x92\xa35-1\x90",
            b"\x91\x93\xa35_1\x90\xa11",
            b"\x91\x93\xa35-1\xc0\xa11",
            b"\x91\x93\xa35-1\x91\xa1x\xa11",
            b"\x91\x93\xa35-1\x90\xa2-1",
            b"\xdd\xff\xff\xff\xff",
        ] {
            assert!(unpack(bytes, Inlet::STREAM).is_none(), "{bytes:x?}");
        }
    }
}
