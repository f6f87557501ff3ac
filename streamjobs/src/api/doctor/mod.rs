//! The doctor: checks whether a server, as it is configured, keeps jobs safe.
//!
//! ```no_run
//! # async fn look(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use streamjobs::doctor::Severity;
//!
//! let checkup = client.doctor().await?;
//! for finding in &checkup.findings {
//!     println!("{:?}: {}, {}", finding.check, finding.what, finding.meaning);
//! }
//! if checkup.worst() == Some(Severity::Critical) {
//!     return Err("the server would lose jobs".into());
//! }
//! # Ok(())
//! # }
//! ```

mod access;
mod checkup;
mod cluster;
mod finding;
mod rights;
mod rules;
mod schedules;

pub use self::checkup::Checkup;
pub use self::finding::{Check, Finding, FoundOn};
pub use crate::insight::severity::Severity;
pub use crate::model::access::Access;

use std::time::Duration;

use futures_util::future::{join_all, join3, try_join_all};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::handler::registry::linked;
use crate::insight::view::beyond;
use crate::model::config::LEASE;
use crate::model::error::{BoxError, DoctorError};
use crate::model::heartbeat::Heartbeat;
use crate::model::name::{GroupName, StreamName};
use crate::model::partition::Partitions;
use crate::publish::client::Client;
use crate::store::schedules::ListedSchedules;
use crate::store::{Queue, StoreError};

impl Client {
    /// Examines the server: its version and known faults, eviction, persistence, limits that are
    /// nearly reached, the user's rights on the keys of every linked handler, whether the cursor of
    /// every linked group is within its stream, and whether the first 1,000 schedules of its stream fire.
    ///
    /// Of a cluster, every node that has slots is examined, and the cluster as a whole: slots without a
    /// node, nodes that cannot be reached, different versions, and what a failover loses or interrupts.
    ///
    /// It changes nothing. It sends at most two dozen requests to each node, three for each group, one for each group
    /// on each further partition, and one for the schedules of each partition. Call it at each start, and log the
    /// findings or refuse to start. A value that the server does not report is a finding as well.
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
    /// When the server, or every node of the cluster, does not answer within 10 seconds.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn doctor(&self) -> Result<Checkup, DoctorError> {
        let handlers = linked();
        self.doctor_for(handlers.iter().map(|handler| (handler.stream, handler.group))).await
    }

    /// Examines the server as [`doctor`](Self::doctor) does, with the rights on the keys of these
    /// streams and groups. Without streams and groups, rights are checked on a key that does not
    /// exist.
    ///
    /// # Errors
    ///
    /// When one of the names is invalid, or the server, or every node of the cluster, does not answer
    /// within 10 seconds.
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
        let asked = tokio::time::timeout(DEADLINE, self.examine(&queues)).await;
        let asked = asked.unwrap_or_else(|late| Err(StoreError::Unreachable(BoxError::from(late))));
        asked.map_err(|error| DoctorError::Server(error.into()))
    }

    async fn examine(&self, queues: &[Queue]) -> Result<Checkup, StoreError> {
        let (mut tried, mut all) = (Vec::new(), Vec::new());
        for (queue, partitions) in self.with_partitions(queues).await? {
            let on = |stream| Queue { stream, group: queue.group.clone() };
            let mut on_partitions = partitions.into_iter().map(on).collect::<Vec<_>>();
            // Rules of access lists cover all partitions, so the rights are tried on the last one
            // only.
            let last = on_partitions.last().filter(|last| *last != queue).cloned();
            tried.extend([queue.clone()].into_iter().chain(last));
            all.append(&mut on_partitions);
        }
        let until = Instant::now() + GROUPS_DEADLINE;
        let cursors = stream::iter(&all).map(|queue| in_time(until, self.beyond(queue)));
        let cursors = cursors.buffered(AT_ONCE).collect::<Vec<_>>();
        let mut streams = all.iter().map(|queue| &queue.stream).collect::<Vec<_>>();
        streams.dedup();
        let idle = streams.into_iter().map(|stream| in_time(until, self.idle_schedules(stream)));
        let idle = stream::iter(idle).buffered(AT_ONCE).collect::<Vec<_>>();
        let (facts, cursors, idle) = join3(self.store().facts(&tried), cursors, idle).await;
        let (facts, mut findings, mut failed) = (facts?, Vec::new(), Vec::new());
        for cursor in cursors {
            match cursor {
                Ok(beyond) => findings.extend(beyond),
                // The other nodes are examined all the same.
                Err(error) if facts.cluster.is_some() => failed.push(error),
                Err(error) => return Err(error),
            }
        }
        findings.extend(cluster::groups_unchecked(&failed));
        // Other steps say which node does not answer.
        findings.extend(idle.into_iter().flatten().flatten());
        let mut lease = None;
        if facts.cluster.is_some() {
            let until = Instant::now() + LEASES_DEADLINE;
            let leases = queues.iter().map(|queue| in_time(until, self.lease_of(queue)));
            lease = join_all(leases).await.into_iter().filter_map(|own| own.ok().flatten()).min();
        }
        Ok(Checkup::of(&facts, lease.unwrap_or(LEASE), findings))
    }

    /// The queues, each with the partitions of its stream.
    async fn with_partitions<'q>(
        &self,
        queues: &'q [Queue],
    ) -> Result<Vec<(&'q Queue, Vec<StreamName>)>, StoreError> {
        let until = Instant::now() + PARTITIONS_DEADLINE;
        let partitions = queues.iter().map(|queue| self.partitions_of(&queue.stream, until));
        let partitions = try_join_all(partitions).await?;
        Ok(queues.iter().zip(partitions).collect())
    }

    /// The partitions of a stream, as the server knows them. If this client may not ask, or the node of the stream
    /// does not answer: the partitions that this client was told of.
    async fn partitions_of(
        &self,
        stream: &StreamName,
        until: Instant,
    ) -> Result<Vec<StreamName>, StoreError> {
        let count = match in_time(until, self.store().partitions(stream, 0)).await {
            Ok(count) => count,
            Err(StoreError::Protocol { command }) => return Err(StoreError::Protocol { command }),
            Err(_) => return Ok(self.partitions(stream)),
        };
        let partitions = Partitions::new(stream, count);
        Ok(partitions.map_or_else(|_| vec![stream.clone()], |all| all.names().cloned().collect()))
    }

    /// The shortest lease of the processes that have the group; `None` if no process has it.
    async fn lease_of(&self, queue: &Queue) -> Result<Option<Duration>, StoreError> {
        let consumers = match self.store().consumers(queue).await {
            Ok(consumers) => consumers.consumers,
            Err(StoreError::GroupMissing | StoreError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let about = consumers.iter().filter_map(|consumer| consumer.about.as_deref());
        let leases = about.filter_map(Heartbeat::read).map(|about| about.lease(LEASE));
        Ok(leases.min())
    }

    /// The findings about schedules that do not fire. A stream that may not be read has none.
    async fn idle_schedules(&self, stream: &StreamName) -> Result<Vec<Finding>, StoreError> {
        let first = ListedSchedules::After("");
        let page = self.store().schedules(stream, first, SCHEDULES_SEEN, false).await?;
        Ok(schedules::findings(stream, &page))
    }

    /// The finding of a cursor beyond the end of its stream. A group that is missing or may not be
    /// read has no such finding: missing rights are findings of their own.
    async fn beyond(&self, queue: &Queue) -> Result<Option<Finding>, StoreError> {
        match self.store().group_facts(queue).await {
            Ok(facts) => Ok(rules::cursor(queue, facts.cursor, beyond(&facts))),
            Err(StoreError::GroupMissing | StoreError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Fails when the answer has not come by this time.
async fn in_time<T>(
    until: Instant,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout_at(until, asking).await;
    answer.unwrap_or_else(|_| Err(StoreError::Unreachable("it did not answer in time".into())))
}

/// How many groups are asked about at the same time.
const AT_ONCE: usize = 16;
/// How long the nodes of all streams may take to say how many partitions the streams have. With this limit, and the
/// time for a node that does not answer, the examination ends before its overall deadline.
const PARTITIONS_DEADLINE: Duration = Duration::from_secs(2);
const GROUPS_DEADLINE: Duration = Duration::from_secs(5);
const LEASES_DEADLINE: Duration = Duration::from_secs(2);
const SCHEDULES_SEEN: usize = 1_000;
/// How long the whole examination may take: more than a connection and one request need.
const DEADLINE: Duration = Duration::from_secs(10);
