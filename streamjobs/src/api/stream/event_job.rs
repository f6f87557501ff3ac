//! What became of one group's job on an event.

use std::time::Duration;

use super::error::StreamError;
use super::group::Group;
use super::handle::{PAGE_MAX, Stream};
use super::pending::PendingQuery;
use super::retries::ScheduledRetry;
use crate::api::merge::Order;
use crate::api::parts::{Part, read_all};
use crate::api::rows::{self, EntryRows, PreviewRows};
use crate::api::span::AddressSpan;
use crate::insight::view::GroupInfo;
use crate::model::attempts::AttemptHistory;
use crate::model::done::FinishedJob;
use crate::model::entry::{Entry, EntryAddress, EntryId};
use crate::model::event::Envelope;
use crate::model::name::{EventId, GroupName, StreamName};
use crate::model::preview::{DeadLetterSummary, EntryPreview};
use crate::store::ResultFacts;
use crate::store::inspect::{JobPlace, PendingEntry, PreviewOf};

/// One group's job on an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobReport {
    /// The group.
    pub group: String,
    /// Where the job is.
    pub state: JobState,
    /// Its result, without the value: the job is done. `None` if no result is kept.
    pub result: Option<KeptResult>,
    /// Its past attempts, while it waits for a retry, is in the lane or is a dead letter. A job that succeeds at once
    /// leaves no attempts.
    pub attempts: AttemptHistory,
    /// When and where it was done, if that was noted. The search covers 1,000 notes since the event was published, or
    /// the newest 1,000 if that time is not known.
    pub finished: Option<FinishedJob>,
}

impl JobReport {
    /// Whether anything is known of the job.
    pub(super) fn is_known(&self) -> bool {
        self.state.is_known() || self.result.is_some() || self.finished.is_some()
    }
}

/// A result that is kept for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptResult {
    /// Its size as JSON; `None` if the server had no memory for the value, and kept only a note of that.
    pub bytes: Option<u64>,
    /// How long it is still kept, by the server's clock.
    pub rest: Duration,
}

/// Where a job is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobState {
    /// The group has not read the entry yet.
    Waiting,
    /// It was delivered and is not acknowledged: it runs, or waits for a slot or another process.
    Pending(PendingEntry),
    /// It waits for a retry, after a failure or a snooze.
    Retrying(ScheduledRetry),
    /// It is in the group's lane: a retry that was due, or a redriven dead letter.
    Lane {
        /// Its entry in the lane.
        entry: EntryAddress,
        /// Failures recorded so far.
        attempts: u32,
        /// Its delivery; `None` if it waits for a delivery.
        pending: Option<PendingEntry>,
    },
    /// It is a dead letter. If it has several, this is the newest.
    Dead(DeadLetterSummary),
    /// The group is past the entry and has no job for it any more: it is done, or its dead letter was archived,
    /// trimmed or purged. Also the state for an entry before the position at which the group began or to which it was
    /// moved.
    Ended,
    /// Not known: the entry was not found, the group has more jobs than were compared, or some jobs wait for their
    /// key's turn.
    Unknown,
}

impl JobState {
    /// One word, stable: `waiting`, `pending`, `retrying`, `lane`, `dead`, `ended` or `unknown`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending(_) => "pending",
            Self::Retrying(_) => "retrying",
            Self::Lane { .. } => "lane",
            Self::Dead(_) => "dead",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it is known where the job is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    /// Failures recorded so far; `None` where the server does not keep them: for a job that has ended, or of which
    /// nothing is known.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        match self {
            Self::Waiting | Self::Pending(_) => Some(0),
            Self::Retrying(job) => Some(job.attempts),
            Self::Lane { attempts, .. } => Some(*attempts),
            Self::Dead(letter) => Some(letter.attempts),
            Self::Ended | Self::Unknown => None,
        }
    }

    /// Its delivery, if it is delivered now.
    #[must_use]
    pub fn delivery(&self) -> Option<&PendingEntry> {
        match self {
            Self::Pending(entry) => Some(entry),
            Self::Lane { pending, .. } => pending.as_ref(),
            _ => None,
        }
    }

    /// The last known error. It may quote a payload.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Retrying(job) => job.error.as_deref(),
            Self::Dead(letter) => letter.error.as_deref(),
            _ => None,
        }
    }
}

/// The event that is looked for, as far as it was found.
pub(super) struct Target {
    pub(super) id: EventId,
    pub(super) entry: Option<EntryAddress>,
    /// When it was published, by the server's clock in milliseconds, or a while before; `None` if that is not known.
    pub(super) published: Option<u64>,
}

/// What became of the job of one group. `place` is the partition of the entry, if that is known.
pub(super) async fn report(
    place: &Stream,
    info: GroupInfo,
    target: &Target,
) -> Result<JobReport, StreamError> {
    let (state, attempts, finished) = match GroupName::new(info.group.as_str()) {
        Ok(name) => {
            let group = Group::new(place.clone(), name);
            let state = state(&group, &info, target).await?;
            let attempts = past_attempts(&group, &state).await?;
            let finished = match state {
                JobState::Ended | JobState::Unknown => {
                    group.noted(target.id.as_str(), target.published).await?
                }
                _ => None,
            };
            (state, attempts, finished)
        }
        Err(_) => (JobState::Unknown, AttemptHistory::default(), None),
    };
    Ok(JobReport { group: info.group, state, result: None, attempts, finished })
}

/// The past attempts of a job, if it carries them where it is.
async fn past_attempts(group: &Group, state: &JobState) -> Result<AttemptHistory, StreamError> {
    let (of, partition) = match state {
        JobState::Retrying(job) => (JobPlace::Retry(job.id.name()), job.id.partition()),
        JobState::Lane { entry, .. } => (JobPlace::Lane(entry.id), entry.partition),
        JobState::Dead(letter) => (JobPlace::Dead(letter.id), letter.partition),
        _ => return Ok(AttemptHistory::default()),
    };
    let part = group.parts().into_iter().find(|part| part.number == partition);
    let Some(part) = part else { return Ok(AttemptHistory::default()) };
    let attempts = part.store.past_attempts(&part.queue, of).await;
    attempts.map_err(|error| part.failed("read the past attempts of", error))
}

/// Adds what is kept of the results of an event's jobs, with one request to each partition.
pub(super) async fn add_results(
    place: &Stream,
    id: &EventId,
    jobs: &mut [JobReport],
) -> Result<(), StreamError> {
    let names = jobs.iter().filter_map(|job| GroupName::new(job.group.as_str()).ok());
    let names = names.collect::<Vec<_>>();
    if names.is_empty() {
        return Ok(());
    }
    let read = async |part: &Part| {
        let facts = place.store.result_facts(&part.stream, &names, id).await;
        facts.map_err(|error| StreamError::server(&part.stream, "read the results of", error))
    };
    let facts = read_all::<_, StreamError, _>(place.parts.iter().map(read).collect()).await?;
    for (name, facts) in facts.into_iter().flat_map(|facts| names.iter().zip(facts)) {
        let job = jobs.iter_mut().find(|job| job.group == name.as_str());
        if let (Some(job), Some(ResultFacts { bytes, rest })) = (job, facts) {
            job.result = Some(KeptResult { bytes, rest });
        }
    }
    Ok(())
}

async fn state(group: &Group, info: &GroupInfo, target: &Target) -> Result<JobState, StreamError> {
    if let Some(entry) = target.entry
        && entry.id > info.cursor
    {
        return Ok(JobState::Waiting);
    }
    // Twice, because a job that fails or is due meanwhile moves between the lists. The first round leaves out the
    // lists that were empty a moment ago.
    let counts = Counts::of(info);
    let mut search = Search { group, target, complete: true };
    if let Some(state) = search.look(counts).await? {
        return Ok(state);
    }
    if let Some(state) = search.look(Counts::ALL).await? {
        return Ok(state);
    }
    let mut is_told = search.complete && target.entry.is_some() && info.parked == Some(0);
    if is_told {
        // A job that was due meanwhile may wait in a line now.
        is_told = group.info().await?.parked == Some(0);
    }
    Ok(if is_told { JobState::Ended } else { JobState::Unknown })
}

/// Which lists may have the job.
#[derive(Clone, Copy)]
struct Counts {
    pending: bool,
    retrying: bool,
    dead: bool,
}

impl Counts {
    const ALL: Self = Self { pending: true, retrying: true, dead: true };

    fn of(info: &GroupInfo) -> Self {
        Self {
            pending: info.pending + info.released > 0,
            retrying: info.retrying > 0,
            dead: info.dead_letters != Some(0),
        }
    }
}

struct Search<'a> {
    group: &'a Group,
    target: &'a Target,
    /// Whether every list was read to its end.
    complete: bool,
}

impl Search<'_> {
    async fn look(&mut self, counts: Counts) -> Result<Option<JobState>, StreamError> {
        if counts.pending
            && let Some(entry) = self.target.entry
            && let Some(pending) = delivery(self.group, entry).await?
        {
            return Ok(Some(JobState::Pending(pending)));
        }
        if (counts.pending || counts.retrying)
            && let Some(state) = self.lane().await?
        {
            return Ok(Some(state));
        }
        if counts.retrying {
            let page = self.group.retries(None, PAGE_MAX).await?;
            self.complete &= page.next.is_none();
            let id = Some(self.target.id.as_str());
            let job = page.jobs.into_iter().find(|job| job.event_id.as_deref() == id);
            if let Some(job) = job {
                return Ok(Some(JobState::Retrying(job)));
            }
        }
        if counts.dead {
            return Ok(self.dead_letter().await?.map(JobState::Dead));
        }
        Ok(None)
    }

    async fn lane(&mut self) -> Result<Option<JobState>, StreamError> {
        let key = |part: &Part| part.stream.lane_stream(&self.group.name);
        let of = PreviewOf::Entries { value: 0 };
        let (entries, more) = self.previews(key, of, Order::OldestFirst).await?;
        self.complete &= !more;
        let found = entries.into_iter().find(|entry| of_event(entry, &self.target.id));
        let Some(found) = found else { return Ok(None) };
        let entry = found.address();
        let attempts = Envelope::of(self.group.stream.name(), &whole(found)).failures;
        let pending = delivery(&self.group.lane(), entry).await?;
        Ok(Some(JobState::Lane { entry, attempts, pending }))
    }

    async fn dead_letter(&mut self) -> Result<Option<DeadLetterSummary>, StreamError> {
        let key = |part: &Part| part.stream.dead_stream(&self.group.name);
        let (letters, more) = self.previews(key, PreviewOf::Letters, Order::NewestFirst).await?;
        self.complete &= !more;
        let mut letters = letters.into_iter().map(DeadLetterSummary::of);
        Ok(letters.find(|letter| letter.event_id.as_ref() == Some(&self.target.id)))
    }

    /// A page of a key of the group.
    async fn previews(
        &self,
        key: impl Fn(&Part) -> StreamName,
        of: PreviewOf,
        order: Order,
    ) -> Result<(Vec<EntryPreview>, bool), StreamError> {
        let (store, everything) = (&self.group.stream.store, AddressSpan::EVERYTHING);
        let rows = self.group.stream.parts.iter().map(|part| {
            PreviewRows::new(EntryRows::new(store, part, key(part), everything, order), of)
        });
        let page = rows::page(rows.collect(), order, PAGE_MAX).await;
        page.map_err(|error| StreamError::of_part(error, "read the jobs of"))
    }
}

/// The delivery of one entry, if it is pending.
async fn delivery(group: &Group, entry: EntryAddress) -> Result<Option<PendingEntry>, StreamError> {
    let before = entry.id.previous().unwrap_or(EntryId::ZERO);
    let after = EntryAddress { id: before, partition: entry.partition };
    let page = group.pending(PendingQuery::new().after(after).limit(1)).await?;
    Ok(page.entries.into_iter().find(|pending| pending.id == entry.id))
}

/// A preview as an entry: its own fields are whole, and its payload is cut.
fn whole(preview: EntryPreview) -> Entry {
    let fields = preview.fields.into_iter().map(|field| (field.name, field.value));
    Entry::new(preview.id, fields.collect()).in_partition(preview.partition)
}

/// Whether a preview is of an entry with this event id.
pub(super) fn of_event(preview: &EntryPreview, id: &EventId) -> bool {
    let field = preview.fields.iter().find(|field| field.name == "sj-id");
    field.is_some_and(|field| field.is_whole() && field.value == id.as_str())
}
