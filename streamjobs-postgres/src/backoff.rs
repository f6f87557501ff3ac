//! How long a service waits after a failed round.

use std::time::Duration;

use streamjobs::Backoff;

/// The delay after this many failures in a row (from 1): drawn evenly from the upper half of a
/// bound that doubles from 100 ms to 5 s. `random` is drawn evenly from 0 to 1.
///
/// The lower half is left out, so that an unreachable server is not asked again at once.
pub(crate) fn delay(failures: u32, random: f64) -> Duration {
    let bound = Backoff::exponential(FIRST, MAX).delay(failures, 1.0);
    bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_5_s_and_keep_at_least_half_of_their_bound() {
        let bounds = [1, 2, 3, 6, 7, u32::MAX].map(|failures| delay(failures, 1.0).as_millis());
        assert_eq!(bounds, [100, 200, 400, 3_200, 5_000, 5_000]);
        assert_eq!(delay(1, 0.0), Duration::from_millis(50));
    }
}
