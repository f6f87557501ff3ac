//! Arguments of `streamjobs unique ...`.

use std::error::Error;

use clap::{Args, Subcommand};
use streamjobs::unique::UniqueDigest;
use streamjobs::{EventId, StreamName};

use super::Consent;
use super::values::{event_id, stream};

/// Show unique events that still refuse equal events, and end their locks.
#[derive(Debug, Subcommand)]
pub(crate) enum Unique {
    /// Show the unique event because of which equal events are refused.
    #[command(after_help = "\
Exits with 3 if there is no such event.

Example:
  streamjobs unique show orders customer-7 --type import.requested")]
    Show(UniqueKey),
    Release(UniqueRelease),
}

impl Unique {
    /// The stream that the command is about.
    pub(super) fn stream(&self) -> &StreamName {
        match self {
            Self::Show(key) => &key.stream,
            Self::Release(command) => &command.key.stream,
        }
    }
}

/// End the lock of a unique event, so that an equal event can be published; its jobs go on.
#[derive(Args, Debug)]
#[command(after_help = "\
If its job still runs, the job of an equal event can run beside it. Exits with 3 if there is no such event.

Example:
  streamjobs unique release orders customer-7 --type import.requested --yes")]
pub(crate) struct UniqueRelease {
    #[command(flatten)]
    pub(crate) key: UniqueKey,
    /// Only if the lock belongs to this event.
    #[arg(long, value_name = "ID", value_parser = event_id)]
    pub(crate) event: Option<EventId>,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Which events count as the same.
#[derive(Args, Debug)]
pub(crate) struct UniqueKey {
    /// The stream.
    #[arg(value_parser = stream)]
    pub(crate) stream: StreamName,
    /// A digest of 64 characters, or with `--type` the key for uniqueness that publishers give.
    key: String,
    /// The event type, if a key is given.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// The events' own key, if a key is given and the events have one.
    #[arg(long, value_name = "KEY", requires = "event_type")]
    event_key: Option<String>,
}

impl UniqueKey {
    /// The digest.
    pub(crate) fn digest(&self) -> Result<UniqueDigest, Box<dyn Error + Send + Sync>> {
        match &self.event_type {
            Some(event_type) => {
                let event_key = self.event_key.as_deref();
                Ok(UniqueDigest::of_key(event_type, event_key, &self.key)?)
            }
            None => {
                let digest = self.key.parse::<UniqueDigest>();
                Ok(digest.map_err(|error| format!("{error}; give --type for a key"))?)
            }
        }
    }
}
