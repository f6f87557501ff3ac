//! What a refusal or a broken connection means in this crate's words.

use redis::{RedisError, ServerError};

use crate::model::cause::bounded_text;
use crate::store::StoreError;

/// A server's refusal.
pub(crate) fn refused(error: &ServerError) -> StoreError {
    let (code, text) = (error.code(), error.details().unwrap_or_default());
    let missing = code == "NOGROUP" || (code == "UNBLOCKED" && text.contains("no longer exists"));
    if missing {
        return StoreError::GroupMissing;
    }
    // The server quotes the arguments of commands that it does not know, payloads included, and
    // says where in a script it happened.
    let text = until(until(text, ", with args beginning with"), " script: ");
    StoreError::Refused { code: bounded_text(&first(code)), text: bounded_text(&first(text)) }
}

/// Nothing was sent.
pub(crate) fn unreachable(error: RedisError) -> StoreError {
    StoreError::Unreachable(Box::new(error))
}

/// Something was sent, or may have been.
pub(crate) fn answer_lost(error: RedisError) -> StoreError {
    StoreError::AnswerLost(Box::new(error))
}

/// Whether this server is not the one to ask, now or any more: the address has to be resolved
/// again, which finds the new master after a failover.
pub(crate) fn is_wrong_server(error: &ServerError) -> bool {
    match error.code() {
        "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "MOVED" => true,
        "UNBLOCKED" => error.details().is_some_and(|text| text.contains("instance state changed")),
        _ => false,
    }
}

fn until<'t>(text: &'t str, end: &str) -> &'t str {
    text.split_once(end).map_or(text, |(before, _)| before)
}

fn first(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS_MAX).collect()
}

const TEXT_CHARACTERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn server_error(line: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{line} was read as {other:?}"),
        }
    }

    #[test]
    fn every_text_for_a_lost_group_is_a_missing_group() {
        for line in [
            "NOGROUP No such key 'orders' or consumer group 'mail' in XREADGROUP with GROUP option",
            "NOGROUP No such key 'orders' or consumer group 'mail' script: 5a, on @user_script:95.",
            "UNBLOCKED the stream key no longer exists",
        ] {
            let error = refused(&server_error(line));
            assert!(matches!(error, StoreError::GroupMissing), "{line}: {error:?}");
        }
    }

    #[test]
    fn a_refusal_keeps_code_and_text_but_never_arguments() {
        let line = "ERR unknown command 'XADDX', with args beginning with: 'orders' 'secret' ";
        let text = refused(&server_error(line)).to_string();
        assert_eq!(text, "the server refused: ERR unknown command 'XADDX'");
        let line = "OOM not allowed when used memory > 'maxmemory'. script: 8e, on @user_script:9.";
        let text = refused(&server_error(line)).to_string();
        assert_eq!(text, "the server refused: OOM not allowed when used memory > 'maxmemory'.");
        let long = refused(&server_error(&format!("ERR {}", "x".repeat(10_000)))).to_string();
        assert!(long.len() < 300, "{}", long.len());
    }

    #[test]
    fn a_server_that_may_not_answer_is_left() {
        for line in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down",
            "CLUSTERDOWN The cluster is down",
            "MOVED 3999 127.0.0.1:6381",
            "UNBLOCKED force unblock from blocking operation, \
             instance state changed (master -> replica?)",
        ] {
            assert!(is_wrong_server(&server_error(line)), "{line}");
        }
        for line in [
            "OOM command not allowed",
            "BUSY a script runs",
            "UNBLOCKED the stream key no longer exists",
        ] {
            assert!(!is_wrong_server(&server_error(line)), "{line}");
        }
    }
}
