//! Whether starts of jobs keep to a rate.

use streamjobs::Rate;

/// Checks starts at these times, in microseconds: in any window of any length there are at most as many as the
/// rate allows, and one burst.
///
/// A window that begins and ends with a start decides for all that are longer and have no more starts.
///
/// # Panics
///
/// If there are more, with the window.
pub fn assert_rate(mut times: Vec<u128>, rate: Rate) {
    times.sort_unstable();
    let (starts, per) = (u128::from(rate.starts().get()), rate.per().as_micros());
    let burst = u128::from(rate.burst_size().get());
    for (first, from) in times.iter().enumerate() {
        for (number, to) in (1_u128..).zip(times.iter().skip(first)) {
            // One is the rounding of the times.
            let allowed = ((to - from + 1) * starts).div_ceil(per) + burst;
            let exact = (number.saturating_sub(burst)) * per <= (to - from + 1) * starts;
            assert!(exact, "{number} starts within {} us, of {allowed} allowed", to - from);
        }
    }
}
