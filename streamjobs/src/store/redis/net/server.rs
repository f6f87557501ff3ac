//! A server to which connections are opened, and for how long they may be used.

use std::io;

use redis::{Pipeline, RedisError, RedisResult, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::capabilities::Mode;
use super::error::{of_socket, refusal_text};

/// A server to which connections are opened.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) tenure: Tenure,
    /// Whether it has to be a node of a cluster.
    pub(crate) is_node: bool,
}

/// The time until another server takes the place of the named server.
///
/// A connection has to be given up when the tenure is over. Nothing on the connection shows it:
/// after a failover by hand, the former primary accepts writes for ten more seconds, all of which
/// are lost.
#[derive(Clone, Default)]
pub(crate) struct Tenure {
    /// `None` for a server that no other one replaces.
    over: Option<CancellationToken>,
}

impl Server {
    /// The server at an address of its own.
    pub(crate) fn fixed(address: Address) -> Self {
        Self { address, tenure: Tenure::default(), is_node: false }
    }

    /// A primary, for as long as its tenure lasts.
    pub(crate) fn primary(address: Address, tenure: Tenure) -> Self {
        Self { tenure, ..Self::fixed(address) }
    }

    /// A node of a cluster.
    pub(crate) fn node(address: Address) -> Self {
        Self { is_node: true, ..Self::fixed(address) }
    }

    /// Checks that the server runs in the mode that its address implies.
    pub(crate) fn check_mode(&self, mode: Option<Mode>) -> RedisResult<()> {
        let fault = match mode {
            Some(Mode::Sentinel) => IS_SENTINEL,
            Some(Mode::Cluster) if !self.is_node => IS_NODE,
            Some(Mode::Standalone) if self.is_node => IS_NO_NODE,
            _ => return Ok(()),
        };
        Err(io::Error::other(fault).into())
    }

    /// Adds the request whose answer shows whether the server is a primary, if it has to be one.
    pub(crate) fn ask_role(&self, pipeline: &mut Pipeline) {
        if self.tenure.over.is_some() {
            pipeline.cmd(ROLE);
        }
    }

    /// Takes the answer to that request, which is the last one.
    pub(crate) fn check_role(&self, answers: &mut Vec<Value>) -> RedisResult<()> {
        if self.tenure.over.is_none() {
            return Ok(());
        }
        let fault = match answers.pop() {
            Some(Value::Array(role)) => match role.first() {
                Some(Value::BulkString(role)) if role == b"master" => return Ok(()),
                Some(Value::BulkString(role)) if role == b"slave" => "it is a replica".to_owned(),
                _ => "it is not a primary".to_owned(),
            },
            Some(Value::ServerError(error)) => {
                format!("{ROLE} was refused: {}", refusal_text(&error))
            }
            _ => format!("it has no answer to {ROLE}"),
        };
        Err(io::Error::other(NotPrimary(fault)).into())
    }
}

/// Why the server cannot be used, according to its answer about its role.
#[derive(Debug, Error)]
#[error("{0}")]
struct NotPrimary(String);

/// Whether the server was reached and is not a primary, or does not say that it is.
pub(crate) fn is_not_primary(error: &RedisError) -> bool {
    let inner = of_socket(error).and_then(io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<NotPrimary>())
}

impl Tenure {
    /// A tenure that is over when the token is cancelled.
    pub(crate) fn new(over: CancellationToken) -> Self {
        Self { over: Some(over) }
    }

    /// Whether the tenure can end.
    pub(crate) fn is_limited(&self) -> bool {
        self.over.is_some()
    }

    /// A token for one connection, which is cancelled at the latest when the tenure ends.
    pub(crate) fn connection(&self) -> CancellationToken {
        self.over.as_ref().map_or_else(CancellationToken::new, CancellationToken::child_token)
    }

    /// Does the work, or fails as soon as the tenure is over. In that case the work may have been
    /// done.
    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let Some(over) = &self.over else { return work.await };
        let done = over.run_until_cancelled(work).await;
        done.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::ConnectionAborted, OVER).into()))
    }
}

const IS_SENTINEL: &str = "the server is a Sentinel, which has no streams; write its address as \
    redis+sentinel://host:port/name-of-the-primary";
const IS_NODE: &str = "the server is a node of a cluster; write its address as \
    redis+cluster://host:port, with more nodes after commas";
const IS_NO_NODE: &str = "the server is not a node of a cluster; write its address as \
    redis://host:port";
const ROLE: &str = "ROLE";
const OVER: &str = "another server became the primary";

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Server {
        let address = Address::new("redis://host").unwrap();
        Server::primary(address, Tenure::new(CancellationToken::new()))
    }

    fn role(line: &str) -> Result<(), String> {
        let answer = redis::parse_redis_value(line.as_bytes()).unwrap();
        let mut answers = vec![Value::Okay, answer];
        let checked = named().check_role(&mut answers);
        assert_eq!(answers, [Value::Okay]);
        assert!(checked.as_ref().err().is_none_or(is_not_primary));
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_primary_passes() {
        assert_eq!(role("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"), Ok(()));
        assert_eq!(role("*2\r\n$5\r\nslave\r\n$1\r\nh\r\n").unwrap_err(), "it is a replica");
        assert_eq!(role("*1\r\n$8\r\nsentinel\r\n").unwrap_err(), "it is not a primary");
        assert_eq!(role("+OK\r\n").unwrap_err(), "it has no answer to ROLE");
        let refused = role("-NOPERM this user has no permissions\r\n").unwrap_err();
        assert_eq!(refused, "ROLE was refused: NOPERM this user has no permissions");
    }

    #[test]
    fn a_server_with_an_address_of_its_own_may_be_a_replica() {
        let server = Server::fixed(Address::new("redis://host").unwrap());
        let mut pipeline = Pipeline::new();
        server.ask_role(&mut pipeline);
        assert!(pipeline.is_empty());
        server.check_role(&mut Vec::new()).unwrap();
        named().ask_role(&mut pipeline);
        assert_eq!(pipeline.len(), 1);
    }

    #[tokio::test]
    async fn work_ends_with_the_tenure() {
        let over = CancellationToken::new();
        let tenure = Tenure::new(over.clone());
        assert_eq!(tenure.within(async { Ok(1) }).await.unwrap(), 1);
        let connection = tenure.connection();
        let cancel = async {
            over.cancel();
            Ok::<_, redis::RedisError>(())
        };
        let waiting = tenure.within(std::future::pending::<RedisResult<()>>());
        let (ended, _) = tokio::join!(waiting, cancel);
        assert_eq!(ended.unwrap_err().to_string(), OVER);
        assert!(connection.is_cancelled());
    }
}
