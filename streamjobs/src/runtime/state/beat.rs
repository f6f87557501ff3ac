//! The common beat at which the loops of idle queues act.

use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::state::jittered;

/// The moments at which the loops of all idle queues of a runtime act. Their requests are then
/// combined into a few, however many queues there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// The start of the runtime, so that different processes do not act at the same moments.
    origin: Instant,
}

impl Beat {
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// How long until the next check for scheduled events. The checks for all streams take place together, twice a
    /// second.
    pub(crate) fn until_look(&self, now: Instant) -> Duration {
        let within = now.saturating_duration_since(self.origin).as_nanos() % LOOK.as_nanos();
        LOOK.saturating_sub(Duration::from_nanos(u64::try_from(within).unwrap_or(0)))
    }

    /// How long until the last moment of the beat within `interval`. An interval that is too short for
    /// the beat is [`jittered`] instead.
    pub(crate) fn within(&self, now: Instant, interval: Duration) -> Duration {
        if interval < SHORT {
            return jittered(interval);
        }
        let end = now.saturating_duration_since(self.origin) + interval;
        interval - Duration::from_nanos(u64::from(end.subsec_nanos()))
    }
}

/// The time between two checks for scheduled events: half a beat.
const LOOK: Duration = Duration::from_millis(500);
/// Shorter intervals are not aligned with the beat, which is one second: the alignment would make
/// them much shorter.
const SHORT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_meet_at_the_beat_and_are_never_late() {
        let origin = Instant::now();
        let beat = Beat::new(origin);
        for number in 0..1_000 {
            let now = origin + Duration::from_millis(number * 37);
            let next = now + beat.within(now, Duration::from_secs(5));
            let waited = (next - now).as_secs_f64();
            assert!((4.0..=5.0).contains(&waited), "{waited}");
            assert_eq!((next - origin).subsec_nanos(), 0);
            let look = beat.until_look(now);
            assert!(look > Duration::ZERO && look <= LOOK);
            assert_eq!((now + look - origin).as_nanos() % LOOK.as_nanos(), 0);
            let short = beat.within(now, Duration::from_millis(1_500));
            assert!((1_200..=1_800).contains(&short.as_millis()), "{short:?}");
        }
    }
}
