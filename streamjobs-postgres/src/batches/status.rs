//! The status of a batch.

use std::time::SystemTime;

use crate::time::Timestamp;

/// The status of a batch, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStatus {
    /// The batch.
    pub id: String,
    /// When it was opened, by the database's clock.
    pub opened_at: SystemTime,
    /// When it last changed: it was opened or closed, or a member ended.
    pub changed_at: SystemTime,
    /// When it was closed; `None` if it is open.
    pub closed_at: Option<SystemTime>,
    /// When it was closed and every member had ended.
    pub completed_at: Option<SystemTime>,
    /// When it was closed, every member had ended, and no member was dead.
    pub succeeded_at: Option<SystemTime>,
    /// How many members it has, ended or not.
    pub members: u64,
    /// How many members have not ended.
    pub unfinished: u64,
    /// How many members are dead letters and have not been done since.
    pub dead: u64,
}

/// The columns of a status, as they are read.
pub(super) type StatusRow = (
    String,
    Timestamp,
    Timestamp,
    Option<Timestamp>,
    Option<Timestamp>,
    Option<Timestamp>,
    i64,
    i64,
    i64,
);

impl BatchStatus {
    pub(super) fn of(row: StatusRow) -> Self {
        let (id, opened, changed, closed, completed, succeeded, members, unfinished, dead) = row;
        let time = |time: Option<Timestamp>| time.map(|time| time.0);
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Self {
            id,
            opened_at: opened.0,
            changed_at: changed.0,
            closed_at: time(closed),
            completed_at: time(completed),
            succeeded_at: time(succeeded),
            members: count(members),
            unfinished: count(unfinished),
            dead: count(dead),
        }
    }
}
