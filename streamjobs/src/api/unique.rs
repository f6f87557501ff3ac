//! Unique and debounced publishing: settings, answers, and the events of a stream that stand.
//!
//! [`Client::publish_unique`](crate::Client::publish_unique) refuses an event while an equal event *stands*: one
//! whose time is not over and whose jobs have not ended. `docs/unique.md` says what is guaranteed and what is not.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::parts::{Part, Parts, read_all, together};
use super::stream::StreamError;
pub use crate::model::debounce::Debounce;
pub use crate::model::event::UniqueFields;
use crate::model::name::{EventId, NameError, StreamName};
pub use crate::model::unique::{Unique, UniqueDigest, UniqueDigestError, UniqueFault};
use crate::publish::client::{Client, Published};
pub use crate::publish::debounce::DebouncedEvent;
pub use crate::publish::unique::UniquePublished;
use crate::store::{Store, UniqueHolder};

impl Client {
    /// A handle to the unique events of a stream that stand: those that were published with
    /// [`publish_unique`](Self::publish_unique), whose time is not over and whose jobs have not ended. On a stream
    /// with [partitions](crate::ClientBuilder::partitions), the handle covers all of them. Nothing is sent.
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn unique(&self, stream: &str) -> Result<UniqueEvents, NameError> {
        let parts = Parts::of(self.layouts(), StreamName::new(stream)?);
        Ok(UniqueEvents { store: Arc::clone(self.store()), parts })
    }
}

/// A handle to the unique events of a stream that stand. It is cheap to clone.
///
/// ```no_run
/// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use streamjobs::unique::UniqueDigest;
///
/// let imports = client.unique("imports")?;
/// let digest = UniqueDigest::of_key("import.requested", None, "customer-7")?;
/// if let Some(stands) = imports.holder(&digest).await? {
///     println!("{} stands for {:?}", stands.published.event_id, stands.rest);
///     imports.release(&digest, Some(&stands.published.event_id)).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct UniqueEvents {
    store: Arc<dyn Store>,
    parts: Parts,
}

/// A unique event that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StandingEvent {
    /// The event, and the entry that was published. After a retry, its job has another entry.
    pub published: Published,
    /// For how much longer it makes equal events duplicates, by the server's clock, unless its job
    /// ends sooner.
    pub rest: Duration,
}

impl UniqueEvents {
    /// The name of the stream.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        self.parts.name()
    }

    /// The event that stands for a digest; `None` if an event with this digest would be published.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn holder(
        &self,
        digest: &UniqueDigest,
    ) -> Result<Option<StandingEvent>, StreamError> {
        let look = async |part: &Part| {
            let holder = self.store.unique_holder(&part.stream, digest).await;
            let holder = holder.map_err(|error| StreamError::server(&part.stream, READ, error))?;
            Ok::<_, StreamError>(holder.map(|holder| StandingEvent::of(holder, part)))
        };
        let found = read_all(self.parts.iter().map(look).collect()).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Ends the time of the event that stands, so that an equal event can be published, and returns the event that
    /// stood; `None` if no event stands. With an event id, it does so only if that event still stands: its time may
    /// have ended, and another event may stand in its place.
    ///
    /// The event itself and its jobs are left as they are: if a job still runs, a job of the next event can run
    /// beside it. The release is logged.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. The call can be repeated; if the error is
    /// [unconfirmed](StreamError::is_unconfirmed), the event may have been released, and a repetition without an
    /// event id may release the next event.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be released.
    pub async fn release(
        &self,
        digest: &UniqueDigest,
        of: Option<&EventId>,
    ) -> Result<Option<StandingEvent>, StreamError> {
        let release = async |part: &Part| {
            let released = self.store.release_unique(&part.stream, digest, of).await;
            let released = released
                .map_err(|error| StreamError::server(&part.stream, "release an event of", error))?;
            Ok::<_, StreamError>(released.map(|holder| StandingEvent::of(holder, part)))
        };
        let answers = together(self.parts.iter().map(release).collect()).await;
        let mut released = None;
        for answer in answers {
            released = answer?.or(released);
        }
        if let Some(StandingEvent { published, .. }) = &released {
            let (stream, event_id) = (self.stream(), &published.event_id);
            info!(%stream, %event_id, %digest, "a unique event was released by hand");
        }
        Ok(released)
    }
}

impl StandingEvent {
    fn of(holder: UniqueHolder, part: &Part) -> Self {
        let UniqueHolder { event_id, entry_id, rest } = holder;
        Self { published: Published { entry_id, event_id, partition: part.number }, rest }
    }
}

const READ: &str = "read the unique events of";
