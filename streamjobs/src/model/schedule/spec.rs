//! A schedule: its name, when it is due, and what it publishes; and the form in which it is stored.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs_cron::{CheckError, Cron, Every, NextError, Zone};
use uuid::Uuid;

use super::error::ScheduleError;
use super::missed::{Missed, StoredMissed};
use super::overlap::Overlap;
use super::tick::Tick;
use super::trigger::Trigger;
use crate::model::entry::Fields;
use crate::model::event::{Envelope, Event, stream_of};
use crate::model::name::{EventId, ScheduleName, StreamName};
use crate::model::record::FIELDS_CARRIED_MAX;

/// Something that publishes an event again and again: at the times of a cron expression, or at an interval.
///
/// Declare it in code, with [`RuntimeBuilder::schedule`](crate::RuntimeBuilder::schedule), or store it at
/// run time, with [`Client::schedules`](crate::Client::schedules). Without
/// [`publishes`](Self::publishes), its event is a [`Tick`]. See `docs/schedules.md`.
///
/// ```
/// use std::time::Duration;
/// use streamjobs::schedule::{Missed, Schedule};
///
/// let nightly = Schedule::cron("nightly", "30 2 * * *")?.zone("Europe/Berlin")?;
/// let often = Schedule::every("cleanup", Duration::from_secs(300))?.missed(Missed::None);
/// assert_eq!(nightly.in_words(), "At 02:30 every day (Europe/Berlin)");
/// # Ok::<(), streamjobs::schedule::ScheduleError>(())
/// ```
///
/// `Debug` shows everything but the payload.
#[derive(Clone)]
pub struct Schedule {
    name: ScheduleName,
    stream: StreamName,
    trigger: Trigger,
    jitter: Duration,
    missed: Missed,
    overlap: Overlap,
    content: Content,
}

/// What is published.
#[derive(Clone)]
enum Content {
    /// A [`Tick`] under this event type.
    Tick(String),
    /// An event of this type: the fields of its entry without the event id. They are empty where they were not read.
    Event(String, Fields),
}

/// A schedule as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredContent {
    /// The digest that distinguishes it from every other definition.
    pub(crate) digest: String,
    /// When it is due and what is published, in JSON.
    pub(crate) about: String,
    /// The fields of each event without its id, if they are fixed.
    pub(crate) fields: Fields,
}

/// The JSON form. A version that does not know one of its fields does not fire the schedule.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    /// In milliseconds, as all following durations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jitter: Option<u64>,
    missed: StoredMissed,
    /// While a job of this group is unfinished, no other occurrence is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skip_while: Option<String>,
    /// The event type of a [`Tick`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tick: Option<String>,
    /// The event type of an event whose fields are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
}

impl Schedule {
    /// A schedule at the times of a cron expression with five fields, in UTC unless it is given another
    /// [`zone`](Self::zone).
    ///
    /// # Errors
    ///
    /// When the name or the expression is invalid.
    pub fn cron(name: &str, expression: &str) -> Result<Self, ScheduleError> {
        let cron = Cron::parse(expression).map_err(|source| ScheduleError::Cron {
            name: name.to_owned(),
            expression: expression.chars().take(SHOWN_CHARACTERS_MAX).collect(),
            source,
        })?;
        Self::new(name, Trigger::Cron { cron: Box::new(cron), zone: Zone::utc() })
    }

    /// A schedule at an interval of 1 second to 365 days. Its occurrences are the multiples of the period since
    /// 1970, so that no restart moves them.
    ///
    /// # Errors
    ///
    /// When the name or the period is invalid.
    pub fn every(name: &str, period: Duration) -> Result<Self, ScheduleError> {
        let every = interval(name, period, Duration::ZERO)?;
        Self::new(name, Trigger::Every(every))
    }

    fn new(name: &str, trigger: Trigger) -> Result<Self, ScheduleError> {
        let (name, stream) = (ScheduleName::new(name)?, StreamName::new(Tick::STREAM)?);
        let tick = Tick::TYPES.first().copied().unwrap_or_default().to_owned();
        let (missed, content) = (Missed::One, Content::Tick(tick));
        let (jitter, overlap) = (Duration::ZERO, Overlap::Allow);
        Ok(Self { name, stream, trigger, jitter, missed, overlap, content })
    }

    /// The time zone in which the expression is read, by its name, such as `Europe/Berlin`: UTC by default, never the
    /// zone of the machine. Intervals have no zone.
    ///
    /// # Errors
    ///
    /// When there is no such zone, or the schedule has an interval.
    pub fn zone(mut self, name: &str) -> Result<Self, ScheduleError> {
        let Trigger::Cron { zone, .. } = &mut self.trigger else {
            return Err(self.fault("an interval has no time zone"));
        };
        let schedule = || self.name.to_string();
        *zone =
            Zone::parse(name).map_err(|source| ScheduleError::Zone { name: schedule(), source })?;
        Ok(self)
    }

    /// How long after each multiple of the period an interval's occurrences are: zero by default, and less than the
    /// period.
    ///
    /// # Errors
    ///
    /// When the offset is not less than the period, or the schedule has a cron expression.
    pub fn offset(mut self, offset: Duration) -> Result<Self, ScheduleError> {
        let Trigger::Every(every) = self.trigger else {
            return Err(self.fault("a cron expression has no offset"));
        };
        let every = interval(self.name.as_str(), every.period(), offset)?;
        self.trigger = Trigger::Every(every);
        Ok(self)
    }

    /// What is done about missed occurrences: [`Missed::One`] by default.
    #[must_use]
    pub fn missed(self, missed: Missed) -> Self {
        Self { missed, ..self }
    }

    /// What becomes of an occurrence that is due while the job of the last one has not ended:
    /// [`Overlap::Allow`] by default. The firing script decides it.
    ///
    /// ```
    /// use streamjobs::schedule::{Overlap, Schedule};
    ///
    /// let schedule = Schedule::cron("import", "*/5 * * * *")?.overlap(Overlap::skip("imports")?);
    /// # Ok::<(), streamjobs::schedule::ScheduleError>(())
    /// ```
    #[must_use]
    pub fn overlap(self, overlap: Overlap) -> Self {
        Self { overlap, ..self }
    }

    /// Delays all occurrences by a constant, which is derived from the schedule's name and is less than this: zero by
    /// default, at most a day. So schedules with the same times do not all fire at once.
    #[must_use]
    pub fn jitter(self, jitter: Duration) -> Self {
        Self { jitter: jitter.min(JITTER_MAX), ..self }
    }

    /// Publishes this event, to its own stream, instead of a [`Tick`]. Its payload is the same each time.
    ///
    /// # Errors
    ///
    /// When the payload cannot be encoded or has more than 1,000 fields.
    pub fn publishes<E: Event>(mut self, event: &E) -> Result<Self, ScheduleError> {
        let payload = event
            .encode()
            .map_err(|source| ScheduleError::Encode { name: self.name.to_string(), source })?;
        self.stream = stream_of::<E>()?;
        let id = EventId::generate();
        let mut fields = Envelope::entry(event.event_type(), payload, &id, event.key(), None);
        fields.retain(|(name, _)| name != ID);
        if fields.len() >= FIELDS_CARRIED_MAX {
            let (name, fields) = (self.name.to_string(), fields.len() + 1);
            let fields_max = FIELDS_CARRIED_MAX;
            return Err(ScheduleError::TooManyFields { name, fields, fields_max });
        }
        self.content = Content::Event(event.event_type().to_owned(), fields);
        Ok(self)
    }

    /// Publishes to this stream instead of the event's own, which is `ticks` for a [`Tick`].
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn stream(self, stream: &str) -> Result<Self, ScheduleError> {
        Ok(Self { stream: StreamName::new(stream)?, ..self })
    }

    /// Publishes a [`Tick`] of this event type.
    pub(super) fn tick_type(self, event_type: &str) -> Self {
        Self { content: Content::Tick(event_type.to_owned()), ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ScheduleName {
        &self.name
    }

    /// The stream to which it publishes.
    #[must_use]
    pub fn target(&self) -> &StreamName {
        &self.stream
    }

    /// What it publishes: the event type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match &self.content {
            Content::Tick(event_type) | Content::Event(event_type, _) => event_type,
        }
    }

    /// The expression as it was given, or the interval as in `5m`.
    #[must_use]
    pub fn timing(&self) -> String {
        self.trigger.to_string()
    }

    /// When it is due, in English.
    #[must_use]
    pub fn in_words(&self) -> String {
        self.trigger.in_words()
    }

    /// What is done about missed occurrences.
    #[must_use]
    pub fn missed_policy(&self) -> Missed {
        self.missed
    }

    /// What becomes of an occurrence that is due while the job of the last one has not ended.
    #[must_use]
    pub fn overlap_policy(&self) -> &Overlap {
        &self.overlap
    }

    /// The first time after `after` at which it is due, with its delay; `None` if it is not due within eight years.
    /// Both times are milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// When the time is after the year 9989.
    pub fn next_after(&self, after: u64) -> Result<Option<u64>, NextError> {
        let delay = self.delay();
        let next = self.trigger.next_after(after.saturating_sub(delay))?;
        Ok(next.map(|next| next.saturating_add(delay)))
    }

    /// Refuses a schedule that has no occurrence after this time, or whose event is too large for a
    /// client.
    pub(crate) fn check(&self, now: u64, bytes_max: usize) -> Result<(), ScheduleError> {
        let name = || self.name.to_string();
        let never = |source| ScheduleError::Never { name: name(), source };
        match self.next_after(now) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(never(CheckError::Never)),
            Err(error) => return Err(never(CheckError::Unknown(error))),
        }
        let Content::Event(_, fields) = &self.content else { return Ok(()) };
        if fields.is_empty() {
            return Err(
                self.fault("a list of schedules has no payloads: read this schedule by its name")
            );
        }
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        match bytes > bytes_max {
            true => Err(ScheduleError::TooLarge { name: name(), bytes, bytes_max }),
            false => Ok(()),
        }
    }

    /// All fields of the entry of one occurrence, under this event id. `due` includes the delay.
    pub(crate) fn entry(&self, id: &EventId, due: u64, missed: u64, late: u64) -> Fields {
        let mut fields = match &self.content {
            Content::Event(_, fields) => fields.clone(),
            Content::Tick(event_type) => {
                let at = due.saturating_sub(self.delay());
                let tick = Tick::new(self.name.as_str(), at, missed, late);
                // A struct of text and numbers can always be encoded.
                let payload = tick.encode().unwrap_or_default();
                let event_type = (TYPE.into(), event_type.clone().into());
                std::iter::once(event_type).chain(payload).collect()
            }
        };
        fields.push((ID.into(), id.as_str().to_owned().into()));
        fields
    }

    /// The fields of the entry of a run by hand at this time.
    pub(crate) fn entry_by_hand(&self, id: &EventId, now: u64) -> Fields {
        self.entry(id, now.saturating_add(self.delay()), 0, 0)
    }

    /// The occurrence that is due at this time, without its delay.
    pub(crate) fn occurrence(&self, due: u64) -> u64 {
        due.saturating_sub(self.delay())
    }

    /// As it is stored.
    pub(crate) fn stored(&self) -> StoredContent {
        let mut about = About {
            cron: None,
            zone: None,
            every: None,
            offset: None,
            jitter: Some(milliseconds(self.jitter)).filter(|jitter| *jitter > 0),
            missed: self.missed.into(),
            skip_while: self.overlap.group().map(ToString::to_string),
            tick: None,
            event: None,
        };
        match &self.trigger {
            Trigger::Cron { cron, zone } => {
                about.cron = Some(cron.to_string());
                about.zone = Some(zone.name().to_owned());
            }
            Trigger::Every(every) => {
                about.every = Some(milliseconds(every.period()));
                about.offset = Some(milliseconds(every.offset())).filter(|offset| *offset > 0);
            }
        }
        let fields = match &self.content {
            Content::Tick(event_type) => {
                about.tick = Some(event_type.clone());
                Fields::new()
            }
            Content::Event(event_type, fields) => {
                about.event = Some(event_type.clone());
                fields.clone()
            }
        };
        let about = serde_json::to_string(&about).unwrap_or_default();
        StoredContent { digest: digest(&about, &fields), about, fields }
    }

    /// From its stored form; `None` if this version cannot read it.
    pub(crate) fn read(
        stream: &StreamName,
        name: &str,
        about: &str,
        fields: Fields,
    ) -> Option<Self> {
        let about = serde_json::from_str::<About>(about).ok()?;
        let schedule = match (about.cron, about.every) {
            (Some(cron), None) => {
                let schedule = Self::cron(name, &cron).ok()?;
                schedule.zone(about.zone.as_deref().unwrap_or("UTC")).ok()?
            }
            (None, Some(every)) => {
                let schedule = Self::every(name, Duration::from_millis(every)).ok()?;
                schedule.offset(Duration::from_millis(about.offset.unwrap_or(0))).ok()?
            }
            _ => return None,
        };
        let content = match (about.tick, about.event) {
            (Some(event_type), None) => Content::Tick(event_type),
            (None, Some(event_type)) => Content::Event(event_type, fields),
            _ => return None,
        };
        let jitter = Duration::from_millis(about.jitter.unwrap_or(0));
        let overlap = match about.skip_while {
            Some(group) => Overlap::skip(&group).ok()?,
            None => Overlap::Allow,
        };
        let schedule = schedule.overlap(overlap).missed(about.missed.into()).jitter(jitter);
        Some(Self { stream: stream.clone(), content, ..schedule })
    }

    /// How long each occurrence is delayed, in milliseconds: a constant that depends on the name.
    pub(super) fn delay(&self) -> u64 {
        let hash = u64::from(crc32fast::hash(self.name.as_str().as_bytes()));
        hash.checked_rem(milliseconds(self.jitter)).unwrap_or(0)
    }

    fn fault(&self, fault: &'static str) -> ScheduleError {
        ScheduleError::Setting { name: self.name.to_string(), fault }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("name", &self.name)
            .field("stream", &self.stream)
            .field("timing", &self.timing())
            .field("jitter", &self.jitter)
            .field("missed", &self.missed)
            .field("overlap", &self.overlap)
            .field("event_type", &self.event_type())
            .finish_non_exhaustive()
    }
}

fn interval(name: &str, period: Duration, offset: Duration) -> Result<Every, ScheduleError> {
    Every::new(period, offset)
        .map_err(|source| ScheduleError::Every { name: name.to_owned(), source })
}

/// A digest that is the same for the same definition, in each process and version.
fn digest(about: &str, fields: &Fields) -> String {
    let mut content = Vec::new();
    let mut part = |bytes: &[u8]| {
        // The length in front of each part makes the concatenation unambiguous.
        content.extend_from_slice(&bytes.len().to_be_bytes());
        content.extend_from_slice(bytes);
    };
    part(about.as_bytes());
    for (name, value) in fields {
        part(name);
        part(value);
    }
    Uuid::new_v5(&DIGESTS, &content).to_string()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const ID: &str = "sj-id";
const TYPE: &str = "type";
const JITTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const SHOWN_CHARACTERS_MAX: usize = 300;
/// The name space of digests.
const DIGESTS: Uuid = Uuid::from_u128(0x8f0e_6f2c_53b1_5d0a_9a6b_6f10_2c1d_7e04);
