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
    /// The nodes of a cluster where it was found; `None` without a cluster, and for a finding about the cluster as a
    /// whole.
    pub nodes: Option<FoundOn>,
}

/// The nodes of a cluster where something was found.
///
/// `Display` names up to five of them, and says `all 3 nodes` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundOn {
    /// Their addresses.
    pub nodes: Vec<String>,
    /// Whether these are all nodes that were examined.
    pub is_all: bool,
}

impl fmt::Display for FoundOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_all, self.nodes.len()) {
            (true, count) if count > 1 => write!(f, "all {count} nodes"),
            (_, count) => {
                let shown = self.nodes.iter().take(SHOWN_MAX).map(String::as_str);
                f.write_str(&shown.collect::<Vec<_>>().join(", "))?;
                match count.checked_sub(SHOWN_MAX) {
                    Some(more) if more > 0 => write!(f, " and {more} more"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// How many nodes are named.
const SHOWN_MAX: usize = 5;

impl Finding {
    pub(super) fn critical(
        check: Check,
        what: impl Into<String>,
        meaning: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (what, meaning, advice) = (what.into(), meaning.into(), Some(advice.into()));
        Self { severity: Severity::Critical, check, what, meaning, advice, nodes: None }
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
        Self { severity: Severity::Info, check, what, meaning, advice, nodes: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, check, what, meaning, advice, nodes } = self;
        write!(f, "{severity} {check}: {what}")?;
        if let Some(nodes) = nodes {
            write!(f, " (on {nodes})")?;
        }
        write!(f, "\n  {meaning}")?;
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
        /// Faults of this version that are fixed in later versions.
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
        /// Whether a cluster can be used, and whether another server can take the place of a node.
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
        /// Whether schedules fire.
        Schedules = "schedules",
        /// The difference between the server's clock and this host's.
        Clock = "clock",
        /// Commands and keys that the user may not use.
        Rights = "rights",
        /// What could not be checked.
        Unchecked = "unchecked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_its_nodes_and_all_of_them_as_such() {
        let found = |count: usize, is_all| {
            let nodes = (1..=count).map(|port| format!("h:{port}")).collect();
            let nodes = Some(FoundOn { nodes, is_all });
            Finding { nodes, ..Finding::info(Check::Clock, "late", "it is late", None) }.to_string()
        };
        assert_eq!(found(3, true), "info clock: late (on all 3 nodes)\n  it is late");
        assert_eq!(found(2, false), "info clock: late (on h:1, h:2)\n  it is late");
        assert_eq!(found(1, true), "info clock: late (on h:1)\n  it is late");
        assert!(found(5, false).contains("(on h:1, h:2, h:3, h:4, h:5)"));
        assert!(found(7, false).contains("h:5 and 2 more)"));
    }
}
