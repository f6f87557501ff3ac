//! What an examination finds, and how severe it is.

use std::fmt;

/// Something that those who run the jobs should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was checked.
    pub check: Check,
    /// What was found.
    pub what: String,
    /// What it means for jobs.
    pub meaning: String,
    /// What to do about it; nothing where it is as well left alone.
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

/// How bad a finding is. Closed on purpose: what is between two of them is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; jobs are as safe as they are promised to be.
    Info,
    /// Jobs can be lost, delayed or done again in a situation that will come one day.
    Warning,
    /// Jobs are lost, refused or not worked on, now or at the next restart.
    Critical,
}

impl Severity {
    /// The word for it, the same for ever.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is checked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// Whether this crate knows the product, and its version is new enough.
    Version,
    /// Faults of this version that are fixed in later ones.
    KnownFault,
    /// Security fixes that this version lacks.
    Security,
    /// Whether the server throws keys with jobs away when its memory is full.
    Eviction,
    /// Whether jobs outlast a restart, and what a crash of the machine loses.
    Persistence,
    /// Whether what is written to disk gets there.
    DiskWrites,
    /// Whether it takes writes, or is a replica.
    Role,
    /// Whether as many replicas follow as writes need.
    Replicas,
    /// Whether it is one of several servers that share the keys.
    Cluster,
    /// How much of the allowed memory is used.
    Memory,
    /// How many of the allowed connections are used.
    Connections,
    /// Whether the server closes connections that are silent.
    IdleTimeout,
    /// How far its clock is from ours.
    Clock,
    /// What the user may not do.
    Rights,
    /// What could not be checked.
    Unchecked,
}

impl Check {
    /// The word for it, the same for ever.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::KnownFault => "known_fault",
            Self::Security => "security",
            Self::Eviction => "eviction",
            Self::Persistence => "persistence",
            Self::DiskWrites => "disk_writes",
            Self::Role => "role",
            Self::Replicas => "replicas",
            Self::Cluster => "cluster",
            Self::Memory => "memory",
            Self::Connections => "connections",
            Self::IdleTimeout => "idle_timeout",
            Self::Clock => "clock",
            Self::Rights => "rights",
            Self::Unchecked => "unchecked",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
