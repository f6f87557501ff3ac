//! The fields of an entry as one value, for entries with too many of them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::model::entry::Fields;

/// All fields as one value: each part as its length, a colon and its bytes.
pub(crate) fn pack(fields: &[(Bytes, Bytes)]) -> Bytes {
    let mut packed = BytesMut::new();
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        packed.put_slice(part.len().to_string().as_bytes());
        packed.put_u8(b':');
        packed.put_slice(part);
    }
    packed.freeze()
}

/// Reads what [`pack`] wrote; what follows a damaged part is dropped.
pub(crate) fn unpack(packed: &Bytes) -> Fields {
    let mut parts = Vec::new();
    let mut rest = packed.clone();
    while let Some(colon) = rest.iter().position(|byte| *byte == b':') {
        let length = std::str::from_utf8(&rest.split_to(colon))
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        let _colon = rest.split_to(1);
        match length {
            Some(length) if length <= rest.len() => parts.push(rest.split_to(length)),
            _ => break,
        }
    }
    let mut parts = parts.into_iter();
    std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_packed() {
        let field = |name: &'static str, value: &'static str| (name.into(), value.into());
        let fields = vec![field("type", "t"), field("", ":1:"), field("data", "\0\u{7f}")];
        assert_eq!(unpack(&pack(&fields)), fields);
    }
}
