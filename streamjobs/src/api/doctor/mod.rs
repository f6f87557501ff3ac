//! Start-up checks: whether jobs can be trusted to this server, as it is set up now.

mod rights;
mod rules;

use std::fmt;
use std::time::Duration;

use crate::handler::registry::linked;
use crate::model::error::{BoxError, DoctorError};
use crate::model::name::{GroupName, StreamName};
use crate::publish::client::Client;
use crate::store::server_info::ServerFacts;
use crate::store::{Queue, StoreError};

impl Client {
    /// Examines the server: its version and the faults known of it, eviction, persistence, limits
    /// that are nearly reached, and the user's rights on the keys of every linked handler.
    ///
    /// Nothing is changed, and a dozen requests are made at most: call it at each start, and refuse
    /// to start or log what it finds. What the server does not tell is a finding as well.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::doctor::Severity;
    ///
    /// let checkup = client.doctor().await?;
    /// if checkup.worst() == Some(Severity::Critical) {
    ///     return Err(checkup.to_string().into());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server does not answer within 10 seconds.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn doctor(&self) -> Result<Checkup, DoctorError> {
        let handlers = linked();
        self.doctor_for(handlers.iter().map(|handler| (handler.stream, handler.group))).await
    }

    /// Examines the server as [`doctor`](Self::doctor) does, with the rights on the keys of these
    /// streams and groups. Without any, rights are tried on a key that does not exist.
    ///
    /// # Errors
    ///
    /// When one of the names is not one, or the server does not answer within 10 seconds.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn doctor_for<'n>(
        &self,
        queues: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Result<Checkup, DoctorError> {
        let queue = |(stream, group)| -> Result<Queue, DoctorError> {
            Ok(Queue { stream: StreamName::new(stream)?, group: GroupName::new(group)? })
        };
        let mut queues = queues.into_iter().map(queue).collect::<Result<Vec<_>, _>>()?;
        queues.sort_unstable_by(|one, other| {
            (&one.stream, &one.group).cmp(&(&other.stream, &other.group))
        });
        queues.dedup();
        let asked = tokio::time::timeout(DEADLINE, self.store().facts(&queues)).await;
        let facts = asked.unwrap_or_else(|late| Err(StoreError::Unreachable(BoxError::from(late))));
        Ok(Checkup::of(&facts.map_err(|error| DoctorError::Server(error.into()))?))
    }
}

/// What an examination of a server has found, the worst first.
///
/// `Display` is a report for people, a few lines for each finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Checkup {
    /// Product, version and address of the server, and the user who asked.
    pub server: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

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

impl Checkup {
    /// How bad the worst finding is; none if there is no finding.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn of(facts: &ServerFacts) -> Self {
        let release = facts.state.as_ref().ok().and_then(|state| state.release.as_ref());
        let release = release.map_or_else(|| "a server".to_owned(), ToString::to_string);
        let server = format!("{release} at {} as user {}", facts.address, facts.user);
        let mut findings = rules::examine(facts);
        // The order of the rules is kept among equals: it is the order in which to read them.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { server, findings }
    }
}

impl fmt::Display for Checkup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)?;
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        if self.findings.is_empty() {
            f.write_str("\nnothing found")?;
        }
        Ok(())
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

/// More than a connection and one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
