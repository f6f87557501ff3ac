//! Headers: what an application adds to the entry of an event beside its payload.

/// The field of an entry that has a header; `None` for what is no name of a header.
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
