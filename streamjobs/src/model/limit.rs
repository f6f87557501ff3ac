//! Limits on which jobs of a group run at once, over all processes.

use std::num::NonZeroU32;

/// The jobs that a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldScope {
    /// The jobs of one key.
    Key,
    /// All jobs of the group.
    Group,
    /// The jobs of one key. How many may run depends on how many keys have waiting jobs.
    Share,
}

impl HoldScope {
    /// The word for the scope in scripts and heartbeats.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Group => "group",
            Self::Share => "share",
        }
    }
}

/// How many jobs may run at once in all processes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldRule {
    /// What is counted together.
    pub scope: HoldScope,
    /// How many of them may run at once; unused for shares.
    pub limit: NonZeroU32,
    /// Whether a job that waits for its retry keeps its place, so that the jobs behind it wait as well.
    pub blocks: bool,
}

impl HoldRule {
    /// How many jobs of the group may run at once, read from the limit in a process's heartbeat; `None` if that limit
    /// does not count all jobs of the group together.
    pub(crate) fn of_group(text: &str) -> Option<u64> {
        let (limit, of) = text.split_once(" at once for each ")?;
        limit.parse().ok().filter(|_| of == HoldScope::Group.as_str())
    }

    /// The limit as a process writes it in its heartbeat, for others to compare.
    #[must_use]
    pub fn text(self) -> String {
        if self.scope == HoldScope::Share {
            return "fair shares for each key".to_owned();
        }
        let blocks = if self.blocks { ", kept by retries" } else { "" };
        format!("{} at once for each {}{blocks}", self.limit, self.scope.as_str())
    }
}
