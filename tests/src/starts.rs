//! Whether starts of jobs keep to a rate.

use streamjobs::Rate;

/// Checks the starts at these times, in microseconds: in any window of any length there are at most as many as
/// the rate allows, plus one burst.
///
/// It is enough to check windows that begin and end with a start: a longer window without more starts allows
/// at least as many.
///
/// # Panics
///
/// If there are more. The message has the window.
pub fn assert_rate(mut times: Vec<u128>, rate: Rate) {
    times.sort_unstable();
    let (starts, per) = (u128::from(rate.starts().get()), rate.per().as_micros());
    let burst = u128::from(rate.burst_size().get());
    for (first, from) in times.iter().enumerate() {
        for (number, to) in (1_u128..).zip(times.iter().skip(first)) {
            // One more is allowed because the times are rounded.
            let allowed = ((to - from + 1) * starts).div_ceil(per) + burst;
            let exact = (number.saturating_sub(burst)) * per <= (to - from + 1) * starts;
            assert!(exact, "{number} starts within {} us, of {allowed} allowed", to - from);
        }
    }
}
