//! What every page works with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use streamjobs::stream::{Group, Stream};
use streamjobs::{Client, StreamName};
use tokio::sync::Semaphore;

use crate::access::{Access, Authorizer, Denied};
use crate::alerts::AlertLog;
use crate::archived::Archive;
use crate::audit::Audit;
use crate::fault::Fault;
use crate::payload::Redactor;
use crate::sampler::Sampler;

/// What every page works with.
pub(crate) struct State {
    pub(crate) client: Client,
    pub(crate) streams: Vec<StreamName>,
    pub(crate) authorizer: Box<dyn AnyAuthorizer>,
    pub(crate) archive: Option<Archive>,
    pub(crate) alerts: AlertLog,
    pub(crate) audit: Audit,
    pub(crate) redactor: Redactor,
    pub(crate) refresh: Duration,
    pub(crate) sampler: Arc<Sampler>,
    /// One for each page that is made at present, so that many viewers are not many askers.
    pub(crate) budget: Semaphore,
    /// One for each page that is followed.
    pub(crate) followers: Arc<Semaphore>,
}

pub(crate) type Shared = Arc<State>;

impl State {
    /// A stream that this dashboard shows. Others are none, whatever the server holds: a dashboard
    /// is no way to look into keys that it was not given.
    pub(crate) fn stream(&self, name: &str) -> Result<Stream, Fault> {
        let shown = self.streams.iter().any(|stream| stream.as_str() == name);
        let stream = self.client.stream(name).ok().filter(|_| shown);
        stream.ok_or_else(|| Fault::not_found("This dashboard shows no stream of that name."))
    }

    /// A group on a stream that this dashboard shows; it need not be there.
    pub(crate) fn group(&self, stream: &str, group: &str) -> Result<Group, Fault> {
        Ok(self.stream(stream)?.group(group)?)
    }

    /// Whether there is an archive of dead letters to look at.
    pub(crate) fn has_archive(&self) -> bool {
        self.archive.is_some()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// An authorizer of whatever type.
pub(crate) trait AnyAuthorizer: Send + Sync {
    fn decide<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Access, Denied>>;
}

impl<A: Authorizer> AnyAuthorizer for A {
    fn decide<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Access, Denied>> {
        Box::pin(self.authorize(request))
    }
}

/// Pages made at once: each takes a few requests to the server.
pub(crate) const PAGES_AT_ONCE: usize = 4;
/// Pages followed at once.
pub(crate) const FOLLOWERS_MAX: usize = 64;
