//! A connection of this crate's kind: it writes commands as the client crate packs them, and returns
//! answers as the bytes that arrived, for the caller to scan.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::select_ok;
use redis::io::tcp::socket2::SockRef;
use redis::{Cmd, ConnectionAddr, Pipeline, RedisError, RedisResult};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::address::{Address, keepalive};
use super::deadlines::CONNECT_DEADLINE;
use super::error::is_authentication;
use super::scan::FrameScanner;

/// A TCP or Unix socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the first byte.
    pub(crate) first: Duration,
    /// For each further byte.
    pub(crate) silence: Duration,
}

impl Patience {
    pub(crate) const CONNECTING: Self = Self { first: CONNECT_DEADLINE, silence: CONNECT_DEADLINE };
}

/// A connection on which nothing is outstanding between two exchanges.
pub(crate) struct Wire {
    socket: Box<dyn Socket>,
    /// Bytes that were received and not returned yet.
    buffer: BytesMut,
}

impl Wire {
    /// Connects and logs in. `None` if only the client crate can connect, as with TLS.
    pub(crate) async fn open(address: &Address) -> RedisResult<Option<Self>> {
        let Some(socket) = connect(address.server()).await? else { return Ok(None) };
        let mut wire = Self::over(socket);
        let mut login = login(address);
        let required = login.len();
        // The name is optional: a server that refuses it still serves, unless it refuses because it
        // wants a login.
        login.add_command(set_name());
        let answers = wire.exchange(&[&login], Patience::CONNECTING).await?;
        for (place, answer) in answers.iter().enumerate() {
            match redis::parse_redis_value(answer)?.extract_error() {
                Err(error) if place < required || is_no_service(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(Some(wire))
    }

    /// The socket, on which nothing is outstanding between two exchanges.
    pub(super) fn into_socket(self) -> io::Result<Box<dyn Socket>> {
        match self.buffer.is_empty() {
            true => Ok(self.socket),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, NOT_ASKED_FOR)),
        }
    }

    fn over(socket: Box<dyn Socket>) -> Self {
        Self { socket, buffer: BytesMut::new() }
    }

    /// Sends commands in one go and waits for the bytes of each answer, as long as bytes arrive in time.
    ///
    /// Not cancel safe. After an error or a cancellation the connection must be dropped: answers
    /// may still arrive.
    pub(crate) async fn exchange(
        &mut self,
        pipelines: &[&Pipeline],
        patience: Patience,
    ) -> io::Result<Vec<Bytes>> {
        if !self.buffer.is_empty() {
            // These bytes would be taken for the answer to this exchange.
            return Err(io::Error::new(io::ErrorKind::InvalidData, NOT_ASKED_FOR));
        }
        let packed = match pipelines {
            [one] => one.get_packed_pipeline(),
            many => {
                let packed = many.iter().map(|pipeline| pipeline.get_packed_pipeline());
                packed.collect::<Vec<_>>().concat()
            }
        };
        in_time(patience.first, async {
            self.socket.write_all(&packed).await?;
            self.receive().await
        })
        .await?;
        let expected = pipelines.iter().map(|pipeline| pipeline.len()).sum();
        let mut answers = Vec::with_capacity(expected);
        while answers.len() < expected {
            answers.push(self.answer(patience.silence).await?);
        }
        Ok(answers)
    }

    /// Waits until the connection is closed or broken, or until something arrives that was not asked
    /// for.
    ///
    /// Cancel safe.
    pub(crate) async fn broken(&mut self) {
        if self.buffer.is_empty() {
            let _closed = self.socket.read(&mut [0]).await;
        }
    }

    async fn answer(&mut self, silence: Duration) -> io::Result<Bytes> {
        let mut scanner = FrameScanner::new();
        loop {
            let end = scanner.end(&self.buffer);
            let end = end.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, NO_ANSWER))?;
            if let Some(end) = end {
                let answer = self.buffer.split_to(end).freeze();
                if self.buffer.is_empty() && answer.len() > KEPT_BYTES_MAX {
                    self.buffer = BytesMut::new();
                }
                return Ok(answer);
            }
            in_time(silence, self.receive()).await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        // Reuses the buffer once all answers cut from it are dropped.
        self.buffer.reserve(READ_BYTES);
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn connect(server: &ConnectionAddr) -> io::Result<Option<Box<dyn Socket>>> {
    match server {
        ConnectionAddr::Tcp(host, port) => {
            let addresses = lookup_host((host.as_str(), *port)).await?;
            // Tries all addresses at once: one that does not answer would use up the time of the others.
            let connecting = addresses.map(|address| TcpStream::connect(address).boxed());
            let connecting = connecting.collect::<Vec<_>>();
            if connecting.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, NO_ADDRESS));
            }
            let (socket, _others) = select_ok(connecting).await?;
            // Without no-delay, a small command waits until the previous packet is acknowledged.
            socket.set_nodelay(true)?;
            SockRef::from(&socket).set_tcp_keepalive(&keepalive())?;
            Ok(Some(Box::new(socket)))
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => {
            Ok(Some(Box::new(tokio::net::UnixStream::connect(path).await?)))
        }
        _ => Ok(None),
    }
}

/// Whether a refusal means that the server will answer nothing else: it wants a login, has too many
/// clients, or serves only clients on its own machine.
fn is_no_service(error: &RedisError) -> bool {
    is_authentication(error)
        || error.code() == Some("DENIED")
        || error.detail().is_some_and(|text| text.contains("max number of clients"))
}

/// The commands that must succeed before the connection can be used.
fn login(address: &Address) -> Pipeline {
    let settings = address.settings();
    let mut pipeline = Pipeline::with_capacity(2);
    if let Some(password) = settings.password() {
        pipeline.cmd("AUTH").arg(settings.username()).arg(password);
    }
    if settings.db() != 0 {
        pipeline.cmd("SELECT").arg(settings.db());
    }
    pipeline
}

/// Names the connection for operators. A server that refuses the name still serves.
pub(crate) fn set_name() -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(CONNECTION_NAME);
    command
}

const CONNECTION_NAME: &str = "streamjobs";
/// The least space for one read of the socket.
const READ_BYTES: usize = 64 * 1024;
/// After an answer larger than this, its buffer is not kept.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
pub(super) const NO_ANSWER: &str = "the answer is not in the Redis protocol";
const NO_ADDRESS: &str = "the host has no address";
pub(super) const NOT_ASKED_FOR: &str = "the server sent an answer without a request";

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn wire() -> (Wire, DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        (Wire::over(Box::new(near)), far)
    }

    fn pings(count: usize) -> Pipeline {
        let mut pipeline = Pipeline::new();
        for _ in 0..count {
            pipeline.cmd("PING");
        }
        pipeline
    }

    #[tokio::test]
    async fn each_command_gets_its_answer_in_whatever_pieces_they_come() {
        let (mut wire, mut far) = wire();
        let server = async {
            let mut asked = vec![0; pings(2).get_packed_pipeline().len()];
            far.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, pings(2).get_packed_pipeline());
            for piece in [b"+PO".as_slice(), b"NG\r\n*2\r\n:1\r\n$3", b"\r\na\r\n\r\n"] {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let pings = pings(2);
        let pings = [&pings];
        let (answers, ()) = tokio::join!(wire.exchange(&pings, Patience::CONNECTING), server);
        assert_eq!(answers.unwrap(), [b"+PONG\r\n".as_slice(), b"*2\r\n:1\r\n$3\r\na\r\n\r\n"]);
    }

    #[test]
    fn a_server_that_serves_none_is_told_from_one_that_refuses_a_name() {
        for (text, is_final) in [
            ("-ERR max number of clients reached\r\n", true),
            ("-DENIED Redis is running in protected mode\r\n", true),
            ("-NOAUTH Authentication required.\r\n", true),
            ("-NOPERM User x has no permissions to run the 'client|setname' command\r\n", false),
            ("-ERR unknown command 'CLIENT'\r\n", false),
        ] {
            let error = redis::parse_redis_value(text.as_bytes()).unwrap().extract_error();
            assert_eq!(is_no_service(&error.unwrap_err()), is_final, "{text}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_request_is_an_error() {
        let (mut wire, mut far) = wire();
        far.write_all(b"+PONG\r\n+OK\r\n").await.unwrap();
        assert_eq!(wire.exchange(&[&pings(1)], Patience::CONNECTING).await.unwrap().len(), 1);
        let error = wire.exchange(&[&pings(1)], Patience::CONNECTING).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_closed_connection_or_another_protocol_is_an_error() {
        let (mut wire, mut far) = wire();
        far.write_all(b"$5\r\nab").await.unwrap();
        drop(far);
        let error = wire.exchange(&[&pings(1)], Patience::CONNECTING).await.unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe),
            "{error}"
        );
        let (mut wire, mut far) = self::wire();
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        let error = wire.exchange(&[&pings(1)], Patience::CONNECTING).await.unwrap_err();
        assert_eq!(error.to_string(), NO_ANSWER);
    }

    #[tokio::test]
    async fn a_large_answer_takes_its_buffer_with_it() {
        let (mut wire, mut far) = wire();
        let large = KEPT_BYTES_MAX + 1;
        let server = async {
            far.write_all(format!("${large}\r\n").as_bytes()).await.unwrap();
            far.write_all(&vec![b'x'; large]).await.unwrap();
            far.write_all(b"\r\n").await.unwrap();
        };
        let ping = pings(1);
        let ping = [&ping];
        let (answers, ()) = tokio::join!(wire.exchange(&ping, Patience::CONNECTING), server);
        assert!(answers.unwrap().concat().len() > large);
        assert!(wire.buffer.capacity() < KEPT_BYTES_MAX, "{}", wire.buffer.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_long_as_long_as_it_comes_in() {
        let patience = Patience { first: Duration::from_secs(3), silence: Duration::from_secs(1) };
        let (mut wire, mut far) = wire();
        let server = async {
            far.write_all(b"$9\r\n").await.unwrap();
            for _ in 0..9 {
                tokio::time::sleep(Duration::from_millis(900)).await;
                far.write_all(b"x").await.unwrap();
            }
            far.write_all(b"\r\n$9\r\nhalf").await.unwrap();
        };
        let ping = pings(1);
        let ping = [&ping];
        let (answers, ()) = tokio::join!(wire.exchange(&ping, patience), server);
        assert_eq!(answers.unwrap(), [b"$9\r\nxxxxxxxxx\r\n".as_slice()]);
        let began = tokio::time::Instant::now();
        wire.buffer.clear();
        let error = wire.exchange(&ping, patience).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), patience.first, "no byte of it came");
    }
}
