//! The server that a demo uses: the user's, or else a private one.

use std::{env, fmt};

use super::{RedisServer, ServerError};

/// The server that a demo uses.
#[derive(Debug)]
#[non_exhaustive]
pub enum DemoServer {
    /// A server of the user: it gets commands, but is never stopped or emptied.
    Given(GivenServer),
    /// A server of our own.
    Private(RedisServer),
}

impl DemoServer {
    /// The user's server at `url`, or else at the `REDIS_URL` of the environment, or else a private
    /// one.
    ///
    /// # Errors
    ///
    /// If no server was given and a private one cannot be started.
    pub fn start(url: Option<&str>) -> Result<Self, ServerError> {
        let named = url.map(str::to_owned).or_else(|| env::var("REDIS_URL").ok());
        match named.filter(|url| !url.is_empty()) {
            Some(url) => Ok(Self::Given(GivenServer { url })),
            None => RedisServer::start().map(Self::Private),
        }
    }

    /// The URL for clients, password included.
    pub fn url(&self) -> String {
        match self {
            Self::Given(given) => given.url.clone(),
            Self::Private(server) => server.url(),
        }
    }
}

/// The address of a user's server.
pub struct GivenServer {
    url: String,
}

impl fmt::Debug for GivenServer {
    /// Leaves out the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenServer").finish_non_exhaustive()
    }
}
