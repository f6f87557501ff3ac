//! Waiting for a condition, with a deadline and a name.
//!
//! A fixed sleep is too long on a fast machine and too short on a loaded one. Here the condition
//! itself is checked again every few milliseconds, so a wait ends when it holds, and a failure says
//! what did not happen rather than what was found a moment too early. This is the only place that
//! polls; if there is an event to receive, receive it instead.

use std::thread;
use std::time::{Duration, Instant};

/// How long to wait between two checks: short against what tests wait for, long enough for the
/// process under test to get a turn on a machine with one core.
const PAUSE: Duration = Duration::from_millis(2);

/// Blocks until `condition` holds.
///
/// It blocks its thread: an async test that runs the code it waits for has to use
/// [`eventually_async`].
///
/// # Panics
///
/// If `condition` still does not hold after `deadline`, naming `what`.
///
/// ```
/// use std::time::{Duration, Instant};
/// use streamjobs_servers::eventually::eventually;
///
/// let begin = Instant::now();
/// eventually(Duration::from_secs(5), "the clock moves", || begin.elapsed().as_millis() > 3);
/// ```
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    if poll(deadline, || condition().then_some(())).is_none() {
        panic!("after {deadline:?} still not so: {what}");
    }
}

/// Waits until `condition` holds, leaving the executor free.
///
/// It uses tokio's clock, so a paused clock advances instead of waiting.
///
/// # Panics
///
/// If `condition` still does not hold after `deadline`, naming `what`.
///
/// # Cancel safety
///
/// Dropping it drops the running `condition`; nothing else is lost.
///
/// ```
/// use std::time::Duration;
/// use streamjobs_servers::eventually::eventually_async;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let begin = tokio::time::Instant::now();
/// eventually_async(Duration::from_secs(5), "the clock moves", async || {
///     begin.elapsed().as_millis() > 3
/// })
/// .await;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn eventually_async(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let end = tokio::time::Instant::now() + deadline;
    let mut checks = tokio::time::interval(PAUSE);
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        if condition().await {
            return;
        }
        let late = tokio::time::Instant::now() >= end;
        assert!(!late, "after {deadline:?} still not so: {what}");
    }
}

/// Calls `check` until it returns an answer; `None` after `deadline`.
pub fn poll<T>(deadline: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let answer = check();
        if answer.is_some() || Instant::now() >= end {
            return answer;
        }
        thread::park_timeout(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "still not so: pigs fly")]
    fn a_wait_that_fails_names_what_did_not_happen() {
        eventually(Duration::from_millis(5), "pigs fly", || false);
    }

    #[test]
    fn a_condition_is_asked_until_it_holds() {
        let mut left = 3;
        eventually(Duration::from_secs(5), "three checks were made", || {
            left -= 1;
            left == 0
        });
    }

    #[tokio::test]
    #[should_panic(expected = "still not so: pigs fly")]
    async fn an_async_wait_that_fails_names_what_did_not_happen() {
        eventually_async(Duration::from_millis(5), "pigs fly", async || false).await;
    }

    #[tokio::test]
    async fn an_async_condition_is_asked_until_it_holds() {
        let mut left = 3;
        eventually_async(Duration::from_secs(5), "three checks were made", async || {
            left -= 1;
            left == 0
        })
        .await;
    }
}
