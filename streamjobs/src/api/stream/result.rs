//! The result of a job: what its handler returned, if it has the option `result`.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::error::StreamError;
use super::group::Group;
use super::handle::PAGE_MAX;
use super::part::GroupPart;
use crate::api::parts::{find, together};
use crate::model::entry::{EntryAddress, EntryId};
use crate::model::event::decode_result;
use crate::model::name::EventId;
use crate::model::policy::Reason;
use crate::model::preview::DeadLetterSummary;
use crate::publish::client::Published;
use crate::store::StoredResult;
use crate::store::inspect::{PreviewOf, Span};

/// What is known of the result of a job. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult<T> {
    /// The job is done, and its handler returned this. If the job ran several times, this is the result of the first
    /// run: jobs run at least once, and a run can be repeated after its result was seen.
    Done(T),
    /// The job is done. Its result is not kept, because the server was out of memory.
    NotKept,
    /// The job is a dead letter, and will not run again unless it is redriven.
    Dead(DeadJob),
    /// Nothing is known. Perhaps the job waits or runs. Perhaps there is no job, because the event was not published
    /// to this stream or has no handler in the group. Perhaps it is done and left no result: the time of the result
    /// is over, its handler has no option `result`, a guard found that the job was done before, or the result was
    /// lost. Or it is a dead letter that a process other than the job's own stored, as after a crash, and that was
    /// archived, purged or trimmed since or is not among the newest 1,000. [`Stream::event`](super::Stream::event)
    /// says more, at a higher cost.
    Unknown,
}

/// A job that is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadJob {
    /// Why it will not run again; `None` if a newer release has a reason that this release does not know.
    pub reason: Option<Reason>,
    /// The last error, or its first 1,000 bytes.
    pub error: Option<String>,
    /// The dead letter, if it was searched for and found: an archive may have removed it.
    pub letter: Option<EntryAddress>,
}

impl<T> JobResult<T> {
    /// The result, if the job is done and it is kept.
    #[must_use]
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Whether nothing is known, so that it may be worth asking again.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// The event whose result is asked for: the receipt of its publication, or its event id. With the receipt, only the
/// partition that has the event is asked; with an id alone, all partitions are asked.
#[derive(Clone, Debug)]
pub struct ResultOf {
    event_id: EventId,
    partition: Option<u16>,
    /// The earliest time, in milliseconds, at which the job can have become a dead letter.
    since: u64,
}

impl From<&Published> for ResultOf {
    fn from(published: &Published) -> Self {
        let since = published.entry_id.milliseconds().saturating_sub(BEFORE);
        Self { event_id: published.event_id.clone(), partition: published.partition, since }
    }
}

impl From<&EventId> for ResultOf {
    fn from(event_id: &EventId) -> Self {
        Self { event_id: event_id.clone(), partition: None, since: 0 }
    }
}

impl Group {
    /// What is known of the result of the group's job on an event: see [`JobResult`].
    ///
    /// It sends one request where the result is kept. Otherwise it sends a second request, which compares the newest
    /// 1,000 dead letters, and with a receipt only those stored since the event was published. Both requests go to
    /// each partition that is asked.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// # #[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(stream = "quotes", type = "quote.wanted")]
    /// # struct QuoteWanted { article: String }
    /// # let wanted = QuoteWanted { article: "a-1".into() };
    /// use std::time::Duration;
    /// use streamjobs::stream::JobResult;
    ///
    /// let published = client.publish(&wanted).await?;
    /// let pricing = client.stream("quotes")?.group("pricing")?;
    /// match pricing.wait_for::<u64>(&published, Duration::from_secs(5)).await? {
    ///     JobResult::Done(cents) => println!("{cents} cents"),
    ///     JobResult::Dead(letter) => println!("failed: {}", letter.error.unwrap_or_default()),
    ///     JobResult::NotKept | JobResult::Unknown => println!("ask again later"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses, as for a key of another type; when there is no such partition;
    /// or when the result is not a `T`. A result that one partition has is returned even if another partition fails.
    /// It is not checked whether there is such a group.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn result<T: DeserializeOwned>(
        &self,
        of: impl Into<ResultOf>,
    ) -> Result<JobResult<T>, StreamError> {
        Search::new(self, of.into())?.look(true).await
    }

    /// Waits until the group's job on an event is done or a dead letter, at most for this time; after that the answer
    /// is [`Unknown`](JobResult::Unknown). With zero, it asks once.
    ///
    /// The server is asked again and again, with pauses in between. The longest possible pause grows from some
    /// milliseconds to a quarter of a second, and each pause is drawn at random between half of that time and all of
    /// it. So a waiter costs the server about five reads of a key
    /// and one read of new dead letters a second. It learns of the end within a quarter of a second; of a dead letter
    /// that another process stored, as after a crash, within about a second. It may exceed the given time by one
    /// request, which the client ends after some seconds, and by one more for each further 16 partitions. While the
    /// server cannot be reached, it keeps asking.
    ///
    /// # Errors
    ///
    /// As [`result`](Self::result). The error of a server that cannot be reached is returned when the time is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed, and the result stays. Wait again to go on.
    pub async fn wait_for<T: DeserializeOwned>(
        &self,
        of: impl Into<ResultOf>,
        time: Duration,
    ) -> Result<JobResult<T>, StreamError> {
        let mut search = Search::new(self, of.into())?;
        let begun = Instant::now();
        let end = begun + time.min(WAIT_MAX);
        let (mut pause, mut letters_due) = (PAUSE_MIN, begun);
        loop {
            let now = Instant::now();
            let (is_last, with_letters) = (now >= end, now >= letters_due || now >= end);
            match search.look(with_letters).await {
                Ok(JobResult::Unknown) if !is_last => {}
                Err(error) if !is_last && error.is_transient() => {}
                answer => return answer,
            }
            if with_letters {
                letters_due = now + LETTERS_EVERY;
            }
            let pause_now = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            sleep_until(end.min(Instant::now() + pause_now)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The search for the end of one job, in each partition that may have it.
struct Search {
    event_id: EventId,
    parts: Vec<Place>,
}

/// One partition, and how far its dead letters were read.
struct Place {
    part: GroupPart,
    since: EntryId,
    /// The newest dead letter that was seen.
    seen: Option<EntryId>,
}

impl Search {
    fn new(group: &Group, of: ResultOf) -> Result<Self, StreamError> {
        let parts = group.stream.parts.with(of.partition);
        let parts = parts.map_err(|number| group.stream.no_partition(number))?;
        let since = EntryId::new(of.since, 0);
        let place = |part| Place { part: group.part(part), since, seen: None };
        Ok(Self { event_id: of.event_id, parts: parts.iter().map(place).collect() })
    }

    async fn look<T: DeserializeOwned>(
        &mut self,
        with_letters: bool,
    ) -> Result<JobResult<T>, StreamError> {
        let id = &self.event_id;
        let results = self.parts.iter().map(|place| place.result(id));
        let failed = match find::<_, StreamError, _>(results.collect()).await {
            Ok(Some((place, StoredResult::Json(json)))) => return place.decoded(id, &json),
            Ok(Some((_, StoredResult::NotKept))) => return Ok(JobResult::NotKept),
            Ok(Some((_, StoredResult::Dead { reason, error }))) => {
                let reason = Reason::parse(&reason);
                return Ok(JobResult::Dead(DeadJob { reason, error, letter: None }));
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        // With several partitions, another partition may have the letter.
        if !with_letters || (failed.is_some() && self.parts.len() == 1) {
            return failed.map_or(Ok(JobResult::Unknown), Err);
        }
        let letter = self.letter().await;
        let letter = match (letter, failed) {
            (Ok(None), Some(error)) | (Err(error), _) => return Err(error),
            (Ok(letter), _) => letter,
        };
        Ok(letter.map_or(JobResult::Unknown, |letter| {
            let address = letter.address();
            let (reason, error) = (Some(letter.reason), letter.error);
            JobResult::Dead(DeadJob { reason, error, letter: Some(address) })
        }))
    }

    /// The newest dead letter of the job, in any partition, among those that no earlier search has read.
    ///
    /// The next search skips what this search has read only if this search returns what it found, or found nothing in
    /// a partition that it read to the end.
    async fn letter(&mut self) -> Result<Option<DeadLetterSummary>, StreamError> {
        let id = &self.event_id;
        let looks = together(self.parts.iter().map(|place| place.letter(id)).collect()).await;
        let (mut newest, mut failed) = (None::<DeadLetterSummary>, None);
        for (place, look) in self.parts.iter_mut().zip(looks) {
            match look {
                Ok((letter, seen)) => {
                    place.seen = seen;
                    newest = newest.into_iter().chain(letter).max_by_key(|letter| letter.id);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (newest, failed) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest),
        }
    }
}

impl Place {
    async fn result(&self, id: &EventId) -> Result<Option<(&Self, StoredResult)>, StreamError> {
        let result = self.part.store.result(&self.part.queue, id).await;
        let result = result.map_err(|error| self.part.failed("read a result of", error))?;
        Ok(result.map(|stored| (self, stored)))
    }

    fn decoded<T: DeserializeOwned>(
        &self,
        id: &EventId,
        json: &[u8],
    ) -> Result<JobResult<T>, StreamError> {
        let queue = &self.part.queue;
        decode_result(json).map(JobResult::Done).map_err(|source| StreamError::DecodeResult {
            stream: queue.stream.to_string(),
            group: queue.group.to_string(),
            event_id: id.clone(),
            source,
        })
    }

    /// The dead letter of the job, if it is among those that were not read before; and the newest dead letter that
    /// has been read.
    async fn letter(
        &self,
        id: &EventId,
    ) -> Result<(Option<DeadLetterSummary>, Option<EntryId>), StreamError> {
        let GroupPart { store, queue, number, .. } = &self.part;
        let dead = queue.stream.dead_stream(&queue.group);
        let (newest_first, mut seen) = (self.seen.is_none(), self.seen);
        let from = match self.seen.map(EntryId::next) {
            Some(Some(next)) => next,
            Some(None) => return Ok((None, seen)),
            None => self.since,
        };
        let (mut span, mut left, mut found) = (Span { from, to: EntryId::MAX }, PAGE_MAX, None);
        while left > 0 && span.from <= span.to {
            let page = store.previews(&dead, span, newest_first, left, PreviewOf::Letters).await;
            let page = page.map_err(|error| self.part.failed("read dead letters of", error))?;
            let last = page.entries.last().map(|entry| entry.id);
            left = left.saturating_sub(page.entries.len());
            for mut preview in page.entries {
                preview.partition = *number;
                seen = seen.max(Some(preview.id));
                let letter = DeadLetterSummary::of(preview);
                let newer = |found: &DeadLetterSummary| found.id > letter.id;
                if letter.event_id.as_ref() == Some(id) && !found.as_ref().is_some_and(newer) {
                    found = Some(letter);
                }
            }
            let next = match newest_first {
                true => last.and_then(EntryId::previous).map(|to| Span { to, ..span }),
                false => last.and_then(EntryId::next).map(|from| Span { from, ..span }),
            };
            match next.filter(|_| page.has_more) {
                Some(next) => span = next,
                None => break,
            }
        }
        Ok((found, seen))
    }
}

/// How far the server's clock may have been set back since the event was published, in milliseconds.
const BEFORE: u64 = 60_000;
const PAUSE_MIN: Duration = Duration::from_millis(8);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How often new dead letters are read while waiting.
const LETTERS_EVERY: Duration = Duration::from_secs(1);
/// The longest wait: longer than any result is kept, and far below the times that would overflow.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
