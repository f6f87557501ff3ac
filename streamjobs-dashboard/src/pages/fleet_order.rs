//! Which groups the table of all groups shows, and in which order, by the address of the page.

use std::cmp::Ordering;
use std::time::Duration;

use streamjobs::doctor::Severity;

use crate::fault::Fault;
use crate::form::Fields;
use crate::format::Counted;
use crate::snapshot::{GroupSnapshot, Snapshot};

/// A group as a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetRow<'a> {
    pub(crate) stream: &'a str,
    pub(crate) sampled: &'a GroupSnapshot,
    pub(crate) dead: Option<Counted>,
}

/// The stream, the group, and why the group could not be read.
pub(crate) type FailedRow<'a> = (&'a str, &'a str, &'a Fault);

/// What the address asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FleetOrder {
    /// Text in the name of the stream or the group, in lower case.
    text: Option<String>,
    state: StateFilter,
    pub(crate) by: Option<Column>,
    pub(crate) is_descending: bool,
    /// The number of the page, from 1.
    pub(crate) page: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateFilter {
    All,
    Problems,
    Healthy,
}

/// A column by which the rows can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Stream,
    Group,
    State,
    Waiting,
    Oldest,
    Running,
    Pending,
    Retries,
    Dead,
    Done,
    Failed,
}

impl Column {
    pub(crate) const ALL: [Self; 11] = [
        Self::Stream,
        Self::Group,
        Self::State,
        Self::Waiting,
        Self::Oldest,
        Self::Running,
        Self::Pending,
        Self::Retries,
        Self::Dead,
        Self::Done,
        Self::Failed,
    ];

    /// Its name in addresses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Group => "group",
            Self::State => "state",
            Self::Waiting => "waiting",
            Self::Oldest => "oldest",
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Retries => "retries",
            Self::Dead => "dead",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Stream => "Stream",
            Self::Group => "Group",
            Self::State => "State",
            Self::Waiting => "Waiting",
            Self::Oldest => "Oldest waiting",
            Self::Running => "Running",
            Self::Pending => "Pending",
            Self::Retries => "Retries",
            Self::Dead => "Dead letters",
            Self::Done => "Done",
            Self::Failed => "Failed",
        }
    }

    /// Whether the column contains numbers. A column of numbers is sorted with the largest first by default.
    pub(crate) const fn is_number(self) -> bool {
        !matches!(self, Self::Stream | Self::Group | Self::State)
    }

    fn compare(self, one: &FleetRow<'_>, other: &FleetRow<'_>) -> Ordering {
        let (a, b) = (one.sampled, other.sampled);
        match self {
            Self::Stream => one.stream.cmp(other.stream),
            Self::Group => a.info.group.cmp(&b.info.group),
            Self::State => rank(a).cmp(&rank(b)),
            Self::Waiting => a.info.backlog.entries.cmp(&b.info.backlog.entries),
            Self::Oldest => oldest(a).cmp(&oldest(b)),
            Self::Running => a.running().cmp(&b.running()),
            Self::Pending => a.info.pending.cmp(&b.info.pending),
            Self::Retries => a.info.retrying.cmp(&b.info.retrying),
            Self::Dead => dead(one).cmp(&dead(other)),
            Self::Done => done(a).total_cmp(&done(b)),
            Self::Failed => failed(a).total_cmp(&failed(b)),
        }
    }
}

fn oldest(group: &GroupSnapshot) -> Duration {
    group.info.oldest_waiting.unwrap_or_default()
}

fn done(group: &GroupSnapshot) -> f64 {
    group.minute.unwrap_or_default().done
}

fn failed(group: &GroupSnapshot) -> f64 {
    group.minute.unwrap_or_default().failed
}

/// An unknown number counts as the largest, because someone has to look at it.
fn dead(row: &FleetRow<'_>) -> u64 {
    row.dead.map_or(u64::MAX, |dead| dead.number)
}

/// The place of a group's state in the order: the worst state comes first.
fn rank(group: &GroupSnapshot) -> u8 {
    match group.diagnosis.problems.first().map(|worst| worst.severity()) {
        Some(Severity::Critical) => 0,
        Some(_) => 1,
        None => 2,
    }
}

impl FleetOrder {
    pub(crate) fn of(asked: &Fields) -> Result<Self, Fault> {
        let by = asked.get("sort").map(|name| {
            let column = Column::ALL.into_iter().find(|column| column.as_str() == name);
            column.ok_or_else(|| Fault::bad_request("Invalid column to sort by."))
        });
        let by = by.transpose()?;
        let is_descending = match asked.get("order") {
            None => by.is_some_and(Column::is_number),
            Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(Fault::bad_request("Invalid order: asc or desc.")),
        };
        let state = match asked.get("state") {
            None | Some("all") => StateFilter::All,
            Some("problems") => StateFilter::Problems,
            Some("healthy") => StateFilter::Healthy,
            Some(_) => return Err(Fault::bad_request("Invalid state.")),
        };
        let page = asked.number("page", PAGE_MAX)?.unwrap_or(1).max(1);
        let page = usize::try_from(page).unwrap_or(1);
        let text = asked.get("q").map(str::to_lowercase);
        Ok(Self { text, state, by, is_descending, page })
    }

    /// The matching groups of a snapshot, of one stream or of all, in order.
    pub(crate) fn rows<'a>(&self, snapshot: &'a Snapshot, of: Option<&str>) -> Vec<FleetRow<'a>> {
        let mut rows = Vec::new();
        for stream in &snapshot.streams {
            let name = stream.name.as_str();
            let Ok(found) = &stream.found else { continue };
            if of.is_some_and(|of| of != name) {
                continue;
            }
            let all = found.groups.iter().map(|sampled| FleetRow {
                stream: name,
                sampled,
                dead: snapshot.dead(&sampled.info),
            });
            rows.extend(all.filter(|row| self.includes(row)));
        }
        let names = |row: &FleetRow<'a>| (row.stream, row.sampled.info.group.as_str());
        rows.sort_by(|one, other| {
            let order = self.by.map_or(Ordering::Equal, |by| by.compare(one, other));
            let order = if self.is_descending { order.reverse() } else { order };
            order.then_with(|| names(one).cmp(&names(other)))
        });
        rows
    }

    /// The groups that the server refused to read, with their streams, by name. It is not known whether
    /// they have problems, so they do not count as healthy.
    pub(crate) fn failed<'a>(
        &self,
        snapshot: &'a Snapshot,
        of: Option<&str>,
    ) -> Vec<FailedRow<'a>> {
        if self.state == StateFilter::Healthy {
            return Vec::new();
        }
        let mut rows = Vec::new();
        for stream in &snapshot.streams {
            let stream_name = stream.name.as_str();
            let Ok(found) = &stream.found else { continue };
            if of.is_some_and(|of| of != stream_name) {
                continue;
            }
            let all = found.failed.iter();
            let all = all.map(|(group, fault)| (stream_name, group.as_str(), fault));
            rows.extend(all.filter(|(_, group, _)| self.is_named(stream_name, group)));
        }
        rows
    }

    fn includes(&self, row: &FleetRow<'_>) -> bool {
        let is_healthy = row.sampled.diagnosis.is_healthy();
        (match self.state {
            StateFilter::All => true,
            StateFilter::Problems => !is_healthy,
            StateFilter::Healthy => is_healthy,
        }) && self.is_named(row.stream, &row.sampled.info.group)
    }

    /// Whether the name of the stream or of the group contains the requested text.
    fn is_named(&self, stream: &str, group: &str) -> bool {
        let has = |name: &str, text: &str| name.to_lowercase().contains(text);
        self.text.as_deref().is_none_or(|text| has(stream, text) || has(group, text))
    }

    /// Whether all groups are shown.
    pub(crate) fn is_all(&self) -> bool {
        self.text.is_none() && self.state == StateFilter::All
    }
}

/// The last page that an address can ask for.
const PAGE_MAX: u64 = 1_000_000;
