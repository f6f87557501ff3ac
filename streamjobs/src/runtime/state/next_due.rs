//! When the next of the retries that this process scheduled is due.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::runtime::state::lock;

/// Settler and admission to promoter: promote no later than this. Without it, the promoter would
/// notice a job that is due soon only at its next interval.
#[derive(Debug, Default)]
pub(crate) struct NextDue {
    at: Mutex<Option<Instant>>,
    sooner: Notify,
}

impl NextDue {
    /// Records that a retry was scheduled with this delay.
    pub(crate) fn note(&self, delay: Duration) {
        let at = Instant::now() + delay.clamp(COALESCE, DELAY_MAX);
        let mut earliest = lock(&self.at);
        if earliest.is_none_or(|earliest| at < earliest) {
            *earliest = Some(at);
            self.sooner.notify_one();
        }
    }

    /// Called when the promoter is about to run, and will find every retry that was scheduled
    /// before.
    pub(crate) fn forget(&self) {
        *lock(&self.at) = None;
    }

    /// Waits until a retry is due, and until `latest` at most.
    pub(crate) async fn reached(&self, latest: Instant) {
        loop {
            let at = lock(&self.at).map_or(latest, |due| due.min(latest));
            tokio::select! {
                biased;
                () = sleep_until(at) => return,
                () = self.sooner.notified() => {}
            }
        }
    }
}

/// Retries that are due within this time of each other are promoted together.
pub(crate) const COALESCE: Duration = Duration::from_millis(5);
/// The longest delay that is recorded. The promoter's interval is shorter anyway.
const DELAY_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_job_ends_the_wait() {
        let next_due = NextDue::default();
        let begun = Instant::now();
        let seconds = |count| begun + Duration::from_secs(count);
        next_due.reached(seconds(3)).await;
        assert_eq!(Instant::now(), seconds(3), "nothing is due");
        for delay in [5, 2, 6] {
            next_due.note(Duration::from_secs(delay));
        }
        next_due.reached(seconds(60)).await;
        assert_eq!(Instant::now(), seconds(5));
        next_due.forget();
        next_due.reached(seconds(12)).await;
        assert_eq!(Instant::now(), seconds(12), "the promoter has found them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_scheduled_for_retry_meanwhile_ends_the_wait_sooner() {
        let next_due = NextDue::default();
        let begun = Instant::now();
        let retrying = async {
            sleep_until(begun + Duration::from_secs(1)).await;
            next_due.note(Duration::from_secs(1));
        };
        tokio::join!(next_due.reached(begun + Duration::from_secs(60)), retrying);
        assert_eq!(Instant::now(), begun + Duration::from_secs(2));
    }
}
