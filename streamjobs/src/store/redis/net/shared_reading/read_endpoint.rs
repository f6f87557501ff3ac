//! The server from which to read.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::RedisResult;

use super::super::connect_pause::{Attempt, ConnectPause};
use super::super::endpoint::Endpoint;
use super::super::error::is_authentication;
use super::super::reading::Answer;
use super::super::server::Server;

/// Where the readers of a store connect. After a failed attempt, all of them pause: otherwise a hundred
/// readers would send a hundred wrong passwords.
#[derive(Clone)]
pub(super) struct ReadEndpoint {
    endpoint: Endpoint,
    pause: Arc<Mutex<ConnectPause>>,
}

impl ReadEndpoint {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, pause: Arc::default() }
    }

    /// Opens a connection with this function, as [`Endpoint::connect`] does. Fails at once during a
    /// pause, with the last error.
    pub(super) async fn connect<T, F>(&self, open: impl Fn(Server) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        if let Attempt::Failed(text) = self.pause().attempt() {
            return Err(io::Error::other(text).into());
        }
        let opened = self.endpoint.connect(open).await;
        match &opened {
            Ok(_) => self.pause().clear(),
            // Other errors concern this connection alone.
            Err(error) if error.is_io_error() || is_authentication(error) => {
                self.pause().failed(error);
            }
            Err(_) => {}
        }
        opened
    }

    /// Whether to give up the connection after this answer.
    pub(super) fn is_left_after(&self, answer: &Answer) -> bool {
        answer.is_of_wrong_server(&self.endpoint)
    }

    fn pause(&self) -> MutexGuard<'_, ConnectPause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
