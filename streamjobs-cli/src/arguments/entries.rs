//! What can be done with pending entries and with those who have them.

use clap::{Args, Subcommand};
use streamjobs::{ConsumerName, EntryId};

use super::values::consumer;
use super::{Consent, Queue};

#[derive(Debug, Subcommand)]
pub(crate) enum Entries {
    Claim(Claim),
    /// Make pending entries look abandoned, so that any process takes them up at once.
    #[command(after_help = "\
An entry that a handler is at work on may be done twice. Ends with 3 without --yes, and if some entry
is not pending.

Example:
  streamjobs release orders billing 1764000000000-0 --yes")]
    Release(Chosen),
    /// Acknowledge pending entries by hand, whoever has them: they count as done.
    #[command(after_help = "\
Ends with 3 without --yes, and if some entry is not pending.

Example:
  streamjobs acknowledge orders billing 1764000000000-0 --yes")]
    Acknowledge(Chosen),
    HandOver(HandOver),
    RemoveConsumer(RemoveConsumer),
    /// Ask every process of a group to take up abandoned entries now.
    #[command(after_help = "\
Example:
  streamjobs reap orders billing")]
    Reap(Queue),
    /// Pause a group in every process: running jobs end, and nothing new starts.
    #[command(after_help = "\
It takes effect within half a second, or three where there was nothing to do, unless processes say
otherwise, and holds for processes that start later, until it is resumed.

Example:
  streamjobs pause orders billing")]
    Pause(Queue),
    /// End the pause of a group in every process.
    #[command(after_help = "\
Example:
  streamjobs resume orders billing")]
    Resume(Queue),
}

/// Give pending entries to a consumer, whoever has them; no delivery count is raised.
#[derive(Args, Debug)]
#[command(after_help = "\
Ends with 3 without --yes, and if some entry is not pending.

Example:
  streamjobs claim orders billing web-1 1764000000000-0 --yes")]
pub(crate) struct Claim {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The consumer that gets them.
    #[arg(value_parser = consumer)]
    pub(crate) consumer: ConsumerName,
    /// The entries' ids.
    #[arg(required = true)]
    pub(crate) ids: Vec<EntryId>,
    /// Entries of the group's lane, where retries and redriven jobs are, instead of the stream's.
    #[arg(long)]
    pub(crate) lane: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Pending entries of a group.
#[derive(Args, Debug)]
pub(crate) struct Chosen {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The entries' ids.
    #[arg(required = true)]
    pub(crate) ids: Vec<EntryId>,
    /// Entries of the group's lane, where retries and redriven jobs are, instead of the stream's.
    #[arg(long)]
    pub(crate) lane: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Give all that is pending for one consumer to another; stop the first one's process before.
#[derive(Args, Debug)]
#[command(after_help = "\
Ends with 3 without --yes, and if some entry's payload was trimmed away.

Example:
  streamjobs hand-over orders billing web-1 web-2 --yes")]
pub(crate) struct HandOver {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The consumer that has them.
    #[arg(value_parser = consumer)]
    pub(crate) from: ConsumerName,
    /// The consumer that gets them.
    #[arg(value_parser = consumer)]
    pub(crate) to: ConsumerName,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Remove a consumer; what is pending for it is for any process to take up at once.
#[derive(Args, Debug)]
#[command(after_help = "\
Ends with 3 without --yes, if the consumer keeps getting entries, and if some entry's payload was
trimmed away.

Example:
  streamjobs remove-consumer orders billing web-1 --yes")]
pub(crate) struct RemoveConsumer {
    #[command(flatten)]
    pub(crate) queue: Queue,
    /// The consumer.
    #[arg(value_parser = consumer)]
    pub(crate) consumer: ConsumerName,
    #[command(flatten)]
    pub(crate) consent: Consent,
}
