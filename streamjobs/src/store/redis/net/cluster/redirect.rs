//! What a node of a cluster answers when it refuses a request.

use redis::Value;

use super::super::address::NodeAddress;
use super::super::error::refused;
use crate::store::StoreError;

/// Why a node did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// Another node has the slot.
    Moved(NodeAddress),
    /// The slot is moving to another node, and the key is there.
    Ask(NodeAddress),
    /// The cluster is down, or the slot is moving and the keys are not all on the same node.
    NotNow,
}

impl Redirect {
    /// What a refusal by the node at this address means, if it is a refusal of a cluster.
    pub(crate) fn of(error: &StoreError, by: &NodeAddress) -> Option<Self> {
        let StoreError::Refused { code, text } = error else { return None };
        match code.as_str() {
            "MOVED" => target(text, by).map(Self::Moved),
            "ASK" => target(text, by).map(Self::Ask),
            "TRYAGAIN" | "CLUSTERDOWN" => Some(Self::NotNow),
            _ => None,
        }
    }

    /// The first of the answers that is a refusal because of the cluster.
    pub(crate) fn among(answers: &[Value]) -> Option<StoreError> {
        answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) if Self::is_code(error.code()) => Some(refused(error)),
            _ => None,
        })
    }

    /// Whether it is a refusal of a cluster.
    pub(crate) fn is_said_by(error: &StoreError) -> bool {
        matches!(error, StoreError::Refused { code, .. } if Self::is_code(code))
    }

    /// Whether the cluster asks to wait, without naming another node.
    pub(crate) fn is_pause(error: &StoreError) -> bool {
        let StoreError::Refused { code, .. } = error else { return false };
        matches!(code.as_str(), "TRYAGAIN" | "CLUSTERDOWN")
    }

    fn is_code(code: &str) -> bool {
        matches!(code, "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")
    }
}

/// Reads `<slot> <host>:<port>`. Without a host, it is the host of the node that answered.
fn target(text: &str, by: &NodeAddress) -> Option<NodeAddress> {
    let (_, place) = text.split_once(' ')?;
    let (host, port) = place.rsplit_once(':')?;
    let host = if host.is_empty() { &by.host } else { host };
    Some(NodeAddress { host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Redirect> {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let by = NodeAddress { host: "by".to_owned(), port: 1 };
        let error = Redirect::among(&[Value::Okay, answer])?;
        Redirect::of(&error, &by)
    }

    fn address(host: &str, port: u16) -> NodeAddress {
        NodeAddress { host: host.to_owned(), port }
    }

    #[test]
    fn redirections_say_where_to() {
        assert_eq!(
            read("MOVED 3999 10.0.0.1:6381"),
            Some(Redirect::Moved(address("10.0.0.1", 6381)))
        );
        assert_eq!(read("ASK 3999 ::1:6381"), Some(Redirect::Ask(address("::1", 6381))));
        assert_eq!(read("MOVED 3999 :6381"), Some(Redirect::Moved(address("by", 6381))));
        assert_eq!(read("TRYAGAIN Multiple keys request during rehashing"), Some(Redirect::NotNow));
        assert_eq!(read("CLUSTERDOWN The cluster is down"), Some(Redirect::NotNow));
        assert_eq!(read("READONLY You can't write against a read only replica."), None);
        assert_eq!(read("MOVED 3999"), None);
    }
}
