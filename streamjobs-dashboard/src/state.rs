//! State that all pages share.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use streamjobs::schedule::Schedules;
use streamjobs::stream::{Group, ScheduledEvents, Stream};
use streamjobs::{Client, StreamName};
use tokio::sync::Semaphore;

use crate::access::{Access, Authorizer, Denied};
use crate::alerts::AlertLog;
use crate::archived::Archive;
use crate::audit::Audit;
use crate::fault::Fault;
use crate::payload::Redactor;
use crate::sampler::Sampler;
use crate::trends::TrendCache;

/// State that all pages share.
pub(crate) struct State {
    pub(crate) client: Client,
    pub(crate) streams: Vec<StreamName>,
    /// The streams to which the application has limited this dashboard, and their partitions, if it has.
    pub(crate) only: Option<BTreeSet<StreamName>>,
    pub(crate) authorizer: Box<dyn AnyAuthorizer>,
    pub(crate) archive: Option<Archive>,
    pub(crate) alerts: AlertLog,
    pub(crate) audit: Audit,
    pub(crate) redactor: Redactor,
    pub(crate) refresh: Duration,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) trends: TrendCache,
    /// Limits how many pages are rendered at once, so that many viewers do not send many requests.
    pub(crate) budget: Semaphore,
    /// Limits how many pages have an open event stream.
    pub(crate) followers: Arc<Semaphore>,
}

pub(crate) type Shared = Arc<State>;

impl State {
    /// A stream that this dashboard was configured to show. Other keys on the server are not
    /// accessible.
    pub(crate) fn stream(&self, name: &str) -> Result<Stream, Fault> {
        let shown = self.streams.iter().any(|stream| stream.as_str() == name);
        let stream = self.client.stream(name).ok().filter(|_| shown);
        stream
            .ok_or_else(|| Fault::not_found("This dashboard does not show a stream of that name."))
    }

    /// Whether something about a stream that comes from elsewhere, such as an alert, may be shown.
    pub(crate) fn may_show(&self, stream: &str) -> bool {
        let is_shown =
            |only: &BTreeSet<StreamName>| only.iter().any(|name| name.as_str() == stream);
        self.only.as_ref().is_none_or(is_shown)
    }

    /// The scheduled events of a stream that this dashboard shows. It need not exist.
    pub(crate) fn scheduled(&self, stream: &str) -> Result<ScheduledEvents, Fault> {
        Ok(self.client.scheduled(self.stream(stream)?.name().as_str())?)
    }

    /// The schedules of a stream that this dashboard shows. It need not exist.
    pub(crate) fn schedules(&self, stream: &str) -> Result<Schedules, Fault> {
        Ok(self.client.schedules(self.stream(stream)?.name().as_str())?)
    }

    /// A group on a stream that this dashboard shows. It need not exist.
    pub(crate) fn group(&self, stream: &str, group: &str) -> Result<Group, Fault> {
        Ok(self.stream(stream)?.group(group)?)
    }

    /// Whether there is an archive of dead letters.
    pub(crate) fn has_archive(&self) -> bool {
        self.archive.is_some()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// An [`Authorizer`] of any type, as a trait object.
pub(crate) trait AnyAuthorizer: Send + Sync {
    fn decide<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Access, Denied>>;
}

impl<A: Authorizer> AnyAuthorizer for A {
    fn decide<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Access, Denied>> {
        Box::pin(self.authorize(request))
    }
}

/// How many pages are rendered at once: each sends a few requests to the server.
pub(crate) const PAGES_AT_ONCE: usize = 4;
/// How many event streams may be open at once.
pub(crate) const FOLLOWERS_MAX: usize = 64;
