//! Opens connections, each within a deadline.

use std::io;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, Pipeline, ProtocolVersion, PushInfo, RedisError,
    RedisResult, Value,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::address::Address;
use super::capabilities::Capabilities;
use super::deadlines::CONNECT_DEADLINE;
use super::error::{is_closed, of_socket};
use super::multiplexed::Multiplexed;
use super::server::{Server, Tenure};
use super::shared_wire::SharedWire;
#[cfg(feature = "tls")]
use super::tls;
use super::wire::{Patience, Wire, set_name};

/// A new connection that many callers share.
pub(crate) struct Opened {
    pub(crate) connection: Multiplexed,
    /// Cancelled when the connection's task ends, or when the server's tenure as primary ends.
    pub(crate) closed: CancellationToken,
    pub(crate) tenure: Tenure,
    /// `None` if the server refuses `INFO`, or its answer is not text.
    pub(crate) capabilities: Option<Capabilities>,
}

/// Opens a connection that many callers share, and learns what the server can do. The caller has to set a
/// deadline for each answer.
pub(crate) async fn open_shared(server: Server) -> RedisResult<Opened> {
    let closed = server.tenure.connection();
    let opened = Wire::open(&server.address).await;
    let opened = opened.map_err(|error| with_hint(error, &server.address))?;
    let (connection, mut answers) = match opened {
        Some(mut wire) => {
            let answers = wire.exchange(&[&first_requests(&server)], Patience::CONNECTING).await?;
            let answers = answers.iter().map(|answer| redis::parse_redis_value(answer));
            let answers = answers.collect::<RedisResult<Vec<_>>>()?;
            let wire = SharedWire::start(wire.into_socket()?, closed.clone().drop_guard());
            (Multiplexed::Wire(wire), answers)
        }
        None => open_by_crate(&server, closed.clone().drop_guard()).await?,
    };
    server.check_role(&mut answers)?;
    let capabilities = answers.pop().and_then(|answer| Capabilities::from_answer(answer).ok());
    server.check_mode(capabilities.as_ref().and_then(|known| known.mode))?;
    Ok(Opened { connection, closed, tenure: server.tenure, capabilities })
}

/// Opens a connection of the client crate. Returns it and the answers to the first requests.
///
/// It uses version 3 of the protocol. That needs a listener for pushed messages, which is dropped when the
/// connection's task ends, so a closed connection is noticed at once.
async fn open_by_crate(
    server: &Server,
    guard: DropGuard,
) -> RedisResult<(Multiplexed, Vec<Value>)> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(COMMANDS_WAITING_MAX)
        .set_push_sender(move |_| -> Result<(), SendError> {
            let _ = &guard;
            Ok(())
        });
    let mut connection = connect(&server.address, ProtocolVersion::RESP3, config).await?;
    let first = first_requests(server);
    let answers = connection.send_packed_commands(&first, 0, first.len()).await?;
    Ok((Multiplexed::Crate(connection), answers))
}

/// The first requests of each shared connection. The last answer tells the server's role, if that matters;
/// the one before it tells what the server can do.
fn first_requests(server: &Server) -> Pipeline {
    let mut first = Pipeline::with_capacity(3);
    first.add_command(set_name()).add_command(Capabilities::request());
    server.ask_role(&mut first);
    first
}

/// Opens a connection on which the server sends messages by itself. Also returns a token that is cancelled
/// when the connection's task ends.
pub(crate) async fn open_listening(
    address: &Address,
    heard: impl Fn(PushInfo) + Send + Sync + 'static,
) -> RedisResult<(MultiplexedConnection, CancellationToken)> {
    within(CONNECT_DEADLINE, listen(address, heard)).await
}

/// Opens a connection of the client crate for reads that may wait. Also returns a token that is cancelled when the
/// connection's task ends.
///
/// The crate's own response timeout is off: it would end the wait but keep the connection, with the read
/// still on it.
pub(crate) async fn open_for_reading(
    address: &Address,
) -> RedisResult<(MultiplexedConnection, CancellationToken)> {
    listen(address, drop).await
}

async fn listen(
    address: &Address,
    heard: impl Fn(PushInfo) + Send + Sync + 'static,
) -> RedisResult<(MultiplexedConnection, CancellationToken)> {
    let closed = CancellationToken::new();
    let guard = closed.clone().drop_guard();
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(
        move |push| -> Result<(), SendError> {
            let _ = &guard;
            heard(push);
            Ok(())
        },
    );
    let mut connection = connect(address, ProtocolVersion::RESP3, config).await?;
    let _refused: Value = connection.send_packed_command(&set_name()).await?;
    Ok((connection, closed))
}

async fn connect(
    address: &Address,
    protocol: ProtocolVersion,
    config: AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let address = &address.with_credentials().await?;
    #[cfg(feature = "tls")]
    if let Some(tls) = address.tls() {
        let mut config = config.set_connection_timeout(Some(tls::DEADLINE));
        if let Some(resolver) = tls.resolver(address.server()) {
            config = config.set_dns_resolver(resolver);
        }
        let connecting = async {
            let client = address.client(protocol)?;
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        return connecting.await.map_err(|error| tls.explained(error));
    }
    let config = config.set_connection_timeout(Some(CONNECT_DEADLINE));
    let client = address.client(protocol)?;
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    connecting.await.map_err(|error| with_hint(error, address))
}

/// The error, with a hint at what may be wrong if a server closes the connection at once.
fn with_hint(error: RedisError, address: &Address) -> RedisError {
    match address.server() {
        ConnectionAddr::Tcp(..) if of_socket(&error).is_some_and(is_closed) => {
            io::Error::other(format!("{error}; {MAY_EXPECT_TLS}")).into()
        }
        _ => error,
    }
}

/// Fails with a timeout if the work takes longer than the deadline.
pub(crate) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

const MAY_EXPECT_TLS: &str =
    "perhaps the server speaks only TLS; the address of such a server begins with rediss://";
/// How many commands may wait for the connection's task. With the client crate's default of 50, publishers would queue
/// up behind each other.
const COMMANDS_WAITING_MAX: usize = 1024;
