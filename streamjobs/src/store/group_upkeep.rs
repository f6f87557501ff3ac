//! How a group is kept running: its Redis groups, due retries, heartbeats, stopped consumers.

use std::time::Duration;

use async_trait::async_trait;

use super::rates::SetRate;
use super::types::{Queue, Result, ServerTime};
use crate::model::config::Start;
use crate::model::entry::EntryId;
use crate::model::limit::CodeLimit;
use crate::model::name::ConsumerName;
pub use crate::model::policy::TypeSight;

/// What [`promote`](GroupUpkeep::promote) did and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Due jobs that were moved to the lane.
    pub promoted: usize,
    /// Entries of the lane that are not delivered yet; zero while the first of them is left to a live
    /// consumer that declares its type.
    pub waiting: usize,
    /// Pending entries of all consumers, in all inlets.
    pub pending: usize,
    /// How long until the next job is due.
    pub next_due: Option<Duration>,
    /// How many times entries of this queue were released. If it changes, there is work to claim.
    pub released: u64,
    /// Due jobs that stay in the retry set although their record is missing, because no dead letter can
    /// be stored.
    pub left: usize,
    /// Jobs that wait for a retry, had lost their place in the retry set, and have got it back.
    pub restored: usize,
    /// At least how many jobs cannot get their lost place back, because the user lacks the right to look
    /// for them.
    pub stranded: usize,
    /// At least how many jobs have lost their place and not got it back yet. A promotion with a limit of zero restores
    /// none.
    pub misplaced: usize,
    /// Whether the group is paused in every process. Then nothing is promoted, and nothing is due.
    pub paused: bool,
    /// Whether events are [scheduled](super::Schedule) to the stream, as far as the user has the right to see them.
    pub scheduled: bool,
    /// The number of the last mark that [cancels](super::Cancels) jobs of the stream; zero without one.
    pub cancels: u64,
    /// Whether the stream has schedules.
    pub has_schedules: bool,
    /// How many jobs wait for a place in the group's [limit](super::Holds).
    pub parked: u64,
    /// The [rate](super::Rates) that an operator has set for the group.
    pub rate: Option<SetRate>,
    /// For how much longer no job of the group starts, because a job has met a limit of the service that
    /// it calls.
    pub limited: Option<Duration>,
    /// The option and the number of the group's [limit](super::Holds) that an operator has set.
    pub limit: Option<CodeLimit>,
    /// The server's clock.
    pub now: ServerTime,
}

/// What [`prepare`](GroupUpkeep::prepare) found. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The stream has the group.
    Found,
    /// The group was created for the first time.
    Created,
    /// The group had existed and was lost, as when the stream was deleted. It was recreated at its floor,
    /// or at the beginning if a new stream ends before the floor.
    Recreated,
}

/// Where a group begins on a stream that does not have it. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginAt {
    /// There.
    Start(Start),
    /// With the first entry that came at this time or later, or at the end if all entries are older.
    Since(ServerTime),
}

/// Since when a group exists. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupMade {
    /// There is no such group, or it was created just now: it begins as configured in each partition.
    New,
    /// It is not known since when. It counts as older than each partition that does not have it.
    Unknown,
    /// It is known of which partitions its stream consisted then.
    With(GroupBirth),
}

/// What was known when a group was created in the first partition of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBirth {
    /// When, by the clock of the first partition's server; `None` if its creator could not ask for the time.
    pub time: Option<ServerTime>,
    /// Of how many partitions its creator was told.
    pub told: u16,
    /// How many partitions were stored for the stream.
    pub stored: u16,
}

impl GroupMade {
    /// Where the group begins in the partition with this number, if the first partition says this of it.
    ///
    /// In a partition that was added later, the group gets all events: its first process may come there after
    /// the events, whatever `start` says.
    pub(crate) fn begin_in(self, number: u16, start: Start) -> BeginAt {
        let birth = match self {
            Self::New => return BeginAt::Start(start),
            Self::Unknown => return BeginAt::Start(Start::Beginning),
            Self::With(birth) => birth,
        };
        if number >= birth.told.max(birth.stored) {
            return BeginAt::Start(Start::Beginning);
        }
        // Its creator has still to create it there, or died before. Or it was removed there.
        let is_unfinished = number < birth.told;
        match (start, birth.time) {
            (Start::Beginning | Start::After(_), _) => BeginAt::Start(start),
            // What has the same millisecond may have been published before the group was asked for.
            (Start::End, Some(time)) if is_unfinished => {
                BeginAt::Since(ServerTime(time.0.saturating_add(1)))
            }
            (Start::End, Some(time)) => {
                BeginAt::Since(ServerTime(time.0.saturating_sub(CLOCKS_APART_MAX)))
            }
            (Start::End, None) if is_unfinished => BeginAt::Start(start),
            (Start::End, None) => BeginAt::Start(Start::Beginning),
        }
    }
}

/// What a heartbeat recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The group's floor: every entry up to this id is done.
    pub floor: EntryId,
    /// Entries that were trimmed before their delivery. Each is reported once, to one consumer.
    pub trimmed_unread: u64,
    /// How often operators have moved or acknowledged entries of the group.
    pub moves: u64,
}

/// The steps of a group's slow loops.
#[async_trait]
pub trait GroupUpkeep: Send + Sync {
    /// Creates the group in every inlet unless it exists: at this place the first time, later at its
    /// floor. What became of the group of the stream.
    ///
    /// In the first partition of a stream, `told` is of how many partitions the caller was told: a group that is
    /// created for the first time keeps it, with what [`group_made`](Self::group_made) returns besides. It is `None`
    /// in the other partitions.
    async fn prepare_at(&self, queue: &Queue, at: BeginAt, told: Option<u16>) -> Result<Prepared>;

    /// The same for a stream without other partitions.
    #[cfg(feature = "testing")]
    async fn prepare(&self, queue: &Queue, start: Start) -> Result<Prepared> {
        self.prepare_at(queue, BeginAt::Start(start), Some(1)).await
    }

    /// Since when a group exists in the first partition of its stream.
    async fn group_made(&self, first: &Queue) -> Result<GroupMade>;

    /// Recreates a lost group at its floor, or at the beginning if the floor is lost as well. Returns
    /// true if it created the group of any inlet.
    async fn recreate(&self, queue: &Queue) -> Result<bool>;

    /// Moves due jobs to the lane, at most `limit`, and reports what waits. Recreates the lane's group
    /// if it was lost. While the group is paused, nothing is moved. If the heartbeat of `consumer` does
    /// not declare the type of a job, the job is left for five seconds to a live consumer that declares
    /// it.
    async fn promote(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        limit: usize,
    ) -> Result<Promoted>;

    /// Records that the consumer is alive, its description `about` with the event types that it
    /// declares, and the group's floor. Counts entries that were trimmed before their delivery.
    async fn heartbeat(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        about: &str,
    ) -> Result<Recorded>;

    /// Removes a consumer unless it has pending entries. Returns false only if it has some.
    async fn retire(&self, queue: &Queue, consumer: &ConsumerName) -> Result<bool>;

    /// Removes consumers that sent no heartbeat for `silence` and have no pending entries. Returns how
    /// many. Gives a heartbeat to a consumer that never sent one. Forgets event types that were neither
    /// declared nor met for three days.
    async fn retire_dead(&self, queue: &Queue, silence: Duration) -> Result<usize>;

    /// Records that a process met an event type without a handler for it, in a job that was delivered
    /// `first` at this time. Returns whether a live process declares the type, or else for how long none
    /// has. If none ever has, that time counts from when the type was first met. A live process that does not list its
    /// types counts as one that declares them all; the step looks for such a process only when that time has reached
    /// `after`.
    async fn sight_type(
        &self,
        queue: &Queue,
        event_type: &str,
        first: ServerTime,
        after: Duration,
    ) -> Result<TypeSight>;
}

/// How far the clocks of two servers may be apart, in milliseconds.
const CLOCKS_APART_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Start = Start::After(EntryId::new(7, 0));
    const ALL: BeginAt = BeginAt::Start(Start::Beginning);

    fn made(time: Option<u64>, told: u16, stored: u16) -> GroupMade {
        GroupMade::With(GroupBirth { time: time.map(ServerTime), told, stored })
    }

    fn since(time: u64) -> BeginAt {
        BeginAt::Since(ServerTime(time))
    }

    #[test]
    fn a_group_that_is_older_than_a_partition_begins_there_at_the_beginning() {
        for start in [Start::Beginning, Start::End, AFTER] {
            assert_eq!(GroupMade::Unknown.begin_in(1, start), ALL);
            for time in [None, Some(100_000)] {
                assert_eq!(made(time, 2, 2).begin_in(2, start), ALL);
                assert_eq!(made(time, 2, 4).begin_in(4, start), ALL);
                // The stored number was lost.
                assert_eq!(made(time, 4, 1).begin_in(4, start), ALL);
            }
        }
    }

    #[test]
    fn a_group_begins_as_configured_in_partitions_that_its_creator_was_told_of() {
        for start in [Start::Beginning, AFTER] {
            assert_eq!(GroupMade::New.begin_in(3, start), BeginAt::Start(start));
            assert_eq!(made(None, 4, 4).begin_in(3, start), BeginAt::Start(start));
            assert_eq!(made(Some(100_000), 4, 4).begin_in(3, start), BeginAt::Start(start));
        }
        assert_eq!(GroupMade::New.begin_in(3, Start::End), BeginAt::Start(Start::End));
        // Nothing before it was created, and if that is not known, nothing before now.
        assert_eq!(made(Some(100_000), 4, 4).begin_in(3, Start::End), since(100_001));
        assert_eq!(made(Some(100_000), 4, 1).begin_in(3, Start::End), since(100_001));
        assert_eq!(made(None, 4, 4).begin_in(3, Start::End), BeginAt::Start(Start::End));
    }

    /// Its processes may have worked since then on those partitions that its creator was told of.
    #[test]
    fn a_group_loses_nothing_in_partitions_that_its_creator_was_not_told_of() {
        assert_eq!(made(Some(100_000), 1, 4).begin_in(3, Start::End), since(90_000));
        assert_eq!(made(Some(5), 2, 4).begin_in(3, Start::End), since(0));
        assert_eq!(made(None, 2, 4).begin_in(3, Start::End), ALL);
        assert_eq!(made(Some(100_000), 2, 4).begin_in(3, AFTER), BeginAt::Start(AFTER));
    }
}
