//! The slots over which a Redis Cluster spreads keys.

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a key: the CRC-16 of its hash tag, or of the whole key if it has none.
pub(crate) fn slot_of(key: &str) -> u16 {
    let hashed = hash_tag(key).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// The text between the first pair of braces of a key; `None` without such a pair, or if the text
/// is empty.
pub(crate) fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_the_server_computes() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [("orders", 105), ("foo", 12_182), ("bar", 5_061), ("", 0)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn only_what_is_in_the_first_braces_counts() {
        assert_eq!(slot_of("orders"), slot_of("{orders}:lane:mail"));
        assert_eq!(slot_of("acme"), slot_of("orders:{acme}:dead:{mail}"));
        assert_eq!(hash_tag("a{}{b}"), None);
        assert_eq!(hash_tag("a{b"), None);
        assert_eq!(hash_tag("a}{b}"), Some("b"));
    }
}
