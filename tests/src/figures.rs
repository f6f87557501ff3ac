//! Figures of benchmarks: two sides beside each other, and what their times come to.

use std::time::Duration;

/// Times of two sides that did the same work, pair by pair.
#[derive(Debug, Default)]
pub struct Pairs {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl Pairs {
    /// Adds what one round took on either side.
    pub fn push(&mut self, ours: Duration, theirs: Duration) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// One line: both rates by their medians, and the ratio of these.
    ///
    /// # Panics
    ///
    /// If there was no round.
    pub fn line(self, what: &str, events: usize) -> String {
        let (ours, theirs) = (rate(self.ours, events), rate(self.theirs, events));
        let ratio = ours / theirs;
        format!("{what}: streamjobs {ours:.0}/s, by hand {theirs:.0}/s, ratio {ratio:.2}")
    }
}

/// So many a second, by the median of the times that all of them took.
///
/// # Panics
///
/// If there are no times.
pub fn rate(times: Vec<Duration>, events: usize) -> f64 {
    events as f64 / median(times).as_secs_f64()
}

/// The time in the middle.
///
/// # Panics
///
/// If there are no times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long half, nine tenths, almost all and all of them took at most.
///
/// # Panics
///
/// If there are no times.
pub fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.9), at(0.99), at(1.0))
}
