//! Groups: their state, creating, moving, pausing and removing them.

use std::collections::BTreeSet;

use super::error::{StreamError, present, read_present};
use super::handle::Stream;
use super::part::GroupPart;
use crate::api::dead_letter::DeadLetters;
use crate::api::parts::{Part, together};
use crate::insight::diagnosis::Diagnosis;
use crate::insight::line_holder::LineHolder;
use crate::insight::merge;
use crate::insight::view::{ConsumerInfo, GroupInfo};
use crate::model::config::Start;
use crate::model::entry::{EntryId, Inlet};
use crate::model::name::{GroupName, NameError};
use crate::store::admin::Unfinished;
use crate::store::inspect::OldestUnfinished;
use crate::store::{BeginAt, GroupMade, Prepared, Queue, StoreError};

impl Stream {
    /// The state of all groups on the stream, by name, each at one moment in each partition. Groups
    /// with a name that this crate does not allow, which other clients can create, are left out.
    ///
    /// It sends two requests to each partition and one for each group there, and one more where the
    /// backlog has to be counted.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, StreamError> {
        let groups = self.parts.iter().map(|part| self.groups_of(part)).collect();
        Ok(merge::groups(self.name(), self.parts.count(), read_present(groups).await?))
    }

    /// The names of all groups on the stream, in order: programs that show many groups can then read the state of a
    /// few at a time, with [`Group::info`]. Groups with a name that this crate does not allow are left out.
    ///
    /// It sends two requests to each partition, however many groups there are.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn group_names(&self) -> Result<Vec<GroupName>, StreamError> {
        let names = self.parts.iter().map(|part| self.group_names_of(part)).collect();
        let names = read_present(names).await?.into_iter().flatten();
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    pub(super) async fn groups_of(&self, part: &Part) -> Result<Vec<GroupInfo>, StreamError> {
        let mut groups = Vec::new();
        for group in self.group_names_of(part).await? {
            let queue = Queue { stream: part.stream.clone(), group };
            match GroupInfo::load(self.store.as_ref(), &queue).await {
                Ok(info) => groups.push(info),
                // The group was destroyed meanwhile.
                Err(StoreError::GroupMissing) => {}
                Err(error) => {
                    return Err(StreamError::server(&part.stream, "read the groups of", error));
                }
            }
        }
        Ok(groups)
    }

    pub(super) async fn group_names_of(&self, part: &Part) -> Result<Vec<GroupName>, StreamError> {
        let missing = || StreamError::Missing { stream: part.stream.to_string() };
        self.sizes_of(part).await?.ok_or_else(missing)?;
        let names = self.store.group_names(&part.stream).await;
        let failed = |error| StreamError::server(&part.stream, "read the groups of", error);
        let names = names.map_err(failed)?;
        Ok(names.into_iter().filter_map(|name| GroupName::new(name).ok()).collect())
    }

    /// A handle to a group on the stream. Nothing is sent or created.
    ///
    /// # Errors
    ///
    /// When the name is invalid.
    pub fn group(&self, name: &str) -> Result<Group, NameError> {
        Ok(Group::new(self.clone(), GroupName::new(name)?))
    }
}

/// A handle to a group on a stream. It is cheap to clone.
///
/// Its pending entries are in the stream, except those of due retries and redriven jobs, which are
/// in its [`lane`](Self::lane).
///
/// ```no_run
/// # async fn look(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let group = client.stream("orders")?.group("billing")?;
/// let info = group.info().await?;
/// println!("{} pending, {:?} behind", info.pending, info.lag);
/// for problem in group.diagnose().await?.problems {
///     println!("{problem}");
/// }
/// // No process of the group begins a job until it is resumed.
/// group.pause().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) stream: Stream,
    pub(super) name: GroupName,
    pub(super) inlet: Inlet,
}

impl Group {
    pub(super) fn new(stream: Stream, name: GroupName) -> Self {
        Self { stream, name, inlet: Inlet::STREAM }
    }

    /// The group in each partition.
    pub(super) fn parts(&self) -> Vec<GroupPart> {
        self.stream.parts.iter().map(|part| self.part(part)).collect()
    }

    pub(super) fn part(&self, part: &Part) -> GroupPart {
        let group = GroupPart::new(&self.stream.store, part, self.name.clone());
        GroupPart { inlet: self.inlet, ..group }
    }

    /// Reads something of the group in each partition that has it.
    pub(super) async fn read<T, F>(
        &self,
        ask: impl FnMut(GroupPart) -> F,
    ) -> Result<Vec<T>, StreamError>
    where
        F: Future<Output = Result<T, StreamError>>,
    {
        read_present(self.parts().into_iter().map(ask).collect()).await
    }

    /// Changes something of the group; the change is tried in all partitions.
    pub(super) async fn each<T, F>(
        &self,
        ask: impl FnMut(GroupPart) -> F,
    ) -> Result<Vec<T>, StreamError>
    where
        F: Future<Output = Result<T, StreamError>>,
    {
        present(together(self.parts().into_iter().map(ask).collect()).await)
    }

    /// The same group, with the entries of its lane instead of those of the stream, for
    /// [`pending`](Self::pending), [`claim`](Self::claim), [`release`](Self::release) and
    /// [`acknowledge`](Self::acknowledge).
    #[must_use]
    pub fn lane(&self) -> Self {
        Self { inlet: Inlet::LANE, ..self.clone() }
    }

    /// The state of the group at one moment in each partition. It sends one request to each, and one
    /// more where the backlog has to be counted.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn info(&self) -> Result<GroupInfo, StreamError> {
        let infos = self.read(|part| async move { part.info().await }).await?;
        let whole = merge::group(self.stream.name(), self.stream.parts.count(), infos);
        whole.ok_or_else(|| StreamError::GroupMissing {
            stream: self.stream.name().to_string(),
            group: self.name.to_string(),
        })
    }

    /// The oldest entry that the group may still run, by its publication: undelivered, pending, waiting
    /// for a retry, in the lane, or in a line.
    ///
    /// Guards of events that were published before it are no longer needed, except for dead letters: a redriven job
    /// runs, however old it is.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn oldest_unfinished(&self) -> Result<OldestUnfinished, StreamError> {
        let oldest = self.read(|part| async move { part.oldest_unfinished().await }).await?;
        Ok(merge::oldest(oldest))
    }

    /// Its consumers, by name. The figures of a consumer that reads several partitions are sums, except for its
    /// slots, which the partitions share.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn consumers(&self) -> Result<Vec<ConsumerInfo>, StreamError> {
        let consumers = self.read(|part| async move { part.consumers().await }).await?;
        Ok(merge::consumers(consumers))
    }

    /// In a group with a limit for each key, the job whose place the longest line waits for; `None`
    /// if no job waits in a line.
    ///
    /// The search covers about 2,000 places of the partition with that line: jobs that run, and jobs that keep their
    /// place while they wait for a retry. The answer says if there are more. It sends one request to each partition;
    /// the server reads the payload of one job.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn line_holder(&self) -> Result<Option<LineHolder>, StreamError> {
        let found = self.read(|part| async move { part.line_holder().await }).await?;
        Ok(found.into_iter().flatten().max_by_key(|found| found.jobs))
    }

    /// Diagnoses the group: why its jobs do not run, or not fast enough. Where jobs wait for their key, it also finds
    /// the [job](Self::line_holder) for which they wait, if the user may read that.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn diagnose(&self) -> Result<Diagnosis, StreamError> {
        let diagnosis = Diagnosis::of(&self.info().await?, &self.consumers().await?);
        if !diagnosis.has_line() {
            return Ok(diagnosis);
        }
        // Without the right to read the holder, the diagnosis has no holder.
        Ok(diagnosis.with_line_holder(self.line_holder().await.unwrap_or_default()))
    }

    /// The dead letters of the group.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(&self.stream.store, self.stream.parts.clone(), self.name.clone())
    }

    /// Creates the group unless it exists; true if it was created, in any partition. A group that was lost before
    /// continues at its durable floor. In partitions that were added to the stream of an existing group, it begins
    /// as `docs/partitions.md` says; for that, a handle of such a partition also asks the first one.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses. If the first partition fails, the others are left as they are.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be created.
    pub async fn create(&self, start: Start) -> Result<bool, StreamError> {
        let parts = &self.stream.parts;
        let (first, of_first, others) = self.first_and_others();
        let mut created = Vec::with_capacity(others.len() + 1);
        for part in of_first {
            created.push(part.create(BeginAt::Start(start), Some(parts.told())).await?);
        }
        let is_new = created.contains(&Prepared::Created);
        // A group that begins at the beginning does so everywhere.
        let made = if others.is_empty() || is_new || start == Start::Beginning {
            GroupMade::New
        } else {
            let made = self.stream.store.group_made(&first).await;
            made.map_err(|error| StreamError::of_group(&first, "create a group of", error))?
        };
        let others = others.into_iter().map(|part| async move {
            part.create(made.begin_in(part.number.unwrap_or(0), start), None).await
        });
        created.extend(present(together(others.collect()).await)?);
        Ok(created.iter().any(|prepared| *prepared != Prepared::Found))
    }

    /// Moves the group's cursor to another position; [`Start::End`] skips all undelivered entries. Pending entries
    /// stay pending, and entries after the new position are delivered again. The position applies in each partition;
    /// no cursor is moved if one partition refuses. A position after the end of a partition is its end: entries that
    /// are published later are never skipped.
    ///
    /// # Errors
    ///
    /// When entries would never be delivered and `unfinished` does not allow it, when there is no
    /// such group, or when the server cannot be reached or refuses.
    ///
    /// # Delivery
    ///
    /// Moving back delivers entries again whose jobs the group has done.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be moved.
    pub async fn move_to(&self, place: Start, unfinished: Unfinished) -> Result<(), StreamError> {
        let after = after(place);
        if self.stream.parts.count() > 1 {
            self.read(|part| async move { part.check_move_to(after, unfinished).await }).await?;
        }
        self.each(|part| async move { part.move_to(after, unfinished).await }).await.map(drop)
    }

    /// Whether [`move_to`](Self::move_to) would be refused now; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_move_to(
        &self,
        place: Start,
        unfinished: Unfinished,
    ) -> Result<(), StreamError> {
        let after = after(place);
        let checked =
            self.read(|part| async move { part.check_move_to(after, unfinished).await }).await;
        checked.map(drop)
    }

    /// Removes the group with its retries; its dead letters stay. It is removed from no partition if one
    /// of them refuses, and from the first one before the others: a group that is new there is new everywhere.
    ///
    /// # Errors
    ///
    /// When there is unfinished work and `unfinished` does not allow losing it; when a process serves
    /// the group, or did within the last 15 seconds, because it would recreate the group; when there
    /// is no such group; or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be removed, in each partition. Calling again continues.
    pub async fn destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        if self.stream.parts.count() > 1 {
            self.check_destroy(unfinished).await?;
        }
        let (_, of_first, others) = self.first_and_others();
        let mut destroyed = Vec::with_capacity(others.len() + 1);
        for part in of_first {
            match part.destroy(unfinished).await {
                Err(error) if !error.is_absence() => return Err(error),
                answer => destroyed.push(answer),
            }
        }
        let others = others.into_iter().map(|part| async move { part.destroy(unfinished).await });
        destroyed.extend(together(others.collect()).await);
        present(destroyed).map(drop)
    }

    /// The group's place in the first partition of the stream, which may not be among those of this handle, that
    /// partition if it is, and the other partitions.
    fn first_and_others(&self) -> (Queue, Vec<GroupPart>, Vec<GroupPart>) {
        let first = Queue { stream: self.stream.parts.whole().clone(), group: self.name.clone() };
        let is_first = |part: &GroupPart| part.queue == first;
        let (of_first, others) = self.parts().into_iter().partition(is_first);
        (first, of_first, others)
    }

    /// Whether [`destroy`](Self::destroy) would be refused now; nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_destroy(&self, unfinished: Unfinished) -> Result<(), StreamError> {
        let checked = self.read(|part| async move { part.check_destroy(unfinished).await }).await;
        checked.map(drop)
    }

    /// Pauses the group in every process; true if it was not paused, in any partition. Running handlers continue, no
    /// new job starts, and due retries wait. The pause takes effect within the processes' promote interval, half a
    /// second by default, or six intervals in an idle group. It lasts until [`resume`](Self::resume), and also
    /// applies to processes that start later.
    ///
    /// # Errors
    ///
    /// When there is no such group, or the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the group may or may not be paused. The call can be repeated.
    pub async fn pause(&self) -> Result<bool, StreamError> {
        self.set_paused(true).await
    }

    /// Ends a pause of the group in every process; true if it was paused, in any partition.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<bool, StreamError> {
        self.set_paused(false).await
    }

    async fn set_paused(&self, paused: bool) -> Result<bool, StreamError> {
        let changed = self.each(|part| async move { part.set_paused(paused).await });
        Ok(changed.await?.contains(&true))
    }
}

fn after(place: Start) -> Option<EntryId> {
    match place {
        Start::Beginning => Some(EntryId::ZERO),
        Start::End => None,
        Start::After(id) => Some(id),
    }
}
