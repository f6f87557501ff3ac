//! The pauses between attempts to connect.

use std::time::Duration;

use redis::RedisError;
use tokio::time::Instant;

use super::error::{cause, is_authentication};

/// Until when no attempt is made, and why.
#[derive(Debug, Default)]
pub(super) struct ConnectPause {
    failures: u32,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// `None` after a success; in that case callers wait until the pause ends.
    cause: Option<String>,
}

/// What to do about an attempt.
pub(super) enum Attempt {
    Now,
    /// Wait until this time.
    Later(Instant),
    /// Give up. The text says why there is no connection.
    Failed(String),
}

impl ConnectPause {
    pub(super) fn attempt(&self) -> Attempt {
        match &self.pause {
            Some(Pause { until, cause }) if Instant::now() < *until => match cause {
                None => Attempt::Later(*until),
                Some(cause) => Attempt::Failed(format!("{cause}; {WAITING}")),
            },
            _ => Attempt::Now,
        }
    }

    /// A connection was opened, and will be used until it breaks. A short pause limits the attempts
    /// at a server that closes each connection at once.
    pub(super) fn opened(&mut self) {
        self.failures = 0;
        self.pause = Some(Pause { until: Instant::now() + pause(1, fastrand::f64()), cause: None });
    }

    /// An attempt succeeded, and the next one may follow at once.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, error: &RedisError) {
        self.failures = self.failures.saturating_add(1);
        let wait = match is_authentication(error) {
            true => PAUSE_AUTHENTICATION,
            false => pause(self.failures, fastrand::f64()),
        };
        self.pause = Some(Pause { until: Instant::now() + wait, cause: Some(cause(error)) });
    }

    /// A connection was opened, but the server refuses to serve.
    pub(super) fn refused(&mut self, refusal: String) {
        let until = Instant::now() + pause(1, fastrand::f64());
        self.pause = Some(Pause { until, cause: Some(refusal) });
    }
}

/// The wait before the next attempt, after this many failures; `random` is uniform in 0 to 1.
fn pause(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    let bound = PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX);
    bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

const WAITING: &str = "waiting before the next attempt to connect";
const PAUSE_FIRST: Duration = Duration::from_millis(400);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause after a refused login: servers count and log wrong passwords, and some lock the user
/// out.
const PAUSE_AUTHENTICATION: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io;

    use redis::{ErrorKind, RedisError};

    use super::*;

    #[test]
    fn attempts_to_connect_are_a_few_a_second_at_most() {
        assert_eq!(pause(1, 0.0), Duration::from_millis(200));
        assert_eq!(pause(1, 1.0), Duration::from_millis(400));
        assert_eq!(pause(u32::MAX, 1.0), PAUSE_MAX);
        assert!(pause(0, 0.0) >= Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_until_its_pause_is_over_and_a_refused_login_has_the_longest() {
        let mut pause = ConnectPause::default();
        assert!(matches!(pause.attempt(), Attempt::Now));
        pause.failed(&io::Error::from(io::ErrorKind::ConnectionRefused).into());
        let Attempt::Failed(text) = pause.attempt() else { panic!("it may try again") };
        assert!(text.contains("refused") && text.ends_with(WAITING), "{text}");
        tokio::time::advance(PAUSE_FIRST).await;
        assert!(matches!(pause.attempt(), Attempt::Now));
        pause.failed(&RedisError::from((ErrorKind::AuthenticationFailed, "no")));
        tokio::time::advance(PAUSE_AUTHENTICATION - Duration::from_millis(1)).await;
        assert!(matches!(pause.attempt(), Attempt::Failed(_)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(pause.attempt(), Attempt::Now));
        pause.opened();
        assert!(matches!(pause.attempt(), Attempt::Later(_)));
        pause.clear();
        assert!(matches!(pause.attempt(), Attempt::Now));
    }
}
