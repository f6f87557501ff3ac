//! The receivers of alerts: the application's hook and every open [`Alerts`].

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::insight::alert::Alert;
use crate::model::cause::caught;

/// The receivers of a runtime's alerts.
pub(crate) struct AlertSubscribers {
    hook: Option<AlertHook>,
    channel: broadcast::Sender<Alert>,
}

/// The application's function that is called with each alert.
pub(crate) type AlertHook = Arc<dyn Fn(&Alert) + Send + Sync>;

impl AlertSubscribers {
    pub(crate) fn new(hook: Option<AlertHook>) -> Self {
        Self { hook, channel: broadcast::Sender::new(ALERTS_MAX) }
    }

    /// Sends an alert to all receivers. A panic of the hook is caught.
    pub(crate) fn send(&self, alert: &Alert) {
        if let Some(hook) = &self.hook {
            let _panicked = caught(|| hook(alert)).is_err();
        }
        // There may be no receiver.
        let _unreceived = self.channel.send(alert.clone()).is_err();
    }

    pub(crate) fn subscribe(&self) -> Alerts {
        Alerts { channel: self.channel.subscribe() }
    }
}

impl fmt::Debug for AlertSubscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertSubscribers")
            .field("hook", &self.hook.is_some())
            .finish_non_exhaustive()
    }
}

/// Alerts in the order in which they occur, from the call of
/// [`Runtime::alerts`](crate::Runtime::alerts) on.
#[derive(Debug)]
pub struct Alerts {
    channel: broadcast::Receiver<Alert>,
}

impl Alerts {
    /// The next alert; `None` when the runtime is gone. A receiver that falls more than 256 alerts
    /// behind misses the oldest.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no alert is lost.
    pub async fn next(&mut self) -> Option<Alert> {
        loop {
            match self.channel.recv().await {
                Ok(alert) => return Some(alert),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

const ALERTS_MAX: usize = 256;
