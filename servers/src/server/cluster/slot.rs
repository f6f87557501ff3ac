//! Which slot a key is in.

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16384;

/// The slot of `key`: if the key has a part in braces, the slot of the first such part, so that keys
/// can be kept together.
pub(super) fn slot_of(key: &str) -> u16 {
    crc16(hashed(key).as_bytes()) % SLOTS
}

fn hashed(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// CRC-16/XMODEM: polynomial 1021, starting from 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn a_key_is_in_the_slot_that_servers_say() {
        for (key, slot) in [("", 0), ("foo", 12182), ("bar", 5061), ("orders", 105)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn only_a_first_tag_with_something_in_it_counts() {
        for (key, part) in [
            ("{orders}:dead", "orders"),
            ("x{orders}{y}", "orders"),
            ("{{orders}}", "{orders"),
            ("{}orders", "{}orders"),
            ("{orders", "{orders"),
            ("}orders{", "}orders{"),
        ] {
            assert_eq!(hashed(key), part);
        }
    }
}
