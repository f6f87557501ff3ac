//! Whether a call on dead letters fails with the same error when it is repeated.

use crate::model::error::DeadLetterError;
use crate::store::StoreError;

impl DeadLetterError {
    /// Whether repeating the call gives the same error, because of the names, the dead letter, the group or the data
    /// on the server. Otherwise the server could not be reached, or refused temporarily: it is loading its data, is
    /// full, or is not the primary.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let Self::Server { source, .. } = self else { return true };
        match source.downcast_ref::<StoreError>() {
            Some(StoreError::GroupMissing) => true,
            Some(StoreError::Refused { code, .. }) => !TRANSIENT.contains(&code.as_str()),
            Some(_) | None => false,
        }
    }
}

/// Error codes of the server's temporary states, which say nothing about the request.
const TRANSIENT: [&str; 12] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::StreamName;

    fn server(error: StoreError) -> DeadLetterError {
        let (stream, group) = (String::from("orders"), String::from("mail"));
        DeadLetterError::Server { action: "redrive", stream, group, source: error.into() }
    }

    #[test]
    fn only_permanent_refusals_are_final() {
        let refused = |code: &str| {
            server(StoreError::Refused { code: code.to_owned(), text: String::from("no") })
        };
        assert!(refused("WRONGTYPE").is_final() && refused("NOPERM").is_final());
        assert!(!refused("OOM").is_final() && !refused("READONLY").is_final());
        assert!(server(StoreError::GroupMissing).is_final());
        for lost in [
            StoreError::Unreachable("gone".into()),
            StoreError::AnswerLost("gone".into()),
            StoreError::Protocol { command: "redrive_archived" },
        ] {
            assert!(!server(lost).is_final());
        }
        let name = StreamName::new("").map_err(DeadLetterError::from);
        assert!(name.is_err_and(|error| error.is_final()));
    }
}
