//! Decodes the server's answers: order and repeated names are kept, and buffers are moved, not copied.

use bytes::Bytes;
use redis::Value;

use crate::model::entry::{Entry, EntryId, Fields};
use crate::store::types::Result;
use crate::store::{Delivery, Inlet, StoreError};

/// The elements of an array.
pub(super) fn items(value: Value, command: &'static str) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        _ => Err(StoreError::Protocol { command }),
    }
}

/// The elements of an array of known length.
pub(super) fn tuple<const N: usize>(value: Value, command: &'static str) -> Result<[Value; N]> {
    items(value, command)?.try_into().map_err(|_| StoreError::Protocol { command })
}

/// A whole number.
pub(super) fn integer(value: &Value, command: &'static str) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(StoreError::Protocol { command }),
    }
}

/// A count. Servers keep counts in 64 bits and write them as signed numbers: a count above the largest
/// signed number arrives as a negative one.
pub(super) fn number(value: Value, command: &'static str) -> Result<u64> {
    match value {
        Value::Int(number) => Ok(number.cast_unsigned()),
        value => {
            let parsed = text(value, command)?.parse();
            parsed.map_err(|_| StoreError::Protocol { command })
        }
    }
}

/// A count of things; zero if the server sends a negative one.
pub(super) fn size(value: &Value, command: &'static str) -> Result<usize> {
    integer(value, command).map(|number| usize::try_from(number).unwrap_or(0))
}

/// A one or a zero.
pub(super) fn flag(value: &Value, command: &'static str) -> Result<bool> {
    integer(value, command).map(|number| number > 0)
}

/// The next element of an array.
pub(super) fn next(
    items: &mut impl Iterator<Item = Value>,
    command: &'static str,
) -> Result<Value> {
    items.next().ok_or(StoreError::Protocol { command })
}

/// The bytes of a string.
pub(super) fn bytes(value: Value, command: &'static str) -> Result<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text.into()),
        _ => Err(StoreError::Protocol { command }),
    }
}

/// A string that is text.
pub(super) fn text(value: Value, command: &'static str) -> Result<String> {
    let bytes = bytes(value, command)?;
    String::from_utf8(bytes.into()).map_err(|_| StoreError::Protocol { command })
}

/// An entry's id.
pub(super) fn id(value: Value, command: &'static str) -> Result<EntryId> {
    let parsed = text(value, command)?.parse();
    parsed.map_err(|_| StoreError::Protocol { command })
}

/// Several ids.
pub(super) fn ids(value: Value, command: &'static str) -> Result<Vec<EntryId>> {
    items(value, command)?.into_iter().map(|value| id(value, command)).collect()
}

/// A name from another client; bytes that are not text are replaced.
pub(super) fn lossy(value: Value, command: &'static str) -> Result<String> {
    bytes(value, command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// `None` for nil, otherwise what `read` decodes.
pub(super) fn unless_nil<T>(
    value: Value,
    command: &'static str,
    read: impl FnOnce(Value, &'static str) -> Result<T>,
) -> Result<Option<T>> {
    match value {
        Value::Nil => Ok(None),
        value => read(value, command).map(Some),
    }
}

/// A table of names and values, in either protocol.
pub(super) fn table(value: Value, command: &'static str) -> Result<Vec<(String, Value)>> {
    let pairs = pairs(value, command)?.into_iter();
    pairs.map(|(name, value)| Ok((text(name, command)?, value))).collect()
}

/// The names and values of an entry, or `None` if its payload was trimmed.
pub(super) fn fields(value: Value, command: &'static str) -> Result<Option<Fields>> {
    unless_nil(value, command, |value, command| {
        let field = |(name, value)| Ok((bytes(name, command)?, bytes(value, command)?));
        pairs(value, command)?.into_iter().map(field).collect()
    })
}

/// The entries of a range.
pub(super) fn entries(value: Value, command: &'static str) -> Result<Vec<Entry>> {
    let items = items(value, command)?.into_iter();
    items.map(|item| entry(item, command)).filter_map(Result::transpose).collect()
}

/// What a read of one stream delivered; nil means that the wait ended without an entry.
pub(super) fn read(value: Value, inlet: Inlet, command: &'static str) -> Result<Vec<Delivery>> {
    let value = match value {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        value => match items(value, command)?.into_iter().next() {
            Some(stream) => {
                let [_, entries] = tuple(stream, command)?;
                Some(entries)
            }
            None => None,
        },
    };
    let entries = value.map_or(Ok(Vec::new()), |value| entries(value, command))?;
    let first = |entry| Delivery { inlet, entry, delivery_count: 1 };
    Ok(entries.into_iter().map(first).collect())
}

fn pairs(value: Value, command: &'static str) -> Result<Vec<(Value, Value)>> {
    let items = match value {
        Value::Map(pairs) => return Ok(pairs),
        value => items(value, command)?,
    };
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some(name) = items.next() {
        pairs.push((name, next(&mut items, command)?));
    }
    Ok(pairs)
}

fn entry(value: Value, command: &'static str) -> Result<Option<Entry>> {
    let [id_value, fields_value] = tuple(value, command)?;
    let id = id(id_value, command)?;
    Ok(fields(fields_value, command)?.map(|fields| Entry::new(id, fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(wire: &[u8]) -> Value {
        redis::parse_redis_value(wire).unwrap()
    }

    fn shown(fields: &[(Bytes, Bytes)]) -> Vec<(&[u8], &[u8])> {
        fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect()
    }

    const ENTRIES: &[u8] = b"*2\r\n\
        *2\r\n$3\r\n5-1\r\n\
        *6\r\n$1\r\nb\r\n$1\r\n1\r\n$1\r\na\r\n$0\r\n\r\n$1\r\nb\r\n$2\r\n\xff\x00\r\n\
        *2\r\n$3\r\n5-2\r\n\
        *2\r\n$0\r\n\r\n$1\r\nx\r\n";

    #[test]
    fn order_repeated_names_and_bytes_survive() {
        let entries = entries(parsed(ENTRIES), "XRANGE").unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].id(), EntryId::new(5, 1));
        let expected: [(&[u8], &[u8]); 3] = [(b"b", b"1"), (b"a", b""), (b"b", b"\xff\x00")];
        assert_eq!(shown(entries[0].fields()), expected);
    }

    #[test]
    fn a_read_gives_first_deliveries_in_either_protocol() {
        let two = [b"*1\r\n*2\r\n$6\r\norders\r\n".as_slice(), ENTRIES].concat();
        let three = [b"%1\r\n$6\r\norders\r\n".as_slice(), ENTRIES].concat();
        for wire in [two, three] {
            let read = read(parsed(&wire), Inlet::LANE, "XREADGROUP").unwrap();
            let seen = read
                .iter()
                .map(|delivery| (delivery.entry.id().sequence(), delivery.delivery_count));
            assert_eq!(seen.collect::<Vec<_>>(), [(1, 1), (2, 1)]);
        }
        for nothing in [b"*-1\r\n".as_slice(), b"_\r\n", b"*0\r\n"] {
            assert!(read(parsed(nothing), Inlet::STREAM, "XREADGROUP").unwrap().is_empty());
        }
    }

    #[test]
    fn entries_without_a_payload_are_not_empty_entries() {
        let gone = b"*2\r\n*2\r\n$3\r\n5-1\r\n*-1\r\n*2\r\n$3\r\n5-2\r\n$-1\r\n";
        assert!(entries(parsed(gone), "XRANGE").unwrap().is_empty());
    }

    #[test]
    fn counts_at_the_ends_of_their_range_do_not_overflow() {
        let count = |wire: &[u8]| number(parsed(wire), "XPENDING").unwrap();
        assert_eq!(count(b":9223372036854775807\r\n"), i64::MAX as u64);
        assert_eq!(count(b":-9223372036854775808\r\n"), 1 << 63);
        assert_eq!(count(b"$19\r\n9223372036854775808\r\n"), 1 << 63);
        assert_eq!(integer(&parsed(b":-1\r\n"), "XPENDING").unwrap(), -1);
        assert_eq!(size(&parsed(b":-1\r\n"), "XLEN").unwrap(), 0);
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_command() {
        for wire in
            [b":1\r\n".as_slice(), b"+OK\r\n", b"*1\r\n:1\r\n", b"*1\r\n*2\r\n$1\r\nx\r\n*0\r\n"]
        {
            let error = entries(parsed(wire), "XRANGE").unwrap_err();
            assert_eq!(error.to_string(), "unexpected answer to XRANGE");
        }
        assert!(fields(parsed(b"*1\r\n$1\r\na\r\n"), "XRANGE").is_err(), "a name without a value");
    }
}
