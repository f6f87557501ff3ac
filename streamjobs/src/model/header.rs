//! Headers: fields that an application adds to an event's entry, outside the payload.

/// The name of the entry's field that holds a header; `None` if the header's name is invalid.
pub(crate) fn field(name: &str) -> Option<String> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    is_name.then(|| format!("{PREFIX}{name}"))
}

const PREFIX: &str = "sj-header-";
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_headers_are_plain_and_bounded() {
        assert_eq!(field("tenant-7.id_x").as_deref(), Some("sj-header-tenant-7.id_x"));
        for name in ["", "Tenant", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert_eq!(field(name), None, "{name}");
        }
    }
}
