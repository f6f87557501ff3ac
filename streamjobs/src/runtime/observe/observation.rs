//! What observers are told about one attempt.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::handler::ConsumerIdentity;
use crate::model::entry::{Delivery, EntryId};
use crate::model::event::Envelope;
use crate::model::name::{ConsumerName, EventId, GroupName, StreamName};
use crate::model::policy::Reason;
use crate::runtime::state::HandledBy;

/// What became of one attempt at a job, for [`RuntimeBuilder::observe`](crate::RuntimeBuilder::observe).
///
/// It has no payload.
#[derive(Clone)]
pub struct Observation {
    identity: Arc<ConsumerIdentity>,
    entry_id: EntryId,
    event_id: EventId,
    event_type: Option<Box<str>>,
    handled_by: Option<HandledBy>,
    attempt: u32,
    delivery_count: u64,
    what: Observed,
}

/// What observers are told about an attempt. Variants may be added.
///
/// For an attempt that has started, at most one end is reported: `Done`, `Failed`, `Snoozed`, `DeadLettered`,
/// `Cancelled`, `Released` or `Lost`. No end is reported when the process dies, or when a shutdown gives up before
/// the server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observed {
    /// The handler is about to run.
    Started,
    /// The job is done, and the server has confirmed its acknowledgement.
    Done,
    /// The attempt failed, and the server has stored the retry.
    Failed {
        /// The error with its causes, at most 4 KiB.
        error: String,
        /// The delay before the retry.
        retry_in: Duration,
        /// About when the retry is due, by the server's clock.
        retry_at: SystemTime,
    },
    /// The handler asked to be tried again later, and the server has stored the retry. No failure was
    /// counted.
    Snoozed {
        /// Why, at most 4 KiB.
        error: String,
        /// The delay before the retry.
        retry_in: Duration,
        /// About when the retry is due, by the server's clock.
        retry_at: SystemTime,
    },
    /// The server has stored the job as a dead letter. The attempt may not have started: an entry that was
    /// delivered too often, that expired or that has no handler is not run.
    DeadLettered {
        /// Why.
        reason: Reason,
        /// The last error, at most 4 KiB.
        error: Option<String>,
    },
    /// The job was cancelled, and the server has stored it as a dead letter.
    Cancelled {
        /// The last error, at most 4 KiB.
        error: Option<String>,
    },
    /// The server has released the job, uncounted, for any process to run, because this process stops.
    Released,
    /// This process does not have the attempt any more: its lease was lost, or its entry was taken over or
    /// removed. Another process runs the job, or has run it.
    Lost {
        /// How this was noticed.
        why: &'static str,
    },
}

/// The attempt that an observation is about, in the form that loops have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) delivery: &'a Delivery,
    pub(crate) envelope: &'a Envelope,
    /// `None` if the process has no handler for the job.
    pub(crate) handled_by: Option<HandledBy>,
}

impl Observation {
    pub(crate) fn new(
        identity: &Arc<ConsumerIdentity>,
        subject: Subject<'_>,
        what: Observed,
    ) -> Self {
        let Subject { delivery, envelope, handled_by } = subject;
        Self {
            identity: Arc::clone(identity),
            entry_id: delivery.entry.id(),
            event_id: envelope.event_id.clone(),
            event_type: delivery.entry.event_type().map(Into::into),
            handled_by,
            attempt: envelope.failures.saturating_add(1),
            delivery_count: delivery.delivery_count,
            what,
        }
    }

    /// What happened.
    #[must_use]
    pub fn what(&self) -> &Observed {
        &self.what
    }

    /// The error, if the attempt ended with one: in a failure, a dead letter or a cancelled job. A snoozed attempt
    /// has no such error.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match &self.what {
            Observed::Failed { error, .. } => Some(error),
            Observed::DeadLettered { error, .. } | Observed::Cancelled { error } => {
                error.as_deref()
            }
            _ => None,
        }
    }

    /// The stream, or its partition.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        &self.identity.queue.stream
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.identity.queue.group
    }

    /// The consumer that had the entry.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.identity.consumer
    }

    /// The id of the entry. It changes with each retry and redrive.
    #[must_use]
    pub fn entry_id(&self) -> EntryId {
        self.entry_id
    }

    /// The event id: the same for every delivery, retry and redrive.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// The event type; `None` if the entry has no type that can be read.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    /// The name of the handler's function; `None` if this process has no handler for the event type.
    #[must_use]
    pub fn handler(&self) -> Option<&'static str> {
        self.handled_by.map(|handled_by| handled_by.handler.name)
    }

    /// The handler's place in the source: function, file and line.
    #[must_use]
    pub fn handler_location(&self) -> Option<String> {
        self.handled_by.map(|handled_by| handled_by.handler.location())
    }

    /// The number of the attempt, from 1, like [`Job::attempt`](crate::Job::attempt).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many attempts the job has; `None` if this process has no handler for it.
    #[must_use]
    pub fn attempts_max(&self) -> Option<u32> {
        self.handled_by.map(|handled_by| handled_by.attempts_max)
    }

    /// How often the server had delivered the entry.
    #[must_use]
    pub fn delivery_count(&self) -> u64 {
        self.delivery_count
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observation")
            .field("stream", self.stream())
            .field("group", self.group())
            .field("entry_id", &self.entry_id)
            .field("event_id", &self.event_id)
            .field("handler", &self.handler())
            .field("attempt", &self.attempt)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}
