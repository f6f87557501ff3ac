//! The conditions that a stream or a group can be in when something is wrong: one table of words
//! for diagnosis, for alerts, and for the pages and commands that show them.

use std::fmt;

macro_rules! conditions {
    ($($(#[$docs:meta])* $condition:ident: $word:literal, $advice:literal;)*) => {
        /// What is wrong with a stream or a group.
        ///
        /// [`Diagnosis`](crate::stream::Diagnosis) finds a condition on request; an [`Alert`](crate::runtime::Alert)
        /// reports when a condition begins and when it is over. `Display` shows the word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Condition {
            $($(#[$docs])* $condition,)*
        }

        impl Condition {
            /// Every condition, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$condition),*];

            /// The word for programs and logs. It does not change between releases.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$condition => $word,)*
                }
            }

            /// What helps, as a sentence without a full stop.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Self::$condition => $advice,)*
                }
            }
        }
    };
}

conditions! {
    /// Many entries wait for the group.
    Backlog: "backlog", "add processes or raise the concurrency";
    /// Many entries are delivered and not acknowledged.
    Pending: "pending", "check that handlers finish, and that each entry's process is alive";
    /// The oldest entry has waited for a long time.
    OldestWaiting: "oldest_waiting",
        "add processes or raise the concurrency, and check the health of the processes";
    /// The oldest pending entry has not been renewed for a long time.
    OldestPending: "oldest_pending", "check the health of the process that owns the entry";
    /// This process claims many entries from processes that stopped renewing: they die or stall.
    Claims: "claims", "look for processes that crash, stall or lose their connection";
    /// Jobs were stored as dead letters.
    DeadLetters: "dead_letters", "read the dead letters, and redrive them when the cause is fixed";
    /// Jobs are snoozed until an operator has repaired something, such as a missing right.
    JobsBlocked: "jobs_blocked",
        "repair what the text names: the jobs wait, and run by themselves afterwards";
    /// The group was lost and recreated.
    GroupLost: "group_lost", "find out who deleted the group or flushed the server";
    /// Another client removed entries from the pending list while their jobs ran in this process.
    RemovedInFlight: "removed_in_flight",
        "find out who deletes consumers (XGROUP DELCONSUMER) or acknowledges for them";
    /// Entries were trimmed before they were delivered to the group.
    TrimmedUnread: "trimmed_unread",
        "raise the stream's retention, or use a retention that keeps what groups need";
    /// The group's cursor is beyond the end of the stream: nothing is delivered.
    CursorBeyond: "cursor_beyond", "move the group's cursor back to the last entry that it has done";
    /// No read of this process has succeeded in time.
    NoRead: "no_read", "check the server and the network between it and this process";
    /// A group keeps the stream from being trimmed to its history.
    TrimBlocked: "trim_blocked", "run the group's handlers, or remove the group";
    /// The stream is longer than its limit.
    StreamLength: "stream_length", "check that its groups keep up, or trim the stream";
    /// There is work, and no consumer is alive.
    Stalled: "stalled", "start a process with the group's handlers";
    /// Jobs wait whose event type no live process of the group declares.
    Unhandled: "unhandled",
        "start a process with a handler for these jobs before they become dead letters, or set `unhandled`";
    /// Some partitions of the stream do not have the group: no process of it reads them.
    PartitionsUnread: "partitions_unread",
        "restart the group's processes with the number of partitions that the stream has";
    /// The group is paused in every process.
    Paused: "paused", "resume the group to let its jobs run";
    /// A consumer died with pending entries.
    DeadConsumer: "dead_consumer",
        "wait: a live process claims the entries when their lease has expired";
    /// Entries are delivered and not acknowledged: the number of pending entries grows while few
    /// entries wait.
    NotAcknowledging: "not_acknowledging",
        "check the consumers that own the entries, which neither renew nor acknowledge";
    /// The oldest entry waits for too long, and nearly every slot is taken.
    TooFewConsumers: "too_few_consumers", "add processes or raise the concurrency";
    /// The oldest entry waits for too long although slots are free.
    NotReading: "not_reading", "check the health of the processes, which do not read";
    /// Jobs wait for their start because of the group's rate, or because a job has asked for a wait.
    RateLimited: "rate_limited",
        "wait: the jobs start when their time comes; raise the rate if the system that the jobs use allows more";
    /// Processes of the group have different rates.
    RatesDiffer: "rates_differ",
        "run one version of the program; until then, all processes with a rate use the rate of the process that started last";
    /// The oldest entry waits because of the group's limit over all processes.
    LimitReached: "limit_reached",
        "make the jobs faster, or raise the limit; jobs of a key with an order run one after the other";
    /// The oldest entry waits because other groups have the slots that it shares with them.
    SharedSlotsTaken: "shared_slots_taken",
        "make the jobs faster, give the set more slots, or give this group a larger weight";
    /// A consumer that is not of this crate takes running jobs before their leases have ended.
    ClaimedEarly: "claimed_early",
        "have the consumer claim with a minimum idle time of at least the longest lease of the group's processes";
    /// A large share of the attempts fails.
    Failing: "failing", "fix what the error says; if every job fails, look at what the jobs share";
    /// Jobs that failed wait for their next attempt.
    Retrying: "retrying", "fix what the error says; the retries run when they are due";
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_condition_has_a_word_of_its_own_and_advice() {
        let words =
            Condition::ALL.iter().map(|condition| condition.as_str()).collect::<HashSet<_>>();
        assert_eq!(words.len(), Condition::ALL.len());
        for condition in Condition::ALL {
            assert!(!condition.advice().is_empty() && !condition.advice().ends_with('.'));
        }
    }
}
