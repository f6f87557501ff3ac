//! Figures of benchmarks: two sides next to each other, and statistics of their times.

use std::time::Duration;

/// Times of two sides that did the same work, pair by pair.
#[derive(Debug, Default)]
pub struct Pairs {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl Pairs {
    /// Adds the times that one round took on each side.
    pub fn push(&mut self, ours: Duration, theirs: Duration) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// One line with the rates of both sides by their medians, and the ratio of these rates.
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

/// The rate per second, by the median of the times that this many events took.
///
/// # Panics
///
/// If there are no times.
pub fn rate(times: Vec<Duration>, events: usize) -> f64 {
    events as f64 / median(times).as_secs_f64()
}

/// The median time.
///
/// # Panics
///
/// If there are no times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The times within which half, nine tenths, almost all and all of them were done.
///
/// # Panics
///
/// If there are no times.
pub fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.9), at(0.99), at(1.0))
}
