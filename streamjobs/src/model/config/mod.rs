#![doc = include_str!("../../../docs/config.md")]

mod alerts;
mod batch;
mod connection;
mod fallback;
mod keep_done;
mod limits;
mod runtime;
mod slot_set;
#[cfg(feature = "tls")]
mod tls;

pub use self::alerts::AlertRules;
pub use self::batch::BatchOptions;
pub use self::connection::Credentials;
pub(crate) use self::connection::{ConnectionOptions, CredentialsProvider};
pub use self::limits::KeyOrder;
pub(crate) use self::limits::limit;
pub(crate) use self::runtime::RuntimeConfig;
pub(crate) use self::slot_set::{SetMembership, SlotSets};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use self::tls::TlsOptions;

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::backoff::Backoff;
use crate::model::cause::shown;
use crate::model::done::KeepDone;
use crate::model::entry::EntryId;
use crate::model::limit::HoldRule;
use crate::model::rate::Rate;

/// Where a new group begins. An existing group keeps its position.
///
/// Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first entry of the stream (the default), so that events published before the first
    /// start are handled.
    #[default]
    Beginning,
    /// After the last entry: only events published after the first start are handled.
    End,
    /// After the entry with this id. If the stream, or a partition, ends before it, the group begins at that end.
    After(EntryId),
}

/// What happens to an event type for which a group has no handler.
///
/// Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unhandled {
    /// The entry is acknowledged and counted: the job is dropped, even if, in a rolling deploy, another process of the
    /// group has the handler. It is for groups that need only some of a stream's event types.
    Acknowledge,
    /// The job becomes a dead letter at once, even if another process of the group has the handler.
    DeadLetter,
    /// The job waits for a process of the group that has the handler (the default), which may start
    /// during a rolling deploy. It is offered again after about 1 s while a live process declares the
    /// type, or else after about 10 s; that counts neither as a failure nor towards
    /// `max_deliveries`. It becomes a dead letter when no live process has declared the type for
    /// [`unhandled_after`](GroupOptions::unhandled_after).
    ///
    /// A handler that takes every entry of its stream declares all types. A process of a version that does not write
    /// its types may have a handler for any type, so jobs wait as long as such a process lives. An entry of more than
    /// 1,000 fields cannot wait in this way: it stays pending until its lease has expired, and becomes a dead letter
    /// after `max_deliveries`.
    #[default]
    Leave,
}

/// How long a stream keeps its entries.
///
/// Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// About this many entries, trimmed by running runtimes; an entry that a group has not
    /// acknowledged is never trimmed. The default, with 10,000 entries.
    History(NonZeroU64),
    /// About this many entries, trimmed at every append. Entries beyond this number are removed even if they were not
    /// handled; such losses are reported.
    MaxLen(NonZeroU64),
    /// Exactly this many entries, trimmed at every append: slower than [`Retention::MaxLen`], with
    /// the same losses.
    MaxLenExact(NonZeroU64),
    /// Entries older than this by the server's clock are removed by running runtimes, even if they
    /// were not handled; such losses are reported.
    MaxAge(Duration),
    /// Every entry is kept; the server's memory is the limit.
    Unlimited,
}

impl Default for Retention {
    fn default() -> Self {
        Self::History(HISTORY)
    }
}

/// The options of a `#[handler]`; `None` means the default of [`GroupOptions`].
#[derive(Clone, Copy, Debug, Default)]
pub struct HandlerOptions {
    /// Jobs of the group that may run at once in this process.
    pub concurrency: Option<NonZeroU32>,
    /// Recorded failures after which a job becomes a dead letter.
    pub max_attempts: Option<NonZeroU32>,
    /// Deliveries of one entry after which it becomes a dead letter without being run again.
    pub max_deliveries: Option<NonZeroU32>,
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
    /// How long after its event was published a job may begin.
    pub expires: Option<Duration>,
    /// The delay after a failed attempt.
    pub backoff: Option<Backoff>,
    /// How long a process that stops renewing keeps its entries.
    pub lease: Option<Duration>,
    /// Where a new group begins.
    pub start: Option<Start>,
    /// What happens to event types for which the group has no handler.
    pub unhandled: Option<Unhandled>,
    /// The jobs of a type become dead letters when no live process has declared the type for this
    /// long.
    pub unhandled_after: Option<Duration>,
    /// Whether jobs of one key run one after the other, over all processes.
    pub order: Option<KeyOrder>,
    /// `Some(true)` gives the keys fair shares of the slots.
    pub fair: Option<bool>,
    /// Jobs of one key that may run at once in all processes.
    pub concurrency_per_key: Option<NonZeroU32>,
    /// Jobs of the group that may run at once in all processes.
    pub concurrency_total: Option<NonZeroU32>,
    /// How many jobs of the group may start in a period, over all processes.
    pub rate: Option<Rate>,
    /// How long notes of jobs that are done are kept.
    pub keep_done: Option<Duration>,
    /// How many of these notes are kept at most.
    pub keep_done_max: Option<NonZeroU32>,
    /// The set of shared slots that the group takes its slots from.
    pub slots: Option<&'static str>,
    /// How many starts it has there for one of a weight of 1.
    pub weight: Option<NonZeroU32>,
}

/// Settings of one group or of all groups. With [`RuntimeBuilder::group`](crate::RuntimeBuilder::group) they override
/// the handlers' attributes; with [`group_defaults`](crate::RuntimeBuilder::group_defaults) and
/// [`defaults`](crate::RuntimeBuilder::defaults) they apply where an attribute sets no value.
///
/// A setting that is set nowhere has the default given below.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct GroupOptions {
    pub(crate) options: HandlerOptions,
}

impl GroupOptions {
    /// Settings that override nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Jobs of the group that may run at once in this process, for each stream: 16 by default, or all of the slots
    /// that it [shares](Self::slots).
    ///
    /// With too many, jobs wait for each other; with too few, entries wait.
    pub fn concurrency(mut self, concurrency: NonZeroU32) -> Self {
        self.options.concurrency = Some(concurrency);
        self
    }

    /// Recorded failures after which a job becomes a dead letter: 5 by default.
    pub fn max_attempts(mut self, max_attempts: NonZeroU32) -> Self {
        self.options.max_attempts = Some(max_attempts);
        self
    }

    /// Deliveries of one entry, crashes included, after which it becomes a dead letter without
    /// being run again: 5 by default.
    pub fn max_deliveries(mut self, max_deliveries: NonZeroU32) -> Self {
        self.options.max_deliveries = Some(max_deliveries);
        self
    }

    /// How long one attempt may run; by default there is no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How long after its event was published a job may begin, 1 s to 365 days; by default there is no limit.
    ///
    /// A job that has not begun by then does not run: it becomes a dead letter with the reason
    /// [`Expired`](crate::dead_letter::Reason::Expired). Retries of a job that began in time still run, and an
    /// attempt that runs is not ended. The time is measured by the server's clock from when the event entered its
    /// stream; for a redriven dead letter, from its redrive. A job that a stop cut off counts as begun. A job
    /// that is delivered again after a crash counts as not begun.
    ///
    /// Too short a time turns a backlog into dead letters, for example after an outage of all
    /// processes.
    pub fn expires(mut self, expires: Duration) -> Self {
        self.options.expires = Some(expires);
        self
    }

    /// The delay after a failed attempt: exponential from 1 s to 10 min by default.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.options.backoff = Some(backoff);
        self
    }

    /// How long a process that stops renewing keeps its entries: 10 s by default, 60 ms to 24 h.
    ///
    /// Entries in flight are renewed at a third of the lease, so handlers may run for any time. A
    /// short lease recovers the jobs of dead processes sooner and costs the server more requests; a
    /// lease shorter than the pauses of your processes makes jobs run twice.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = Some(lease);
        self
    }

    /// Where a new group begins: at the first entry of the stream by default.
    pub fn start(mut self, start: Start) -> Self {
        self.options.start = Some(start);
        self
    }

    /// What happens to event types without a handler: by default, their jobs are left for a process that has one.
    pub fn unhandled(mut self, unhandled: Unhandled) -> Self {
        self.options.unhandled = Some(unhandled);
        self
    }

    /// With [`Unhandled::Leave`], the jobs of an event type become dead letters when no live
    /// process of the group has declared the type for this long: 10 min by default, 1 s to 30 days.
    ///
    /// The time is measured by the server's clock, from the last declaration, or from when a process first met the type
    /// if no process has declared it. The time keeps running while processes restart. Too short a time makes dead
    /// letters during a deploy whose publishers start before its handlers; with too long a time, jobs that no process
    /// will ever run keep waiting, each offered again every 10 s.
    pub fn unhandled_after(mut self, unhandled_after: Duration) -> Self {
        self.options.unhandled_after = Some(unhandled_after);
        self
    }

    /// How many jobs of the group may start in a period, over all processes; by default there is no limit.
    ///
    /// Jobs that wait stay in the stream, and count neither as failures nor as deliveries. If the group reads several
    /// streams, each has this rate; the partitions of one stream share it. Where processes have different rates, the
    /// rate of the process that started last applies to all of them. See `docs/rate.md`.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.options.rate = Some(rate);
        self
    }
}

/// The limits of one handler's attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct JobLimits {
    pub(crate) max_attempts: u32,
    pub(crate) max_deliveries: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) backoff: Backoff,
}

impl JobLimits {
    pub(crate) fn new(attribute: &HandlerOptions, group: &GroupOptions) -> Self {
        let over = &group.options;
        let attempts = over.max_attempts.or(attribute.max_attempts);
        let deliveries = over.max_deliveries.or(attribute.max_deliveries);
        Self {
            max_attempts: attempts.map_or(ATTEMPTS_MAX, NonZeroU32::get),
            max_deliveries: deliveries.map_or(DELIVERIES_MAX, NonZeroU32::get),
            timeout: over.timeout.or(attribute.timeout),
            expires: over.expires.or(attribute.expires),
            backoff: over.backoff.or(attribute.backoff).unwrap_or_default(),
        }
    }

    /// What is wrong with the limits of a handler at this place.
    pub(crate) fn fault(&self, place: &str) -> Option<String> {
        let expires = self.expires.filter(|expires| !EXPIRES.contains(expires))?;
        let ([min, max], expires) =
            ([EXPIRES.start(), EXPIRES.end()].map(|end| shown(*end)), shown(expires));
        Some(format!("{place}: expires {expires} is not between {min} and {max}"))
    }
}

/// How this process works on one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QueueConfig {
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
    pub(crate) block: Duration,
    pub(crate) start: Start,
    pub(crate) unhandled: Unhandled,
    pub(crate) unhandled_after: Duration,
    pub(crate) max_deliveries: u32,
    /// The limit over all processes.
    pub(crate) limit: Option<HoldRule>,
    pub(crate) rate: Option<Rate>,
    /// Whether jobs that are done are noted.
    pub(crate) keep_done: Option<KeepDone>,
    /// The set of slots that it shares with other queues, if its slots are not its own.
    pub(crate) slot_set: Option<SetMembership>,
}

impl QueueConfig {
    /// Combines the attribute of a queue's handlers with the builder's settings.
    pub(crate) fn new(attribute: &HandlerOptions, group: &GroupOptions, block: Duration) -> Self {
        let over = &group.options;
        let concurrency = over.concurrency.or(attribute.concurrency).unwrap_or(CONCURRENCY);
        let lease = over.lease.or(attribute.lease).unwrap_or(LEASE);
        let unhandled_after = over.unhandled_after.or(attribute.unhandled_after);
        Self {
            concurrency: slots_of(concurrency),
            lease,
            // A read may wait for a third of the lease, so that an entry which arrives at the end of
            // a wait is still fresh when its renewal is due.
            block: block.min(lease / 3),
            start: over.start.or(attribute.start).unwrap_or_default(),
            unhandled: over.unhandled.or(attribute.unhandled).unwrap_or_default(),
            unhandled_after: unhandled_after.unwrap_or(UNHANDLED_AFTER),
            max_deliveries: JobLimits::new(attribute, group).max_deliveries,
            limit: limits::limit(attribute, group).unwrap_or_default(),
            rate: over.rate.or(attribute.rate),
            keep_done: keep_done::keep_done(attribute, group),
            slot_set: None,
        }
    }

    /// The same with slots from one of these sets, if the options name one: all of it, unless they say less.
    pub(crate) fn with_slots(self, sets: &SlotSets, options: &HandlerOptions) -> Self {
        let slot_set = sets.membership(options);
        let all = slot_set.filter(|_| options.concurrency.is_none()).map(|set| set.size);
        Self { concurrency: all.unwrap_or(self.concurrency), slot_set, ..self }
    }

    /// The age of the last renewal at which an entry is renewed. An entry whose renewal is a quarter
    /// of a lease old would be older than a third at the next check.
    pub(crate) fn renewal_age(&self) -> Duration {
        self.lease / 4
    }

    /// How long after the last renewal an attempt counts as having lost its lease.
    pub(crate) fn fence(&self) -> Duration {
        self.lease / 6 * 5
    }

    /// How long an attempt has between the cancellation of its token and the drop of its future.
    /// Together with the fence and the interval of the checks (a twenty-fourth of the lease), this
    /// adds up to at most one lease.
    pub(crate) fn window(&self) -> Duration {
        (self.lease / 8).min(WINDOW_MAX)
    }

    /// What is wrong with the settings.
    pub(crate) fn faults(&self, place: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut within = |name: &str, value: Duration, min: Duration, max: Duration| {
            if value < min || value > max {
                let (value, min, max) = (shown(value), shown(min), shown(max));
                faults.push(format!("{place}: {name} {value} is not between {min} and {max}"));
            }
        };
        let after = self.unhandled_after;
        within("lease", self.lease, LEASE_MIN, LEASE_MAX);
        within("unhandled_after", after, UNHANDLED_AFTER_MIN, UNHANDLED_AFTER_MAX);
        let fault = self.rate.and_then(|rate| rate.check().err());
        faults.extend(fault.map(|fault| format!("{place}: {fault}")));
        let done = self.keep_done.map(|keep| keep.faults()).into_iter().flatten();
        faults.extend(done.map(|fault| format!("{place}: {fault}")));
        faults
    }
}

/// The number of slots for a concurrency.
pub(crate) fn slots_of(concurrency: NonZeroU32) -> usize {
    usize::try_from(concurrency.get()).unwrap_or(usize::MAX).min(CONCURRENCY_MAX)
}

const HISTORY: NonZeroU64 = NonZeroU64::new(10_000).unwrap();
const CONCURRENCY: NonZeroU32 = NonZeroU32::new(16).unwrap();
/// The most slots of one queue in one process. Work that needs more slots needs more processes.
const CONCURRENCY_MAX: usize = 100_000;
const ATTEMPTS_MAX: u32 = 5;
const DELIVERIES_MAX: u32 = 5;
/// The default lease.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
const LEASE_MIN: Duration = Duration::from_millis(60);
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const UNHANDLED_AFTER: Duration = Duration::from_secs(10 * 60);
const EXPIRES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);
const UNHANDLED_AFTER_MIN: Duration = Duration::from_secs(1);
const UNHANDLED_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The longest time to clean up after a cancellation. It can be this short, because a handler that needs longer could
/// already use the grace period.
const WINDOW_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_overrides_the_attribute_and_the_attribute_the_default() {
        let attribute = HandlerOptions {
            concurrency: NonZeroU32::new(4),
            max_attempts: NonZeroU32::new(2),
            ..HandlerOptions::default()
        };
        let group = GroupOptions::new().concurrency(NonZeroU32::new(8).unwrap());
        let config = QueueConfig::new(&attribute, &group, Duration::from_secs(2));
        assert_eq!((config.concurrency, config.lease), (8, LEASE));
        let limits = JobLimits::new(&attribute, &group);
        assert_eq!((limits.max_attempts, limits.max_deliveries), (2, DELIVERIES_MAX));
    }

    #[test]
    fn a_read_never_waits_longer_than_a_third_of_the_lease() {
        let group = GroupOptions::new().lease(Duration::from_millis(300));
        let config = QueueConfig::new(&HandlerOptions::default(), &group, Duration::from_secs(2));
        assert_eq!(config.block, Duration::from_millis(100));
        assert!(
            config.fence() > config.lease / 2
                && config.fence() + config.lease / 24 + config.window() <= config.lease
        );
    }

    #[test]
    fn all_faults_are_listed_at_once_and_name_their_values() {
        let config = RuntimeConfig {
            block: Duration::ZERO,
            read_margin: Duration::ZERO,
            ..RuntimeConfig::default()
        };
        let faults = config.faults();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[1].contains("read_deadline 0ns is not between 100ms"), "{faults:?}");
        let short = GroupOptions::new().lease(Duration::from_millis(1));
        let queue = QueueConfig::new(&HandlerOptions::default(), &short, Duration::from_secs(2));
        assert!(
            queue.faults("group mail on orders")[0].contains("group mail on orders: lease 1ms")
        );
        let never = GroupOptions::new().unhandled_after(Duration::ZERO);
        let queue = QueueConfig::new(&HandlerOptions::default(), &never, Duration::from_secs(2));
        let faults = queue.faults("group mail on orders");
        assert!(faults[0].contains("unhandled_after 0ns is not between 1s and"), "{faults:?}");
        let (one, year) = (NonZeroU32::MIN, Duration::from_secs(365 * 86_400));
        let absurd = GroupOptions::new().rate(Rate::new(one, year));
        let queue = QueueConfig::new(&HandlerOptions::default(), &absurd, Duration::from_secs(2));
        let faults = queue.faults("group mail on orders");
        assert!(faults[0].contains("group mail on orders: the time of a rate is 1ms to 30d"));
        for (seconds, fault) in [(0, true), (1, false), (366 * 86_400, true)] {
            let options = GroupOptions::new().expires(Duration::from_secs(seconds));
            let fault_found = JobLimits::new(&HandlerOptions::default(), &options).fault("mail");
            assert_eq!(fault_found.is_some(), fault, "{fault_found:?}");
        }
    }
}
