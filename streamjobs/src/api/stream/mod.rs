//! Streams and groups: their state, the history of a stream, pending entries, retries and trimming.
//!
//! ```no_run
//! # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let orders = client.stream("orders")?;
//! for group in orders.groups().await? {
//!     println!("{}: backlog {}, pending {}", group.group, group.backlog, group.pending);
//! }
//! let mut replay = orders.replay(..);
//! while let Some(entry) = replay.next().await {
//!     println!("{:?}", entry?.id());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every call is bounded in time and size, and fails within 8 seconds when the server cannot be
//! reached; a value that could not be read is never shown as zero. Reading does not change the state of
//! a group.
//!
//! # Partitions
//!
//! A handle to a stream that is spread over [partitions](crate::ClientBuilder::partitions) shows and changes the
//! whole stream: figures are sums, rows of all partitions come in the order of their ids, and a change to a group is
//! made in each partition. [`Stream::partitions`] gives a handle to each of them.
//!
//! Ids are unique within one partition only. So each row has an [`EntryAddress`], its id with the number of the
//! partition, and calls that act on one row take that address. An id alone is enough where only one partition has it.
//! Requests go to 16 partitions at a time. An error names the partition, by its stream. Reading ends with the first
//! error. A change is tried in all partitions, unless a check refused it before; [`Group::create`] ends if the first one
//! fails. If a node does not answer, every 16 of its partitions take the time of one request.

mod cancel;
mod error;
mod event;
mod event_job;
mod finished;
mod group;
mod handle;
mod limit;
mod moving;
mod part;
mod pending;
mod preview;
mod range;
mod rate;
mod replay;
mod result;
mod retries;
mod scheduled;
mod search;
mod tail;
mod trend;
mod trim;

pub use self::cancel::{Cancellation, CancelledEvent};
pub use self::error::StreamError;
pub use self::event::EventReport;
pub use self::event_job::{JobReport, JobState, KeptResult};
pub use self::finished::{FinishedPage, FinishedQuery};
pub use self::group::Group;
pub use self::handle::Stream;
pub use self::moving::HandedOver;
pub use self::pending::{PendingPage, PendingQuery};
pub use self::preview::PreviewPage;
pub use self::range::{Position, Range};
pub use self::replay::{Replay, ReplayEvents};
pub use self::result::{DeadJob, JobResult, ResultOf};
pub use self::retries::{RetryCursor, RetryId, RetryIdError, RetryPage, ScheduledRetry};
pub use self::scheduled::{
    Rescheduled, ScheduledCursor, ScheduledCursorError, ScheduledEvent, ScheduledEvents,
    ScheduledPage,
};
pub use self::search::SearchPage;
pub use self::tail::Tail;
pub use crate::insight::condition::Condition;
pub use crate::insight::diagnosis::Diagnosis;
pub use crate::insight::line_holder::{Holder, HolderState, LineHolder};
pub use crate::insight::problem::Problem;
pub use crate::insight::rate::RateInfo;
pub use crate::insight::view::{Backlog, ConsumerInfo, GroupInfo, Liveness, SlotSet};
pub use crate::model::done::FinishedJob;
pub use crate::model::entry::{EntryAddress, EntryAddressError};
pub use crate::model::limit::{CodeLimit, LimitOption, SetLimit};
pub use crate::model::preview::{EntryPreview, FieldPreview};
pub use crate::model::progress::Progress;
pub use crate::model::rate::SetRate;
pub use crate::model::trend::{DurationCounts, Trend, TrendPoint, TrendRange};
pub use crate::publish::later::{Scheduled, WaitingEvent};
pub use crate::store::admin::{Cut, Trimmed, Unfinished};
pub use crate::store::inspect::{OldestUnfinished, PendingEntry, StreamInfo, StreamSizes};
