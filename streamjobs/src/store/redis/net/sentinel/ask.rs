//! Asks one Sentinel where the primary is.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, ServerError, Value};

use super::super::address::Address;
use super::super::dial::{open_for_reading, within};
use super::super::error::{cause, refusal_text};

/// Where a Sentinel says that the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) host: String,
    pub(super) port: u16,
    /// A number that grows with each failover. `None` if the user may not ask for it.
    pub(super) epoch: Option<u64>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Named {
    pub(super) fn is_at(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// Whether this came from a Sentinel that has not learned of the last failover.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let epochs = self.epoch.zip(other.epoch);
        !self.is_at(other) && epochs.is_some_and(|(own, other)| own < other)
    }
}

/// Asks over a connection of its own. The error text is for people.
pub(super) async fn ask_once(seed: &Address, name: &str) -> Result<Named, String> {
    let opening = within(ASK_DEADLINE, open_for_reading(seed)).await;
    let (mut connection, _closed) = opening.map_err(|error| cause(&error))?;
    ask(&mut connection, name).await
}

/// Asks over a connection to a Sentinel. The error text is for people.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    name: &str,
) -> Result<Named, String> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd(SENTINEL).arg("get-master-addr-by-name").arg(name);
    pipeline.cmd(SENTINEL).arg("master").arg(name);
    let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len());
    let mut answers = within(ASK_DEADLINE, answers).await.map_err(|error| cause(&error))?;
    let state = answers.pop();
    named(answers.pop(), state, name)
}

fn named(place: Option<Value>, state: Option<Value>, name: &str) -> Result<Named, String> {
    let place = match place {
        Some(Value::Array(place)) => place,
        Some(Value::Nil) => return Err(format!("it knows no primary named {name}")),
        Some(Value::ServerError(error)) if is_unknown_command(&error) => {
            return Err("it is not a Sentinel".to_owned());
        }
        Some(Value::ServerError(error)) => return Err(refusal_text(&error)),
        _ => return Err(NO_ANSWER.to_owned()),
    };
    let mut parts = place.into_iter().map(text);
    let (Some(Some(host)), Some(Some(port)), None) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(NO_ANSWER.to_owned());
    };
    let port = port.parse().map_err(|_| NO_ANSWER.to_owned())?;
    Ok(Named { host, port, epoch: state.and_then(epoch) })
}

/// The number that grows with each failover, from the fields of the primary's state.
fn epoch(state: Value) -> Option<u64> {
    let (Value::Array(_) | Value::Map(_)) = &state else { return None };
    let fields = state.into_map_iter().ok()?;
    let mut fields = fields.map(|(name, value)| (text(name), text(value)));
    fields.find(|(name, _)| name.as_deref() == Some("config-epoch"))?.1?.parse().ok()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn is_unknown_command(error: &ServerError) -> bool {
    error.details().is_some_and(|text| text.starts_with("unknown command"))
}

/// How long one sentinel may take to connect, and then to answer.
pub(super) const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// How long the named server may take before another sentinel is asked.
pub(super) const PRIMARY_DEADLINE: Duration = Duration::from_secs(2);
const SENTINEL: &str = "SENTINEL";
const NO_ANSWER: &str = "its answer is not an address";

#[cfg(test)]
mod tests {
    use super::*;

    fn value(wire: &str) -> Option<Value> {
        Some(redis::parse_redis_value(wire.as_bytes()).unwrap())
    }

    fn place(host: &str, port: u16, epoch: Option<u64>) -> Named {
        Named { host: host.to_owned(), port, epoch }
    }

    #[test]
    fn the_address_counts_and_the_epoch_where_it_is_told() {
        let at = || value("*2\r\n$1\r\nh\r\n$4\r\n6379\r\n");
        let flat = value("*4\r\n$4\r\nname\r\n$1\r\nm\r\n$12\r\nconfig-epoch\r\n$2\r\n17\r\n");
        assert_eq!(named(at(), flat, "m"), Ok(place("h", 6379, Some(17))));
        let map = value("%1\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n");
        assert_eq!(named(at(), map, "m"), Ok(place("h", 6379, Some(3))));
        let refused = value("-NOPERM this user has no permissions\r\n");
        assert_eq!(named(at(), refused, "m"), Ok(place("h", 6379, None)));
    }

    #[test]
    fn what_is_not_an_address_is_told_apart() {
        for (answer, expected) in [
            (value("*-1\r\n"), "it knows no primary named m"),
            (value("-ERR unknown command 'SENTINEL', with args\r\n"), "it is not a Sentinel"),
            (value("-NOAUTH HELLO must be called\r\n"), "NOAUTH Authentication required."),
            (value("*0\r\n"), NO_ANSWER),
            (value("*2\r\n$1\r\nh\r\n$1\r\nx\r\n"), NO_ANSWER),
            (value("*2\r\n$1\r\nh\r\n$5\r\n99999\r\n"), NO_ANSWER),
            (value("+OK\r\n"), NO_ANSWER),
            (None, NO_ANSWER),
        ] {
            assert_eq!(named(answer, None, "m").unwrap_err(), expected);
        }
    }

    #[test]
    fn an_answer_is_older_only_if_its_epoch_says_so() {
        let new = place("new", 1, Some(2));
        assert!(place("old", 1, Some(1)).is_older_than(&new));
        assert!(!place("new", 1, Some(1)).is_older_than(&new), "it is the same server");
        assert!(!place("old", 1, Some(2)).is_older_than(&new));
        assert!(!place("old", 1, None).is_older_than(&new));
        assert!(!place("old", 1, Some(1)).is_older_than(&place("new", 1, None)));
    }
}
