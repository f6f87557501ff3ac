//! What a user of the server is for.

/// What a user of the server is for, which determines the rights that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// Publishes events, with any retention.
    Publish,
    /// Publishes events, including scheduled, unique and debounced ones; cancels and reschedules events that wait, and
    /// frees the locks of unique events.
    Schedule,
    /// Runs jobs, with marks and an archive: a process with a runtime. It may also publish and schedule.
    Work,
    /// Reads streams, groups and dead letters, and changes nothing: the dashboard without actions, the commands that
    /// only show something, `diagnose`, the doctor.
    Read,
    /// Reads, and changes streams, groups, pending entries, scheduled events, schedules and dead letters: the actions of the
    /// dashboard and of the command line. It runs no jobs.
    Operate,
}

impl Access {
    /// Every kind of access.
    pub const ALL: [Self; 5] =
        [Self::Publish, Self::Schedule, Self::Work, Self::Read, Self::Operate];

    /// A short name, such as `publish`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Schedule => "schedule",
            Self::Work => "work",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}
