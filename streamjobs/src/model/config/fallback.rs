//! Options that fall back to those of another place.

use super::HandlerOptions;

impl HandlerOptions {
    /// These options, with the value of `other` for each that is not set.
    pub(crate) fn or(self, other: &Self) -> Self {
        let limits = if self.has_limit() { &self } else { other };
        Self {
            concurrency: self.concurrency.or(other.concurrency),
            max_attempts: self.max_attempts.or(other.max_attempts),
            max_deliveries: self.max_deliveries.or(other.max_deliveries),
            timeout: self.timeout.or(other.timeout),
            expires: self.expires.or(other.expires),
            backoff: self.backoff.or(other.backoff),
            lease: self.lease.or(other.lease),
            start: self.start.or(other.start),
            unhandled: self.unhandled.or(other.unhandled),
            unhandled_after: self.unhandled_after.or(other.unhandled_after),
            order: limits.order,
            concurrency_per_key: limits.concurrency_per_key,
            concurrency_total: limits.concurrency_total,
            fair: limits.fair,
            rate: self.rate.or(other.rate),
            keep_done: self.keep_done.or(other.keep_done),
            keep_done_max: self.keep_done_max.or(other.keep_done_max),
            slots: self.slots.or(other.slots),
            weight: self.weight.or(other.weight),
        }
    }
}
