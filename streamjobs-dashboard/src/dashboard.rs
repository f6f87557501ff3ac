//! Putting the dashboard together.

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
use crate::archived::Archive;
use crate::audit::{Audit, Audited};
use crate::payload::{Redactor, Shown};
use crate::routes;
use crate::sampler::{Sampler, Sampling};
use crate::state::{AnyAuthorizer, FOLLOWERS_MAX, PAGES_AT_ONCE, Shared, State};

/// The dashboard over the streams of every handler that is linked into this program: for
/// `Router::nest`.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client) {
/// use streamjobs_dashboard::{Access, Auth};
///
/// let auth = Auth::basic("a long random text", Access::read_only("ops"));
/// let app: axum::Router =
///     axum::Router::new().nest("/jobs", streamjobs_dashboard::router(client, auth));
/// # }
/// ```
pub fn router(client: Client, auth: impl Authorizer) -> Router {
    Dashboard::builder(client, auth).build().router()
}

/// A dashboard over some streams.
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
/// let app: axum::Router = axum::Router::new().nest("/jobs", dashboard.router());
/// # Ok(())
/// # }
/// ```
///
/// Cheap to clone; clones share what they have seen.
#[derive(Clone, Debug)]
pub struct Dashboard {
    state: Shared,
}

impl Dashboard {
    /// Settings for a dashboard that asks through this client, and lets in whom the authorizer lets
    /// in.
    ///
    /// Looking is bounded: however many look, four pages are made at once, and none asks for more
    /// than fits on it. Give it a client of its own where even that must not share a connection
    /// with publishing.
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

    /// Its pages, for `Router::nest`. Every request is put before the authorizer.
    pub fn router(&self) -> Router {
        routes::of(Arc::clone(&self.state))
    }

    /// Goes on looking while nobody does, so that the first one to come sees the last five minutes:
    /// for [`RuntimeBuilder::service`](streamjobs::RuntimeBuilder::service). It asks a few times
    /// for each group in each refresh interval.
    pub fn sampler(&self) -> impl Service {
        Sampling { sampler: Arc::clone(&self.state.sampler) }
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
    /// The streams to show, and no others: by default those of every handler that is linked into
    /// this program. Streams that their groups read under other keys have to be named.
    pub fn streams(mut self, streams: impl IntoIterator<Item = StreamName>) -> Self {
        self.streams = Some(streams.into_iter().collect());
        self
    }

    /// Shows the dead letters of this archive, too; none by default.
    #[cfg(feature = "postgres")]
    pub fn archive(mut self, postgres: &streamjobs_postgres::Postgres) -> Self {
        self.archive = Some(postgres.clone());
        self
    }

    /// Shows the alerts of this log; none by default.
    pub fn alerts(mut self, alerts: &AlertLog) -> Self {
        self.alerts = alerts.clone();
        self
    }

    /// Takes out of payloads what nobody is to see, whoever looks; nothing by default.
    ///
    /// It is given what `data` holds as JSON, or, of an entry with flat fields, one field at a time
    /// in an object. Numbers are then shown as JSON numbers are, with about 17 digits. A payload
    /// that is no JSON is not shown at all. Errors of dead letters are not payloads; a handler that
    /// quotes a payload in its error shows it.
    pub fn redact(
        mut self,
        redact: impl Fn(&Shown<'_>, &mut Value) + Send + Sync + 'static,
    ) -> Self {
        self.redactor = Redactor::new(redact);
        self
    }

    /// Called with everything that somebody did through the dashboard, beside the log event of the
    /// target `streamjobs::audit`: to keep it. It must not block. Where it panics, the log says so and
    /// the request goes on.
    pub fn on_action(mut self, tell: impl Fn(&Audited) + Send + Sync + 'static) -> Self {
        self.audit.on_action = Some(Arc::new(tell));
        self
    }

    /// How often pages that are followed are made again: every 2 s by default. Less is 2 s, and more
    /// than 15 s is 15 s: a page is followed for 20 s before it is asked for anew. Longer is a little
    /// cheaper and a little later.
    pub fn refresh(mut self, refresh: Duration) -> Self {
        self.refresh = refresh.clamp(REFRESH, REFRESH_MAX);
        self
    }

    /// The dashboard.
    pub fn build(self) -> Dashboard {
        let streams = self.streams.unwrap_or_else(linked).into_iter().collect::<Vec<_>>();
        let sampler =
            Sampler::new(self.client.clone(), streams.clone(), self.refresh, self.archive.clone());
        let state = State {
            client: self.client,
            streams,
            authorizer: self.authorizer,
            archive: self.archive,
            alerts: self.alerts,
            audit: self.audit,
            redactor: self.redactor,
            refresh: self.refresh,
            sampler: Arc::new(sampler),
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

/// The streams of the handlers in this program. The macro has checked their names.
fn linked() -> BTreeSet<StreamName> {
    let handlers = HandlerDef::linked().into_iter();
    handlers.filter_map(|handler| StreamName::new(handler.stream).ok()).collect()
}

const REFRESH: Duration = Duration::from_secs(2);
/// A page is followed for 20 seconds, so a longer interval would never come round.
const REFRESH_MAX: Duration = Duration::from_secs(15);
