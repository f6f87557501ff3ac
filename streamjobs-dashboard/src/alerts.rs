//! The log of a runtime's alerts, for the alerts page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use streamjobs::runtime::Alert;

/// The latest alerts of this process' runtimes, for the alerts page.
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
    kept: Arc<Mutex<VecDeque<RecordedAlert>>>,
}

/// An alert and when it was recorded.
#[derive(Clone, Debug)]
pub(crate) struct RecordedAlert {
    pub(crate) at: SystemTime,
    pub(crate) alert: Alert,
}

impl AlertLog {
    /// An empty log. It keeps the latest 200 alerts. Clones share one log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A callback for [`RuntimeBuilder::on_alert`](streamjobs::RuntimeBuilder::on_alert) that records
    /// each alert. It does not block.
    pub fn recorder(&self) -> impl Fn(&Alert) + Send + Sync + 'static {
        let log = self.clone();
        move |alert| log.record(alert)
    }

    /// Records an alert, for applications that receive alerts in another way.
    pub fn record(&self, alert: &Alert) {
        let mut kept = self.lock();
        kept.truncate(KEPT_MAX - 1);
        kept.push_front(RecordedAlert { at: SystemTime::now(), alert: alert.clone() });
    }

    /// The recorded alerts, newest first.
    pub(crate) fn latest(&self) -> Vec<RecordedAlert> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecordedAlert>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const KEPT_MAX: usize = 200;
