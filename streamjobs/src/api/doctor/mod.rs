//! The doctor: checks whether a server, as it is configured, keeps jobs safe.

mod access;
mod finding;
mod rights;
mod rules;

pub use self::finding::{Check, Finding};
pub use crate::insight::severity::Severity;
pub use crate::model::access::Access;

use std::fmt;
use std::time::Duration;

use crate::handler::registry::linked;
use crate::insight::view::beyond;
use crate::model::error::{BoxError, DoctorError};
use crate::model::name::{GroupName, StreamName};
use crate::publish::client::Client;
use crate::store::server_info::ServerFacts;
use crate::store::{Queue, StoreError};

impl Client {
    /// Examines the server: its version and known faults, eviction, persistence, limits that are
    /// nearly reached, the user's rights on the keys of every linked handler, and whether the cursor of
    /// every linked group is within its stream.
    ///
    /// It changes nothing and sends at most a dozen requests, and one for each group. Call it at each start, and log the
    /// findings or refuse to start. What the server does not report is a finding as well.
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
    /// streams and groups. Without any, rights are checked on a key that does not exist.
    ///
    /// # Errors
    ///
    /// When one of the names is invalid, or the server does not answer within 10 seconds.
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
        let asking = async {
            let facts = self.store().facts(&queues).await?;
            let mut beyond = Vec::new();
            for queue in &queues {
                beyond.extend(self.beyond(queue).await?);
            }
            Ok((facts, beyond))
        };
        let asked = tokio::time::timeout(DEADLINE, asking).await;
        let asked = asked.unwrap_or_else(|late| Err(StoreError::Unreachable(BoxError::from(late))));
        let (facts, beyond) = asked.map_err(|error| DoctorError::Server(error.into()))?;
        Ok(Checkup::of(&facts, beyond))
    }

    /// The finding of a cursor beyond the end of its stream. A group that is missing or may not be
    /// read has none: missing rights are findings of their own.
    async fn beyond(&self, queue: &Queue) -> Result<Option<Finding>, StoreError> {
        match self.store().group_facts(queue).await {
            Ok(facts) => Ok(rules::cursor(queue, facts.cursor, beyond(&facts))),
            Err(StoreError::GroupMissing | StoreError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The result of an examination.
///
/// `Display` is a report for people, a few lines for each finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Checkup {
    /// Product, version and address of the server, and the user of the connection.
    pub server: String,
    /// The findings, the most severe first.
    pub findings: Vec<Finding>,
}

impl Checkup {
    /// The highest severity of all findings; `None` without findings.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn of(facts: &ServerFacts, more: Vec<Finding>) -> Self {
        let release = facts.state.as_ref().ok().and_then(|state| state.release.as_ref());
        let release = release.map_or_else(|| "a server".to_owned(), ToString::to_string);
        let server = format!("{release} at {} as user {}", facts.address, facts.user);
        let mut findings = rules::examine(facts);
        findings.extend(more);
        // The sort is stable, so that findings of one severity keep the order of the rules.
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
            f.write_str("\nno findings")?;
        }
        Ok(())
    }
}

/// More than a connection and one request need.
const DEADLINE: Duration = Duration::from_secs(10);
