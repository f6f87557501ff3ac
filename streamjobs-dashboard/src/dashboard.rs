//! The public entry point: `router`, `Dashboard` and its builder.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::Value;
use streamjobs::service::Service;
use streamjobs::{Client, HandlerDef, StreamName};
use tokio::sync::Semaphore;

use crate::access::Authorizer;
use crate::alerts::AlertLog;
use crate::archived::{self, Archive};
use crate::audit::{Audit, Audited};
use crate::payload::{Redactor, Shown};
use crate::routes;
use crate::sampler::{Sampler, SamplerService};
use crate::state::{AnyAuthorizer, FOLLOWERS_MAX, PAGES_AT_ONCE, Shared, State};
use crate::trends::TrendCache;

/// A dashboard for the streams of all handlers that are linked into this program, as a router for
/// `Router::nest_service`, which answers at the path with and without a trailing slash.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client) {
/// use streamjobs_dashboard::{Access, Auth};
///
/// let auth = Auth::basic("a long random text", Access::read_only("ops"));
/// let app: axum::Router =
///     axum::Router::new().nest_service("/jobs", streamjobs_dashboard::router(client, auth));
/// # }
/// ```
pub fn router(client: Client, auth: impl Authorizer) -> Router {
    Dashboard::builder(client, auth).build().router()
}

/// A dashboard for a set of streams.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client, jobs: streamjobs::Client)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use streamjobs::{Runtime, StreamName};
/// use streamjobs_dashboard::{Access, Action, AlertLog, Auth, Dashboard};
///
/// let auth = Auth::basic("a long random text", Access::read_only("ops").allow(Action::Redrive));
/// let alerts = AlertLog::new();
/// let dashboard = Dashboard::builder(client, auth)
///     .streams([StreamName::new("orders")?, StreamName::new("orders:eu")?])
///     .alerts(&alerts)
///     .redact(|_, payload| {
///         if let Some(card) = payload.get_mut("card") {
///             *card = "…".into();
///         }
///     })
///     .on_action(|done| println!("{} did {}: {:?}", done.who, done.action, done.outcome))
///     .refresh(Duration::from_secs(5))
///     .build();
/// let runtime = Runtime::builder(&jobs)
///     .on_alert(alerts.recorder())
///     .service(dashboard.sampler())
///     .start()
///     .await?;
/// let app: axum::Router = axum::Router::new().nest_service("/jobs", dashboard.router());
/// # Ok(())
/// # }
/// ```
///
/// Cheap to clone. Clones share their state.
#[derive(Clone, Debug)]
pub struct Dashboard {
    state: Shared,
}

impl Dashboard {
    /// Settings for a dashboard that uses this client, and whose users `auth` decides about.
    ///
    /// The load on Redis is limited: at most four pages are rendered at once, however many are open, and each page
    /// requests only what it shows. Pass a separate client if the dashboard must not share a connection with
    /// publishing.
    pub fn builder(client: Client, auth: impl Authorizer) -> DashboardBuilder {
        DashboardBuilder {
            client,
            authorizer: Box::new(auth),
            streams: None,
            archive: None,
            alerts: AlertLog::new(),
            audit: Audit::default(),
            redactor: Redactor::default(),
            refresh: REFRESH,
        }
    }

    /// The pages, for `Router::nest_service`, which answers at the path with and without a trailing slash; with
    /// `Router::nest`, only the path without the slash has a page. The authorizer is called for every request.
    pub fn router(&self) -> Router {
        routes::of(Arc::clone(&self.state))
    }

    /// A service that samples in the background, for
    /// [`RuntimeBuilder::service`](streamjobs::RuntimeBuilder::service). With it, a page shows the last
    /// five minutes from the first view on; without it, history starts with the first view. It sends
    /// a few requests for each group in each refresh interval.
    pub fn sampler(&self) -> impl Service {
        SamplerService { sampler: Arc::clone(&self.state.sampler) }
    }
}

/// Settings for a [`Dashboard`].
#[must_use]
pub struct DashboardBuilder {
    client: Client,
    authorizer: Box<dyn AnyAuthorizer>,
    streams: Option<BTreeSet<StreamName>>,
    archive: Option<Archive>,
    alerts: AlertLog,
    audit: Audit,
    redactor: Redactor,
    refresh: Duration,
}

impl DashboardBuilder {
    /// The streams to show, and no others: their partitions, as far as the client knows them, the letters that the
    /// archive has of these, and alerts about them. Actions reach nothing else.
    ///
    /// By default, the streams of all handlers that are linked into this program, and the whole archive and all
    /// alerts. Streams whose name is set at run time have to be listed here.
    pub fn streams(mut self, streams: impl IntoIterator<Item = StreamName>) -> Self {
        self.streams = Some(streams.into_iter().collect());
        self
    }

    /// The archive whose dead letters are shown as well. None by default.
    ///
    /// With [`streams`](Self::streams), only their letters are shown, redriven and deleted, and only redrives whose
    /// selection names no other streams are shown and continued: those that were requested through such a dashboard,
    /// or for one of the streams.
    #[cfg(feature = "postgres")]
    #[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
    pub fn archive(mut self, postgres: &streamjobs_postgres::Postgres) -> Self {
        self.archive = Some(postgres.dead_letters());
        self
    }

    /// The log whose alerts are shown. None by default.
    pub fn alerts(mut self, alerts: &AlertLog) -> Self {
        self.alerts = alerts.clone();
        self
    }

    /// A function that removes confidential parts of payloads, for all users. None by default.
    ///
    /// It gets the JSON value of the field `data`, or, for an entry with flat fields, an object with
    /// one field at a time. With a redactor, numbers are shown with about 17 digits, and a payload that
    /// is not JSON is not shown. Lists read at most 16 KiB of a value, so they show no value that is
    /// larger, because a part cannot be redacted. Errors are not redacted: a handler that quotes a payload in its
    /// error reveals it to users with [`Access::payloads`](crate::Access::payloads).
    pub fn redact(
        mut self,
        redact: impl Fn(&Shown<'_>, &mut Value) + Send + Sync + 'static,
    ) -> Self {
        self.redactor = Redactor::new(redact);
        self
    }

    /// A callback for each action that a user takes or tries to take, in addition to the log event
    /// with the target `streamjobs::audit`. Use it to store an audit trail. It must not block. If it
    /// panics, the panic is logged and the request continues.
    pub fn on_action(mut self, callback: impl Fn(&Audited) + Send + Sync + 'static) -> Self {
        self.audit.on_action = Some(Arc::new(callback));
        self
    }

    /// How often an open page is updated: from 2 s (the default) to 15 s; other values are clamped. The
    /// upper limit exists because an event stream lasts 20 s before the browser reconnects. A longer
    /// interval costs fewer requests and shows changes later.
    pub fn refresh(mut self, refresh: Duration) -> Self {
        self.refresh = refresh.clamp(REFRESH, REFRESH_MAX);
        self
    }

    /// Builds the dashboard.
    pub fn build(self) -> Dashboard {
        let parts = |stream: &StreamName| self.client.partitions(stream);
        let only = self.streams.as_ref();
        let only = only.map(|streams| streams.iter().flat_map(parts).collect::<BTreeSet<_>>());
        let archive = archived::limited(self.archive, only.as_ref());
        let streams = self.streams.unwrap_or_else(linked).into_iter().collect::<Vec<_>>();
        let sampler =
            Sampler::new(self.client.clone(), streams.clone(), self.refresh, archive.clone());
        let state = State {
            client: self.client,
            streams,
            only,
            authorizer: self.authorizer,
            archive,
            alerts: self.alerts,
            audit: self.audit,
            redactor: self.redactor,
            refresh: self.refresh,
            sampler: Arc::new(sampler),
            trends: TrendCache::default(),
            budget: Semaphore::new(PAGES_AT_ONCE),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
        };
        Dashboard { state: Arc::new(state) }
    }
}

impl fmt::Debug for DashboardBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashboardBuilder")
            .field("streams", &self.streams)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

/// The streams of the handlers in this program. The macro has validated their names.
fn linked() -> BTreeSet<StreamName> {
    let handlers = HandlerDef::linked().into_iter();
    handlers.filter_map(|handler| StreamName::new(handler.stream).ok()).collect()
}

const REFRESH: Duration = Duration::from_secs(2);
/// The longest refresh interval. An event stream lasts 20 seconds, so with a longer interval there
/// would be no update.
const REFRESH_MAX: Duration = Duration::from_secs(15);
