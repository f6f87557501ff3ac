//! The schedules of one stream in memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::schedules::Score;
use crate::store::schedules::{
    NewSchedule, ScheduleFacts, ScheduleKind, ScheduleRecord, StoredSpec,
};

/// The schedules of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Timetable {
    /// When each schedule is due, and its name.
    pub(super) places: BTreeSet<(u64, String)>,
    pub(super) rows: BTreeMap<String, Row>,
    pub(super) version: u64,
}

/// One schedule.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// `None` if what is stored cannot be read.
    pub(super) spec: Option<NewSchedule>,
    pub(super) record: ScheduleRecord,
    /// When each definition was last declared.
    pub(super) declared: BTreeMap<String, u64>,
}

impl Row {
    /// When the stored definition was last declared.
    pub(super) fn declared(&self) -> Option<u64> {
        self.declared.get(&self.spec.as_ref()?.digest).copied()
    }

    /// Whether the stored definition has this digest.
    pub(super) fn is(&self, digest: &str) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.digest == digest)
    }

    pub(super) fn kind(&self) -> Option<ScheduleKind> {
        self.spec.as_ref().map(|spec| spec.kind)
    }
}

impl Timetable {
    pub(super) fn is_used(&self) -> bool {
        !self.places.is_empty() || !self.rows.is_empty()
    }

    pub(super) fn place(&self, name: &str) -> Option<u64> {
        self.places.iter().find(|(_, place)| place == name).map(|(at, _)| *at)
    }

    /// Sets when a schedule is due next; with `None`, it has no next time.
    pub(super) fn set_place(&mut self, name: &str, at: Option<u64>) {
        self.places.retain(|(_, place)| place != name);
        self.places.extend(at.map(|at| (at, name.to_owned())));
    }

    pub(super) fn change_version(&mut self, now: u64) {
        self.version = now.max(self.version + 1);
    }

    /// Removes a schedule. Returns whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let placed = self.place(name).is_some();
        self.set_place(name, None);
        self.rows.remove(name).is_some() || placed
    }

    pub(super) fn facts(&self, name: &str, row: &Row, payloads: bool) -> ScheduleFacts {
        let spec = row.spec.as_ref().map(|spec| {
            let bytes = spec.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
            StoredSpec {
                digest: spec.digest.clone(),
                kind: spec.kind,
                about: spec.about.clone(),
                fields: if payloads { spec.fields.clone() } else { Vec::new() },
                bytes: super::stream::count(bytes),
            }
        });
        let record = ScheduleRecord { declared: row.declared(), ..row.record };
        let next = self.place(name).map(score);
        ScheduleFacts { name: name.to_owned(), next, spec, record }
    }
}

pub(super) fn score(at: u64) -> Score {
    Score { text: at.to_string(), at }
}
