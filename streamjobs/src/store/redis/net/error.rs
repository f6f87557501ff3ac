//! What a refusal or a broken connection means in this crate's errors.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerError, Value};
use thiserror::Error;

use crate::model::cause::bounded_text;
use crate::store::StoreError;

/// The answer, or an error if it is a refusal.
pub(crate) fn accepted(answer: Value) -> Result<Value, StoreError> {
    match answer {
        Value::ServerError(error) => Err(refused(&error)),
        answer => Ok(answer),
    }
}

/// The server refused a command: nothing was changed.
pub(crate) fn refused(error: &ServerError) -> StoreError {
    let (code, text) = (error.code(), error.details().unwrap_or_default());
    let missing = code == "NOGROUP" || (code == "UNBLOCKED" && text.contains("no longer exists"));
    if missing {
        return StoreError::GroupMissing;
    }
    let (code, text) = refusal(error);
    StoreError::Refused { code, text }
}

/// There is no connection: nothing was sent.
pub(crate) fn unreachable(error: &RedisError) -> StoreError {
    StoreError::Unreachable(Box::new(ConnectionFailed(cause(error))))
}

/// There is no connection for this reason: nothing was sent.
pub(crate) fn unreachable_because(text: String) -> StoreError {
    StoreError::Unreachable(Box::new(ConnectionFailed(text)))
}

/// The connection was closed before the request: nothing was sent.
pub(crate) fn not_connected() -> StoreError {
    StoreError::Unreachable(io::Error::from(io::ErrorKind::NotConnected).into())
}

/// Other requests occupied all places of the connection: nothing was sent.
pub(crate) fn not_sent() -> StoreError {
    StoreError::NotSent(Box::new(ConnectionFailed(NO_PLACE.to_owned())))
}

/// A command was sent, or may have been, unless the connection did not take it.
pub(crate) fn answer_lost(error: &RedisError) -> StoreError {
    let text = cause(error);
    match of_socket(error) {
        Some(socket) if socket.get_ref().is_some_and(|inner| inner.is::<NotTaken>()) => {
            not_connected()
        }
        // `StoreError::is_silence` tells it by the kind.
        Some(socket) if socket.kind() == io::ErrorKind::TimedOut => {
            StoreError::AnswerLost(io::Error::new(socket.kind(), text).into())
        }
        _ => StoreError::AnswerLost(Box::new(ConnectionFailed(text))),
    }
}

/// A connection that is closed did not take a request: nothing was sent. A socket's own error of this kind
/// can come after a part was sent.
#[derive(Debug, Error)]
#[error("the connection is closed")]
struct NotTaken;

pub(super) fn not_taken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, NotTaken)
}

/// Why a connection could not be opened, or broke. The client crate's errors repeat their source in
/// their own text, so this one has no source.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct ConnectionFailed(pub(crate) String);

/// The cause in one line. A refusal during the login is quoted in the server's own words, which
/// distinguish a wrong password, a missing right, a full server and a server that still loads.
pub(crate) fn cause(error: &RedisError) -> String {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(error) => refusal_text(error),
        None if error.kind() == ErrorKind::AuthenticationFailed => WRONG_PASSWORD.to_owned(),
        None => error.to_string(),
    }
}

/// Code and text of a refusal in one line.
pub(crate) fn refusal_text(error: &ServerError) -> String {
    let (code, text) = refusal(error);
    // With this code, the server's text also explains its protocol, which is left out.
    if code == "NOAUTH" {
        "NOAUTH Authentication required.".to_owned()
    } else {
        format!("{code} {text}")
    }
}

/// The socket's error, if it is the cause. The client crate wraps it in a pointer of its own.
pub(super) fn of_socket(error: &RedisError) -> Option<&io::Error> {
    let source = error.source()?;
    match source.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(inner) => inner.downcast_ref(),
        None => source.downcast_ref(),
    }
}

/// Whether the other side closed the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};

    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Whether the server refused the user or the password.
pub(crate) fn is_authentication(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
}

/// Code and text. The server quotes the arguments of commands that it does not know, payloads
/// included, and adds where in a script the error happened: both are left out.
fn refusal(error: &ServerError) -> (String, String) {
    let text = error.details().unwrap_or_default();
    let (begin, text) = match text.strip_prefix(ACL_IN_SCRIPT) {
        Some(rest) => (ACL_IN_SCRIPT, rest),
        None => ("", text),
    };
    let text = until(until(text, ", with args beginning with"), " script: ");
    (bounded_text(&first(error.code())), bounded_text(&first(&format!("{begin}{text}"))))
}

/// Whether the server refuses because it is not the server to ask, or is so no longer. The address has to be resolved
/// again, which finds the new primary after a failover.
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

/// Some versions put this before the refusal of a command in a script, and the place in the script behind it.
const ACL_IN_SCRIPT: &str = "ACL failure in script: ";
const TEXT_CHARACTERS_MAX: usize = 256;
const NO_PLACE: &str = "too many requests of this connection wait for their answers";
const WRONG_PASSWORD: &str = "WRONGPASS invalid user name or password";

#[cfg(test)]
mod tests {
    use std::io;

    use redis::Value;

    use super::*;
    use crate::model::cause::chain;

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
        let line = "ERR ACL failure in script: User bob has no permissions to run the 'hset' command \
                    script: 8e, on @user_script:9.";
        let text = refused(&server_error(line)).to_string();
        let kept = "ACL failure in script: User bob has no permissions to run the 'hset' command";
        assert_eq!(text, format!("the server refused: ERR {kept}"));
        let long = refused(&server_error(&format!("ERR {}", "x".repeat(10_000)))).to_string();
        assert!(long.len() < 300, "{}", long.len());
    }

    #[test]
    fn why_there_is_no_connection_is_said_once_in_words_that_tell_causes_apart() {
        let said = |error: &RedisError| chain(&unreachable(error));
        for (line, cause) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", None),
            ("NOAUTH HELLO must be called with the", Some("NOAUTH Authentication required.")),
            ("NOPERM User bob has no permissions to run the 'hello' command", None),
            ("LOADING Redis is loading the dataset in memory", None),
            ("READONLY You can't write against a read only replica.", None),
            ("OOM command not allowed when used memory > 'maxmemory'.", None),
            ("ERR max number of clients reached", None),
        ] {
            let text = said(&server_error(line).into());
            assert_eq!(text, format!("no connection to the server: {}", cause.unwrap_or(line)));
        }
        let password = (ErrorKind::AuthenticationFailed, "Password authentication failed").into();
        assert!(said(&password).contains("WRONGPASS") && is_authentication(&password));
        let late = io::Error::from(io::ErrorKind::TimedOut).into();
        assert_eq!(said(&late), "no connection to the server: timed out");
        assert_eq!(chain(&answer_lost(&late)), "the server's answer was lost: timed out");
        assert!(answer_lost(&late).is_silence() && answer_lost(&late).copy().is_silence());
        let closed = io::Error::from(io::ErrorKind::ConnectionReset).into();
        assert!(!answer_lost(&closed).is_silence() && !unreachable(&late).is_silence());
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
