//! Findings of an examination, and their severity.

use std::fmt;

use crate::insight::severity::Severity;
use crate::insight::words::words;

/// Something that the operator of the jobs should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// What was checked.
    pub check: Check,
    /// What was found.
    pub what: String,
    /// What it means for jobs.
    pub meaning: String,
    /// What to do about it; `None` where nothing needs to be done.
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn critical(
        check: Check,
        what: impl Into<String>,
        meaning: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (what, meaning, advice) = (what.into(), meaning.into(), Some(advice.into()));
        Self { severity: Severity::Critical, check, what, meaning, advice }
    }

    pub(super) fn warning(
        check: Check,
        what: impl Into<String>,
        meaning: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::critical(check, what, meaning, advice) }
    }

    pub(super) fn info(
        check: Check,
        what: impl Into<String>,
        meaning: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        let (what, meaning) = (what.into(), meaning.into());
        Self { severity: Severity::Info, check, what, meaning, advice }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, check, what, meaning, advice } = self;
        write!(f, "{severity} {check}: {what}\n  {meaning}")?;
        match advice {
            Some(advice) => write!(f, "\n  -> {advice}"),
            None => Ok(()),
        }
    }
}

words! {
    /// What is checked of a server.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Check {
        /// Whether this crate supports the product and its version.
        Version = "version",
        /// Faults of this version that are fixed in later ones.
        KnownFault = "known_fault",
        /// Security fixes that this version lacks.
        Security = "security",
        /// Whether the server evicts keys with jobs when its memory is full.
        Eviction = "eviction",
        /// Whether jobs survive a restart, and what a crash of the host loses.
        Persistence = "persistence",
        /// Whether writes to disk succeed.
        DiskWrites = "disk_writes",
        /// Whether the server accepts writes, or is a replica.
        Role = "role",
        /// Whether enough replicas are connected for writes.
        Replicas = "replicas",
        /// Whether another server can take the place of a node of a cluster.
        Cluster = "cluster",
        /// How much of `maxmemory` is used.
        Memory = "memory",
        /// How many of `maxclients` are connected.
        Connections = "connections",
        /// Whether the server closes idle connections.
        IdleTimeout = "idle_timeout",
        /// Whether the settings of streams let retention work.
        Retention = "retention",
        /// Whether the cursor of each group is within its stream.
        Cursor = "cursor",
        /// The difference between the server's clock and this host's.
        Clock = "clock",
        /// Commands and keys that the user may not use.
        Rights = "rights",
        /// What could not be checked.
        Unchecked = "unchecked",
    }
}
