//! The reader's own connection: commands are written as the client crate packs them, and answers are
//! left as they came until somebody scans them.

use std::io;

use bytes::{Bytes, BytesMut};
use redis::io::tcp::socket2::SockRef;
use redis::{ConnectionAddr, Pipeline, RedisResult};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::address::{Address, keepalive};
use super::scan::Skim;

/// A socket, of whatever kind.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection with nothing on its way between two exchanges.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    /// What has come in and was not given out.
    buffer: BytesMut,
}

impl Wire {
    /// Connects and logs in; none where only the client crate can, as with TLS.
    pub(super) async fn open(address: &Address) -> RedisResult<Option<Self>> {
        let Some(socket) = connect(address.server()).await? else { return Ok(None) };
        let mut wire = Self { socket, buffer: BytesMut::new() };
        let login = login(address);
        if !login.is_empty() {
            for answer in wire.exchange(&login).await? {
                redis::parse_redis_value(&answer)?.extract_error()?;
            }
        }
        Ok(Some(wire))
    }

    /// Sends commands in one go and waits for an answer to each, as it came.
    ///
    /// Not cancel safe, and of no more use after an error: answers may be on their way.
    pub(super) async fn exchange(&mut self, pipeline: &Pipeline) -> io::Result<Vec<Bytes>> {
        self.socket.write_all(&pipeline.get_packed_pipeline()).await?;
        let mut answers = Vec::with_capacity(pipeline.len());
        while answers.len() < pipeline.len() {
            answers.push(self.answer().await?);
        }
        Ok(answers)
    }

    async fn answer(&mut self) -> io::Result<Bytes> {
        let mut skim = Skim::new();
        loop {
            let end = skim.end(&self.buffer);
            let end = end.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, NO_ANSWER))?;
            if let Some(end) = end {
                return Ok(self.buffer.split_to(end).freeze());
            }
            // Used again when all that was given out of it has been dropped.
            self.buffer.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn connect(server: &ConnectionAddr) -> io::Result<Option<Box<dyn Socket>>> {
    match server {
        ConnectionAddr::Tcp(host, port) => {
            let socket = TcpStream::connect((host.as_str(), *port)).await?;
            // Without no-delay, small commands wait for the acknowledgement of the packet before.
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

/// What has to be accepted before anything else is.
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

/// What one read of the socket may bring at least.
const READ_BYTES: usize = 64 * 1024;
const NO_ANSWER: &str = "the bytes are no answer of a server";
