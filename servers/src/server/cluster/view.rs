//! What one node knows about its cluster, read from `CLUSTER NODES`.

use std::ops::RangeInclusive;

use crate::server::RedisServer;

/// One node, as another one sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) port: u16,
    pub(super) is_master: bool,
    /// Whether the two have shaken hands; until then the id is a made-up one.
    pub(super) is_known: bool,
    /// The id of its master, if it is a replica.
    pub(super) master: Option<String>,
    pub(super) slots: Vec<RangeInclusive<u16>>,
}

impl Row {
    pub(super) fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }

    pub(super) fn owns_any(&self) -> bool {
        !self.slots.is_empty()
    }
}

/// What `node` knows; empty if it does not answer.
pub(super) fn view_of(node: &RedisServer) -> Vec<Row> {
    let text: String = node.try_query(&["CLUSTER", "NODES"]).unwrap_or_default();
    text.lines().filter_map(row).collect()
}

/// Reads `id host:port@bus-port[,name] flags master ping pong epoch link slots...`.
fn row(line: &str) -> Option<Row> {
    let words: Vec<_> = line.split(' ').collect();
    let (address, _) = words.get(1)?.split_once('@')?;
    let (_, port) = address.rsplit_once(':')?;
    let flags: Vec<_> = words.get(2)?.split(',').collect();
    Some(Row {
        id: words[0].to_owned(),
        port: port.parse().ok()?,
        is_master: flags.contains(&"master"),
        is_known: !flags.contains(&"handshake"),
        master: words.get(3).filter(|id| **id != "-").map(|id| (*id).to_owned()),
        slots: words.iter().skip(8).filter_map(|word| slots(word)).collect(),
    })
}

/// Reads `7` or `0-16383`. A slot that is moving, `[7->-id]`, is listed once more without brackets.
fn slots(word: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_has_slots_and_those_that_move_do_not_count_twice() {
        let line = "a1 127.0.0.1:7@8,host myself,master - 0 0 2 connected 1-3 7 [7->-b2]";
        let expected = Row {
            id: "a1".into(),
            port: 7,
            is_master: true,
            is_known: true,
            master: None,
            slots: vec![1..=3, 7..=7],
        };
        assert_eq!(row(line), Some(expected));
    }

    #[test]
    fn a_replica_has_a_master_and_a_stranger_is_not_known_yet() {
        let replica = row("a1 127.0.0.1:7@8 slave,fail? b2 0 0 2 disconnected").unwrap();
        assert_eq!((replica.is_master, replica.master.as_deref()), (false, Some("b2")));
        let stranger = row("a1 127.0.0.1:7@8 handshake - 0 0 0 connected").unwrap();
        assert!(!stranger.is_known && !stranger.owns_any());
        assert_eq!(row(""), None);
    }
}
