//! What is known of one event: its entry, and what became of each group's job.

use uuid::Uuid;

use super::cancel::CancelledEvent;
use super::error::StreamError;
use super::event_job::{JobReport, Target, add_results, of_event, report};
use super::group::Group;
use super::handle::{PAGE_MAX, Stream};
use super::scheduled::{ScheduledEvent, ScheduledEvents};
use crate::model::entry::{Entry, EntryAddress, EntryId};
use crate::model::event::Envelope;
use crate::model::name::{EventId, GroupName};
use crate::model::preview::EntryPreview;
use crate::model::trace::TraceContext;

/// What is known of one event on one stream.
///
/// The facts are read one after another, so a job that moves meanwhile may be shown as it was a moment ago.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventReport {
    /// The stream.
    pub stream: String,
    /// The event id.
    pub event_id: EventId,
    /// The event type; `None` if the entry was not found.
    pub event_type: Option<String>,
    /// Its entry in the stream; `None` if it was not found.
    pub entry: Option<EntryAddress>,
    /// The trace in which it was published, as 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// The scheduled event, if it still waits until it is due. It has no jobs yet. If there is no entry, it is
    /// searched for among the 1,000 scheduled events that are due first.
    pub scheduled: Option<ScheduledEvent>,
    /// Marks that cancel its jobs, as far as they are among the stream's first 1,000 marks since the event's id was
    /// made. For an id that does not say when, these are the oldest 1,000.
    pub cancelled: Vec<CancelledEvent>,
    /// Whether `cancelled` has all marks of its jobs.
    pub marks_searched: bool,
    /// The job of each group, by the group's name.
    pub jobs: Vec<JobReport>,
    /// Groups that were not asked, because there are more than 50.
    pub groups_left: usize,
    /// Whether the entry would have been found if it were in the stream: all of it was searched, or the
    /// entry was found. Otherwise only a part was: the newest entries, and those around the time at which
    /// the id was made.
    pub searched: bool,
}

impl EventReport {
    /// Whether anything is known of the event.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.entry.is_some()
            || self.scheduled.is_some()
            || !self.cancelled.is_empty()
            || self.jobs.iter().any(JobReport::is_known)
    }
}

impl Stream {
    /// What is known of an event: its entry, whether it is scheduled or cancelled, and its job in each group.
    ///
    /// The server keeps no index of event ids. The search for the entry covers the newest 1,000, and 1,000 from the
    /// time at which the id was made, if it is one of [`EventId::generate`]. In each group, the search covers the
    /// 1,000 retries that are due first, the newest 1,000 dead letters and 1,000 entries of the lane. A job that it
    /// does not find is [`JobState::Unknown`](super::JobState::Unknown). If you know the entry, use
    /// [`event_of`](Self::event_of). The number of requests is limited, and at most 50 groups are asked.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn event(&self, id: &EventId) -> Result<EventReport, StreamError> {
        let (preview, complete) = self.locate(id).await?;
        let entry = preview.map(|preview| {
            let fields = preview.fields.into_iter().map(|field| (field.name, field.value));
            Entry::new(preview.id, fields.collect()).in_partition(preview.partition)
        });
        self.report(id.clone(), entry, complete).await
    }

    /// What is known of the event of an entry. The entry may come from another client; its event id is then derived
    /// from its content. `None` if there is no such entry.
    ///
    /// # Errors
    ///
    /// As [`entry`](Self::entry) and [`event`](Self::event).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn event_of(
        &self,
        entry: impl Into<EntryAddress>,
    ) -> Result<Option<EventReport>, StreamError> {
        let Some(entry) = self.entry(entry).await? else { return Ok(None) };
        let place = self.partition_of(entry.address())?;
        let id = Envelope::of(place.name(), &entry).event_id;
        self.report(id, Some(entry), true).await.map(Some)
    }

    async fn report(
        &self,
        event_id: EventId,
        entry: Option<Entry>,
        complete: bool,
    ) -> Result<EventReport, StreamError> {
        let since = published_at(&event_id).map_or(0, |at| at.saturating_sub(BEFORE));
        let marks = self.cancelled(since, PAGE_MAX).await?;
        let (marks_searched, cancelled) = (marks.len() < PAGE_MAX, marks.into_iter());
        let scheduled = match entry {
            Some(_) => Vec::new(),
            None => {
                let scheduled = ScheduledEvents::reading(&self.store, &self.parts);
                scheduled.list(None, PAGE_MAX).await?.events
            }
        };
        let address = entry.as_ref().map(Entry::address);
        let place = address.map_or_else(|| Ok(self.clone()), |entry| self.partition_of(entry))?;
        let (mut jobs, mut groups_left) = (Vec::new(), 0);
        let made = || published_at(&event_id).map(|at| at.saturating_sub(BEFORE));
        let published = address.map(|entry| entry.id.milliseconds()).or_else(made);
        let target = Target { id: event_id.clone(), entry: address, published };
        for name in place.group_names_if_any().await? {
            if jobs.len() >= GROUPS_MAX {
                groups_left += 1;
                continue;
            }
            match Group::new(place.clone(), name).info().await {
                Ok(group) => jobs.push(report(&place, group, &target).await?),
                // The group was destroyed meanwhile.
                Err(StreamError::GroupMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        add_results(&place, &event_id, &mut jobs).await?;
        Ok(EventReport {
            stream: self.name().to_string(),
            event_type: entry.as_ref().and_then(Entry::event_type).map(str::to_owned),
            entry: address,
            trace_id: entry.as_ref().and_then(TraceContext::of).map(|trace| {
                let id = u128::from_be_bytes(trace.trace_id());
                format!("{id:032x}")
            }),
            scheduled: scheduled.into_iter().find(|event| event.id == event_id),
            cancelled: cancelled.filter(|mark| mark.event_id == event_id.as_str()).collect(),
            marks_searched,
            searched: complete || entry.is_some(),
            event_id,
            jobs,
            groups_left,
        })
    }

    /// The entry of an event, and whether the whole stream was searched.
    async fn locate(&self, id: &EventId) -> Result<(Option<EntryPreview>, bool), StreamError> {
        let is_it = |preview: &EntryPreview| of_event(preview, id);
        if let Some(at) = published_at(id) {
            let from = EntryId::new(at.saturating_sub(BEFORE), 0);
            let to = EntryId::new(at.saturating_add(AFTER), u64::MAX);
            let page = self.previews(from..=to, PAGE_MAX, 0).await?;
            if let Some(found) = page.entries.into_iter().find(is_it) {
                return Ok((Some(found), true));
            }
        }
        let page = self.newest_previews(PAGE_MAX, 0).await?;
        let complete = page.more_after.is_none();
        Ok((page.entries.into_iter().find(is_it), complete))
    }

    /// The partition of an entry, or this stream itself if it has only one.
    fn partition_of(&self, entry: EntryAddress) -> Result<Self, StreamError> {
        let parts = self.parts.with(entry.partition);
        match parts.map_err(|number| self.no_partition(number))? {
            [part] => Ok(Self { parts: self.parts.only(part), ..self.clone() }),
            _ => Ok(self.clone()),
        }
    }

    /// The groups by name; empty for a stream that does not exist yet, for example because its events are all
    /// scheduled.
    async fn group_names_if_any(&self) -> Result<Vec<GroupName>, StreamError> {
        match self.group_names().await {
            Err(StreamError::Missing { .. }) => Ok(Vec::new()),
            names => names,
        }
    }
}

/// When an id was made, in milliseconds since 1970 by its maker's clock, if the id says so.
fn published_at(id: &EventId) -> Option<u64> {
    let (seconds, nanoseconds) = Uuid::try_parse(id.as_str()).ok()?.get_timestamp()?.to_unix();
    seconds.checked_mul(1_000)?.checked_add(u64::from(nanoseconds / 1_000_000))
}

/// How far the clocks of publishers may be ahead of the server's, in milliseconds.
const BEFORE: u64 = 60_000;
/// How far the clocks of publishers may be behind the server's, including the time until the event
/// is stored.
const AFTER: u64 = 300_000;

/// The most groups of one report.
const GROUPS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_says_when_it_was_made_and_another_does_not() {
        let id = EventId::new("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b").unwrap();
        assert_eq!(published_at(&id), Some(0x0199_a1b2_c3d4));
        for other in ["o-1", &*id.derive(1).to_string()] {
            assert_eq!(published_at(&EventId::new(other).unwrap()), None, "{other}");
        }
    }
}
