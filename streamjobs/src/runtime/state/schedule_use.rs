//! Whether events are scheduled to a stream, as its promoters learn with each answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::runtime::state::lock;

/// Promoters to the scheduler of one stream: whether events were ever scheduled to it. While there were
/// none, the scheduler asks nothing of the server.
#[derive(Debug)]
pub(crate) struct ScheduleUse {
    heard: Mutex<Heard>,
    begun: Notify,
    /// The queues of a stream have one scheduler at a time.
    turn: Arc<Semaphore>,
}

/// This information for a stream's scheduled events and for its schedules.
#[derive(Debug, Default)]
pub(crate) struct StreamUse {
    /// Whether events wait for their time, or did: for the scheduler.
    pub(crate) scheduled: Arc<ScheduleUse>,
    /// Whether the stream has schedules: for the firer.
    pub(crate) schedules: Arc<ScheduleUse>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    used: bool,
    at: Option<Instant>,
}

impl Default for ScheduleUse {
    fn default() -> Self {
        Self { heard: Mutex::default(), begun: Notify::new(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl ScheduleUse {
    /// Records the server's answer whether events were ever scheduled.
    pub(crate) fn heard(&self, now: Instant, used: bool) {
        let before = std::mem::replace(&mut *lock(&self.heard), Heard { used, at: Some(now) });
        if used && !before.used {
            self.begun.notify_one();
        }
    }

    pub(crate) fn is_used(&self) -> bool {
        lock(&self.heard).used
    }

    /// Waits until events are scheduled, or until no answer has arrived for longer than promoters
    /// usually take.
    pub(crate) async fn begun_or_unheard(&self) {
        let called = Instant::now();
        loop {
            let Heard { used, at } = *lock(&self.heard);
            let unheard = at.map_or(called, |at| at.max(called)) + UNHEARD_MAX;
            if used || Instant::now() >= unheard {
                return;
            }
            tokio::select! {
                biased;
                () = self.begun.notified() => {}
                () = sleep_until(unheard) => {}
            }
        }
    }

    /// Waits until no other scheduler of the stream works in this process.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }
}

/// How long no answer may arrive until the scheduler asks itself: the promoter of an idle group
/// asks every three seconds. Publishers rely on this limit (`store::schedule::LEARNING`).
const UNHEARD_MAX: Duration = Duration::from_millis(3_300);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_scheduler_waits_while_promoters_say_that_there_is_nothing() {
        let (usage, begun) = (ScheduleUse::default(), Instant::now());
        usage.begun_or_unheard().await;
        assert_eq!(Instant::now() - begun, UNHEARD_MAX, "nothing was said");
        let second = |count| Instant::now() + Duration::from_secs(count);
        let promoting = async {
            for _ in 0..100 {
                sleep_until(second(3)).await;
                usage.heard(Instant::now(), false);
            }
            sleep_until(second(3)).await;
            usage.heard(Instant::now(), true);
        };
        let begun = Instant::now();
        tokio::join!(usage.begun_or_unheard(), promoting);
        assert_eq!(Instant::now() - begun, Duration::from_secs(303));
        assert!(usage.is_used());
    }

    #[tokio::test(start_paused = true)]
    async fn one_scheduler_of_a_stream_works_at_a_time() {
        let usage = ScheduleUse::default();
        let first = usage.turn().await;
        let second = tokio::time::timeout(Duration::from_secs(9), usage.turn()).await;
        assert!(second.is_err());
        drop(first);
        assert!(usage.turn().await.is_some());
    }
}
