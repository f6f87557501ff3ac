//! What can be wrong with a group, with its figures, in words.

use std::fmt;
use std::time::Duration;

use crate::insight::condition::Condition;
use crate::insight::line_holder::LineHolder;
use crate::insight::phrase;
use crate::insight::severity::Severity;
use crate::model::entry::EntryId;
use crate::model::rate::Rate;

/// One thing that is wrong with a group: a [`Condition`] with its figures.
///
/// `Display` says what was found and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Entries were trimmed before they were delivered to the group.
    TrimmedUnread {
        /// How many.
        entries: u64,
    },
    /// The group's cursor is beyond the end of the stream: nothing is delivered.
    CursorBeyond {
        /// The cursor.
        cursor: EntryId,
        /// The stream's last id.
        last: EntryId,
    },
    /// There is work, and no consumer is alive.
    Stalled {
        /// Consumers whose heartbeat is missing.
        silent: usize,
    },
    /// Jobs wait whose event type no live process of the group declares.
    Unhandled {
        /// The event types, at most 20 of them.
        types: Vec<String>,
    },
    /// Some partitions do not have the group: no process of the group reads them, because the processes were told of
    /// fewer, or the group was lost there. Entries there are not in any figure.
    PartitionsUnread {
        /// How many.
        without_group: u16,
        /// How many partitions there are.
        partitions: u16,
    },
    /// The group is paused in every process.
    Paused {
        /// How long ago.
        paused: Duration,
        /// The number of partitions in which it is paused and the number of all partitions, if it
        /// is not paused in all.
        part: Option<(u16, u16)>,
    },
    /// A consumer died with pending entries.
    DeadConsumer {
        /// Its name.
        consumer: String,
        /// Its pending entries.
        pending: u64,
    },
    /// Entries are delivered and not acknowledged: the number of pending entries grows while few
    /// entries wait.
    NotAcknowledging {
        /// Pending entries.
        pending: u64,
        /// The idle time of the oldest pending entry.
        oldest: Duration,
    },
    /// The oldest entry waits for too long, and nearly every slot is taken.
    TooFewConsumers {
        /// Jobs in flight.
        in_flight: u64,
        /// Slots of all consumers that are alive.
        slots: u64,
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
    /// The oldest entry waits for too long although slots are free.
    NotReading {
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
    /// The oldest entry waits because of the rate of the group, or because a job has met a limit of the other
    /// side.
    RateLimited {
        /// The rate; `None` if the group has none, and waits for the other side.
        rate: Option<Rate>,
        /// How long until the next start.
        next: Duration,
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
    /// The oldest entry waits because of the group's limit over all processes: as many jobs run as the limit admits,
    /// or so many jobs wait for their key that the stream is not read further.
    LimitReached {
        /// The limit, in words.
        limits: String,
        /// Jobs that wait for their key.
        parked: u64,
        /// The key with the most waiting jobs, and their number.
        longest_line: Option<(String, u64)>,
        /// The job that has the place for which they wait; `None` if this was not looked up.
        holder: Option<LineHolder>,
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
    /// The oldest entry waits for a slot of the set that the group shares with others, which have nearly all of them.
    SharedSlotsTaken {
        /// The name of the set.
        set: String,
        /// Slots in use, over all processes of the group.
        in_use: u64,
        /// Slots of the set, over all processes of the group.
        slots: u64,
        /// How long the oldest entry has waited.
        oldest: Duration,
    },
    /// Processes of the group have different rates, or some have none: processes without a rate start jobs without a
    /// limit.
    RatesDiffer {
        /// Each rate, or `none`, with a consumer that has it.
        rates: Vec<(String, String)>,
    },
    /// A consumer that is not of this crate, and sends no heartbeat, took a running job within the last minutes
    /// although the job's lease had not ended: the job runs twice.
    ClaimedEarly {
        /// Its name.
        consumer: String,
    },
    /// At least five attempts, and one in twenty, failed within the last five minutes in the processes that are alive
    /// now. Processes of an older version do not report this, and are not counted.
    Failing {
        /// Attempts that failed.
        failed: u64,
        /// All attempts.
        attempts: u64,
        /// The error of a failed job, if such a job was found. It may quote a payload.
        error: Option<String>,
    },
    /// Jobs wait for a retry after a failure: at least one for every twenty attempts of the last five
    /// minutes.
    Retrying {
        /// How many jobs, including those that are due.
        jobs: u64,
        /// The last error of one of these jobs. It may quote a payload.
        error: Option<String>,
    },
    /// Jobs were stored as dead letters within the last hour, and are still there.
    DeadLetters {
        /// How many; 100 stands for 100 or more.
        letters: u64,
        /// The error of the last dead letter, or its reason. It may quote a payload.
        error: Option<String>,
    },
}

impl Problem {
    /// How severe it is: critical if jobs are lost or no job is done; otherwise a warning.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::TrimmedUnread { .. }
            | Self::CursorBeyond { .. }
            | Self::Stalled { .. }
            | Self::Unhandled { .. }
            | Self::PartitionsUnread { .. }
            | Self::NotAcknowledging { .. }
            | Self::NotReading { .. } => Severity::Critical,
            Self::RateLimited { .. } => Severity::Info,
            Self::Failing { failed, attempts, .. } if failed == attempts => Severity::Critical,
            Self::Failing { .. }
            | Self::Paused { .. }
            | Self::DeadConsumer { .. }
            | Self::TooFewConsumers { .. }
            | Self::ClaimedEarly { .. }
            | Self::LimitReached { .. }
            | Self::SharedSlotsTaken { .. }
            | Self::RatesDiffer { .. }
            | Self::Retrying { .. }
            | Self::DeadLetters { .. } => Severity::Warning,
        }
    }

    /// The same problem without the error of a job, for people who may not see payloads.
    #[must_use]
    pub fn without_error(&self) -> Self {
        let mut problem = self.clone();
        if let Self::Failing { error, .. }
        | Self::Retrying { error, .. }
        | Self::DeadLetters { error, .. } = &mut problem
        {
            *error = None;
        }
        problem
    }

    /// The condition, with its word for programs and its advice.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self {
            Self::TrimmedUnread { .. } => Condition::TrimmedUnread,
            Self::CursorBeyond { .. } => Condition::CursorBeyond,
            Self::Stalled { .. } => Condition::Stalled,
            Self::Unhandled { .. } => Condition::Unhandled,
            Self::PartitionsUnread { .. } => Condition::PartitionsUnread,
            Self::Paused { .. } => Condition::Paused,
            Self::DeadConsumer { .. } => Condition::DeadConsumer,
            Self::NotAcknowledging { .. } => Condition::NotAcknowledging,
            Self::TooFewConsumers { .. } => Condition::TooFewConsumers,
            Self::NotReading { .. } => Condition::NotReading,
            Self::RateLimited { .. } => Condition::RateLimited,
            Self::LimitReached { .. } => Condition::LimitReached,
            Self::SharedSlotsTaken { .. } => Condition::SharedSlotsTaken,
            Self::RatesDiffer { .. } => Condition::RatesDiffer,
            Self::ClaimedEarly { .. } => Condition::ClaimedEarly,
            Self::Failing { .. } => Condition::Failing,
            Self::Retrying { .. } => Condition::Retrying,
            Self::DeadLetters { .. } => Condition::DeadLetters,
        }
    }

    /// The word of its [condition](Self::condition).
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.condition().as_str()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimmedUnread { entries } => f.write_str(&phrase::trimmed_unread(*entries))?,
            Self::CursorBeyond { cursor, last } => {
                f.write_str(&phrase::cursor_beyond(*cursor, *last))?;
            }
            Self::Stalled { silent: 0 } => {
                f.write_str("work waits and the group has no consumer")?
            }
            Self::Stalled { silent } => {
                write!(f, "work waits and all consumers of the group ({silent}) are dead")?;
            }
            Self::Unhandled { types } => f.write_str(&phrase::unhandled(types))?,
            Self::PartitionsUnread { without_group, partitions } => {
                write!(f, "{without_group} of {partitions} partitions do not have the group")?;
            }
            Self::Paused { paused, part } => {
                write!(f, "paused for {} s", paused.as_secs())?;
                if let Some((some, all)) = part {
                    write!(f, " in {some} of {all} partitions")?;
                }
            }
            Self::DeadConsumer { consumer, pending } => {
                write!(f, "consumer {consumer} died with {pending} pending entries")?;
            }
            Self::NotAcknowledging { pending, oldest } => {
                let (pending, oldest) =
                    (phrase::pending(*pending), phrase::oldest_pending(*oldest));
                write!(f, "{pending}; {oldest}")?;
            }
            Self::TooFewConsumers { in_flight, slots, oldest } => {
                let oldest = phrase::oldest_waiting(*oldest);
                write!(f, "{oldest} while {in_flight} of {slots} slots are taken")?;
            }
            Self::NotReading { oldest } => {
                write!(f, "{} although slots are free", phrase::oldest_waiting(*oldest))?;
            }
            Self::RateLimited { rate, next, oldest } => {
                let next = phrase::next_start(*rate, *next);
                write!(f, "{next}; {}", phrase::oldest_waiting(*oldest))?;
            }
            Self::LimitReached { limits, parked, longest_line, holder, oldest } => {
                let line = longest_line.as_ref().map(|line| (line, holder.as_ref()));
                let reached = phrase::limit_reached(limits, *parked, line);
                write!(f, "{reached}; {}", phrase::oldest_waiting(*oldest))?;
            }
            Self::SharedSlotsTaken { set, in_use, slots, oldest } => {
                let oldest = phrase::oldest_waiting(*oldest);
                write!(f, "{oldest} for a slot of the set {set}: {in_use} of {slots} in use")?;
            }
            Self::RatesDiffer { rates } => f.write_str(&phrase::rates_differ(rates))?,
            Self::ClaimedEarly { consumer } => f.write_str(&phrase::claimed_early(consumer))?,
            Self::Failing { failed, attempts, .. } => {
                f.write_str(&phrase::failing(*failed, *attempts))?;
            }
            Self::Retrying { jobs, .. } => f.write_str(&phrase::retrying(*jobs))?,
            Self::DeadLetters { letters, .. } => {
                f.write_str(&phrase::new_dead_letters(*letters))?;
            }
        }
        if let Self::Failing { error, .. }
        | Self::Retrying { error, .. }
        | Self::DeadLetters { error, .. } = self
        {
            f.write_str(&phrase::last_error(error.as_deref()))?;
        }
        write!(f, "; {}", self.condition().advice())
    }
}
