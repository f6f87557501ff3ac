//! The alerts of a runtime, kept for the page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use streamjobs::runtime::Alert;

/// The latest alerts of the runtimes of this process, for the dashboard's page of alerts.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client, auth: streamjobs_dashboard::Auth)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use streamjobs::Runtime;
/// use streamjobs_dashboard::{AlertLog, Dashboard};
///
/// let alerts = AlertLog::new();
/// let runtime = Runtime::builder(&client).on_alert(alerts.recorder()).start().await?;
/// let dashboard = Dashboard::builder(client, auth).alerts(&alerts).build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct AlertLog {
    kept: Arc<Mutex<VecDeque<Noted>>>,
}

/// An alert, and when it came.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) at: SystemTime,
    pub(crate) alert: Alert,
}

impl AlertLog {
    /// An empty log. It keeps the latest 200 alerts; clones are handles on the same one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a runtime calls with each alert: for
    /// [`RuntimeBuilder::on_alert`](streamjobs::RuntimeBuilder::on_alert). It never waits.
    pub fn recorder(&self) -> impl Fn(&Alert) + Send + Sync + 'static {
        let log = self.clone();
        move |alert| log.record(alert)
    }

    /// Keeps an alert, for applications that are told of them in another way.
    pub fn record(&self, alert: &Alert) {
        let mut kept = self.lock();
        kept.truncate(KEPT_MAX - 1);
        kept.push_front(Noted { at: SystemTime::now(), alert: alert.clone() });
    }

    /// The alerts that are kept, newest first.
    pub(crate) fn latest(&self) -> Vec<Noted> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Noted>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const KEPT_MAX: usize = 200;
