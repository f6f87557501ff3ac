//! Entries in the form into which scripts pack them: one string in MessagePack. In a plain answer, each
//! name and value of each entry would be a value to parse, and a claim has thousands of them. Retry
//! records have this form too.

use redis::Value;
use rmp::decode::{read_array_len, read_str_len};

use super::copier::Copier;
use super::reply;
use crate::model::entry::{EntryId, Fields};
use crate::store::types::Result;
use crate::store::{Delivery, Inlet, StoreError};

/// The names and values of a job, as the record of a retry: a script stores it as it is.
pub(super) fn job(fields: &Fields) -> Vec<u8> {
    let bytes = fields.iter().map(|(name, value)| name.len() + value.len() + 2 * LENGTH_BYTES);
    let mut packed = Vec::with_capacity(LENGTH_BYTES + bytes.sum::<usize>());
    let count = 2 * fields.len();
    match u16::try_from(count) {
        Ok(count @ ..16) => packed.push(0x90 | count.to_be_bytes()[1]),
        Ok(count) => put(&mut packed, 0xdc, &count.to_be_bytes()),
        Err(_) => put(&mut packed, 0xdd, &u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()),
    }
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        match (u8::try_from(part.len()), u16::try_from(part.len())) {
            (Ok(length @ ..32), _) => packed.push(0xa0 | length),
            (Ok(length), _) => put(&mut packed, 0xd9, &[length]),
            (_, Ok(length)) => put(&mut packed, 0xda, &length.to_be_bytes()),
            _ => {
                let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
                put(&mut packed, 0xdb, &length.to_be_bytes());
            }
        }
        packed.extend_from_slice(part);
    }
    packed
}

fn put(packed: &mut Vec<u8>, kind: u8, length: &[u8]) {
    packed.push(kind);
    packed.extend_from_slice(length);
}

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
    // Limited by the size of the answer, so that a wrong count cannot reserve much memory.
    let mut copier = Copier::new(inlet, count.min(packed.len() / ENTRY_BYTES_MIN));
    for _ in 0..count {
        delivery(&mut packed, &mut copier)?;
    }
    packed.is_empty().then(|| copier.finish())
}

fn delivery<'p>(packed: &mut &'p [u8], copier: &mut Copier<'p>) -> Option<()> {
    let 3 = array(packed)? else { return None };
    let id = text(packed)?.parse::<EntryId>().ok()?;
    let length = array(packed)?;
    if length % 2 != 0 {
        return None;
    }
    for _ in 0..length / 2 {
        copier.add(string(packed)?, string(packed)?);
    }
    let delivery_count = text(packed)?.parse().ok()?;
    copier.end(id, delivery_count, packed.len());
    Some(())
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

/// How many bytes a length takes at most.
const LENGTH_BYTES: usize = 5;
/// The shortest entry: three lengths, an id of three characters and a count of one.
const ENTRY_BYTES_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two entries, the second one with a field that has no name and 300 bytes.
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
    fn a_job_is_packed_as_its_names_and_values() {
        for (count, length) in [(0, 0), (1, 31), (7, 32), (8, 255), (300, 256), (2, 70_000)] {
            let value = bytes::Bytes::from(vec![0xff; length]);
            let fields = vec![(bytes::Bytes::from_static(b"name"), value); count];
            let packed = job(&fields);
            let mut rest = packed.as_slice();
            assert_eq!(array(&mut rest), Some(2 * count));
            for (name, value) in &fields {
                assert_eq!(string(&mut rest), Some(&name[..]));
                assert_eq!(string(&mut rest), Some(&value[..]));
            }
            assert!(rest.is_empty(), "{count} of {length}");
        }
        let fields = vec![("a".into(), "".into()), ("b".into(), vec![b'x'; 40].into())];
        let expected = [b"\x94\xa1a\xa0\xa1b\xd9\x28".as_slice(), &[b'x'; 40]].concat();
        assert_eq!(job(&fields), expected);
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
