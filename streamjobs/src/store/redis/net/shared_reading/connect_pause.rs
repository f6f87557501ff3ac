//! The pauses between attempts to connect that fail.

use std::time::Duration;

use tokio::time::Instant;

use super::super::error::copy;
use crate::store::StoreError;

/// Until when no attempt is made, and why.
#[derive(Default)]
pub(super) struct ConnectPause {
    failures: u32,
    last: Option<(Instant, StoreError)>,
}

impl ConnectPause {
    /// The error of the last attempt, while the pause after it lasts.
    pub(super) fn error(&self) -> Option<StoreError> {
        let (until, error) = self.last.as_ref()?;
        (Instant::now() < *until).then(|| copy(error))
    }

    /// An attempt failed: how long the pause is. It doubles from a tenth of a second to two seconds, and
    /// is up to half as long again by chance. After a refused login it is ten seconds at once: some lock
    /// out users whose password is wrong often.
    pub(super) fn failed(&mut self, error: StoreError) -> Duration {
        let doubled = SHORTEST.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        let is_refused = matches!(&error, StoreError::Refused { .. })
            || error_text(&error).contains("WRONGPASS")
            || error_text(&error).contains("NOAUTH");
        let pause = if is_refused { REFUSED } else { doubled.min(LONGEST) };
        let pause = pause.mul_f64(fastrand::f64().mul_add(0.5, 1.0));
        self.failures = self.failures.saturating_add(1);
        self.last = Some((Instant::now() + pause, error));
        pause
    }
}

fn error_text(error: &StoreError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
const REFUSED: Duration = Duration::from_secs(10);
const DOUBLINGS_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::super::super::error::not_connected;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_are_long_at_once_after_a_refused_login() {
        let mut pause = ConnectPause::default();
        assert!(pause.error().is_none());
        for expected in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let taken = pause.failed(not_connected());
            let least = Duration::from_millis(expected);
            assert!(taken >= least && taken <= least * 3 / 2, "{taken:?} after {least:?}");
            assert!(matches!(pause.error(), Some(StoreError::Unreachable(_))));
            tokio::time::advance(taken).await;
            assert!(pause.error().is_none());
        }
        let refused = StoreError::Refused { code: "WRONGPASS".to_owned(), text: String::new() };
        assert!(ConnectPause::default().failed(refused) >= REFUSED);
    }
}
