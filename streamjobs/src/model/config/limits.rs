//! Limits over all processes of a group, of which a group can have only one.

use std::num::NonZeroU32;

use super::{GroupOptions, HandlerOptions};
use crate::model::limit::{HoldRule, HoldScope};

/// What the jobs behind a failed job of the same key do while it waits for its retry.
///
/// Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// They wait until the failed job is done or a dead letter.
    Block,
    /// They go on at once. When its retry is due, the failed job runs after the jobs that wait by then.
    Skip,
}

impl GroupOptions {
    /// Runs the jobs of one key one after the other, in the order of the stream, over all processes; by default
    /// jobs run in any order.
    ///
    /// The key is the event's own, set with `#[event(key = "…")]`; jobs without a key have no order. Jobs of other keys
    /// run beside them. The order holds through retries, crashes and deploys. It does not hold for jobs that run again
    /// after the group was lost, and a redriven dead letter runs after the waiting jobs of its key. Each job costs the
    /// server about five times as much as without order, and more if it has to wait. Only one of the three limits over
    /// all processes can be set.
    pub fn order(mut self, order: KeyOrder) -> Self {
        self.options.order = Some(order);
        self
    }

    /// Jobs of one key that may run at once in all processes; by default there is no limit.
    ///
    /// A job that waits for its retry does not count. Jobs without a key are not limited. It costs as much as
    /// [`order`](Self::order), with which it cannot be combined. [`Group::set_limit`](crate::stream::Group::set_limit)
    /// changes the number in all processes while they run.
    pub fn concurrency_per_key(mut self, limit: NonZeroU32) -> Self {
        self.options.concurrency_per_key = Some(limit);
        self
    }

    /// Jobs of the group that may run at once in all processes; by default there is no limit.
    ///
    /// A job that waits for its retry does not count. Jobs that the limit does not admit stay in the stream. It costs
    /// as much as [`order`](Self::order), with which it cannot be combined, and it is refused for a stream with
    /// several partitions. [`Group::set_limit`](crate::stream::Group::set_limit) changes the number in all processes
    /// while they run.
    pub fn concurrency_total(mut self, limit: NonZeroU32) -> Self {
        self.options.concurrency_total = Some(limit);
        self
    }

    /// Gives each key a fair share of the slots of all processes; by default jobs start in the order of the stream, so
    /// that a key with many events makes the other keys wait.
    ///
    /// The next job comes from the key that has the fewest jobs in flight; of several such keys, from the one that was
    /// served least recently. No slot stays free while a job waits. Events without a key have one share together. The
    /// stream is read ahead to find the keys, and jobs that cannot run yet wait in lines: at most 10,000 jobs or 64
    /// MiB. When the lines are full, keys further back in the stream wait too. It cannot be combined with the three
    /// limits.
    pub fn fair(mut self) -> Self {
        self.options.fair = Some(true);
        self
    }
}

impl HandlerOptions {
    /// Whether these options ask for a limit over all processes, or for fair shares. All of these count as one setting:
    /// options that set one of them replace all of them.
    pub(crate) fn has_limit(&self) -> bool {
        self.order.is_some()
            || self.concurrency_per_key.is_some()
            || self.concurrency_total.is_some()
            || self.fair.is_some()
    }
}

/// The limit that options ask for; an error if they ask for several.
pub(crate) fn limit(
    attribute: &HandlerOptions,
    group: &GroupOptions,
) -> Result<Option<HoldRule>, String> {
    let (over, one) = (&group.options, NonZeroU32::MIN);
    let options = if over.has_limit() { over } else { attribute };
    let rule = |scope, limit| HoldRule { scope, limit, blocks: false, is_order: false };
    let order = options.order.map(|order| HoldRule {
        blocks: order == KeyOrder::Block,
        is_order: true,
        ..rule(HoldScope::Key, one)
    });
    let per_key = options.concurrency_per_key.map(|limit| rule(HoldScope::Key, limit));
    let total = options.concurrency_total.map(|limit| rule(HoldScope::Group, limit));
    let fair = options.fair.filter(|fair| *fair);
    let fair = fair.map(|_| rule(HoldScope::Share, NonZeroU32::MAX));
    let asked = [
        ("order", order),
        ("concurrency_per_key", per_key),
        ("concurrency_total", total),
        ("fair", fair),
    ];
    let mut asked = asked.into_iter().filter_map(|(name, rule)| Some((name, rule?)));
    match (asked.next(), asked.next()) {
        (Some((one, _)), Some((other, _))) => Err(format!("{one} and {other} exclude each other")),
        (first, _) => Ok(first.map(|(_, rule)| rule)),
    }
}
