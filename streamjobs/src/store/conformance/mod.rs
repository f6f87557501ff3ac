//! What both stores are held to: the contract of [`Store`](super::Store) as claims that run.
//!
//! Each case gets a [`Stage`] with a fresh store. Where a server would have to grow old, the test's
//! [`Hands`] make it so.

pub mod groups;
pub mod held;
pub mod letters;
pub mod log;
pub mod marks;
pub mod random;
pub mod reading;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Appended, ClaimedPage, Delivery, IdleClaim, Inlet, NewEntry, Queue, ReadRequest, Store,
    StoreError, StreamReader,
};
use crate::model::cause::BoxError;
use crate::model::config::{Retention, Start};
use crate::model::entry::{EntryId, Fields, Hold};
use crate::model::name::{ConsumerName, GroupName, StreamName};

/// What a case returns: an error is a failure like a refused assertion.
pub type Case = Result<(), BoxError>;

/// What happens to a store without its doing.
pub trait Hands: Send + Sync {
    /// Appends as another client would.
    fn append(&self, key: &str, fields: Fields) -> EntryId;
    /// Whether a stream has an entry.
    fn has(&self, key: &str, id: EntryId) -> bool;
    /// Deletes an entry from a stream, not from pending lists.
    fn delete(&self, key: &str, id: EntryId);
    /// Destroys a group.
    fn destroy_group(&self, key: &str, group: &str);
    /// Deletes everything.
    fn flush(&self);
    /// Makes a pending entry look idle for this long.
    fn age(&self, key: &str, group: &str, id: EntryId, idle: Duration);
    /// Sets a job aside under a name of its own and without a record, due at a time of the server's.
    fn schedule_retry(&self, queue: &Queue, name: &str, due: u64);
    /// The pending list.
    fn pending(&self, key: &str, group: &str) -> Vec<PendingRow>;
    /// The number of entries.
    fn length(&self, key: &str) -> usize;
    /// The consumers of a group.
    fn consumers(&self, key: &str, group: &str) -> Vec<String>;
}

/// One pending entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRow {
    /// The entry.
    pub id: EntryId,
    /// Who has it.
    pub consumer: String,
    /// How long nothing was heard of it.
    pub idle: Duration,
    /// How often it was delivered.
    pub delivery_count: u64,
}

/// A fresh store with one queue and two consumers.
pub struct Stage {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What the test does behind its back.
    pub hands: Arc<dyn Hands>,
    /// The queue.
    pub queue: Queue,
    /// The consumer that the cases are about.
    pub me: ConsumerName,
    /// Another one.
    pub other: ConsumerName,
}

impl Stage {
    /// A stage whose group is prepared at the beginning.
    ///
    /// # Errors
    ///
    /// When the store does not prepare.
    pub async fn new(store: Arc<dyn Store>, hands: Arc<dyn Hands>) -> Result<Self, BoxError> {
        let queue = Queue { stream: StreamName::new("orders")?, group: GroupName::new("work")? };
        let (me, other) = (ConsumerName::new("me")?, ConsumerName::new("other")?);
        store.prepare(&queue, Start::Beginning).await?;
        Ok(Self { store, hands, queue, me, other })
    }

    fn key(&self, inlet: Inlet) -> String {
        self.queue.key(inlet)
    }

    fn dead_key(&self) -> String {
        self.queue.stream.dead_key(&self.queue.group)
    }

    async fn append(&self, count: usize) -> Result<Vec<EntryId>, BoxError> {
        let entries = (0..count).map(|number| fields(&number.to_string())).collect();
        let (store, stream) = (self.store.as_ref(), &self.queue.stream);
        let answers = append(store, stream, Retention::Unlimited, entries).await;
        Ok(answers.into_iter().collect::<Result<_, _>>()?)
    }

    async fn reader(&self, consumer: &ConsumerName) -> Result<Box<dyn StreamReader>, StoreError> {
        self.store.reader(&self.queue, consumer, Duration::from_secs(2)).await
    }

    /// Reads without waiting.
    async fn read(
        &self,
        consumer: &ConsumerName,
        inlet: Inlet,
        count: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let request = ReadRequest { acks: &[], inlet, count, block: None };
        self.reader(consumer).await?.read(request).await?.deliveries
    }

    /// Appends entries and has them delivered to the first consumer.
    async fn deliver(&self, count: usize) -> Result<Vec<Hold>, BoxError> {
        self.append(count).await?;
        let delivered = self.read(&self.me, Inlet::STREAM, count).await?;
        assert_eq!(delivered.len(), count);
        Ok(delivered.iter().map(Delivery::hold).collect())
    }

    async fn deliver_one(&self) -> Result<Hold, BoxError> {
        self.deliver(1).await?.pop().ok_or_else(|| "nothing was delivered".into())
    }

    /// Makes an entry of the stream look abandoned.
    fn abandon(&self, hold: Hold) {
        let key = self.key(hold.inlet);
        self.hands.age(&key, self.queue.group.as_str(), hold.id, LEASE * 2);
    }

    fn pending(&self, inlet: Inlet) -> Vec<PendingRow> {
        self.hands.pending(&self.key(inlet), self.queue.group.as_str())
    }

    /// Waits until the store's clock has gone on by more than so much.
    async fn pass(&self, milliseconds: u64) -> Result<(), StoreError> {
        let began = self.store.now().await?;
        while self.store.now().await?.0 <= began.0 + milliseconds {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn row(&self, id: EntryId) -> Option<PendingRow> {
        self.pending(Inlet::STREAM).into_iter().find(|row| row.id == id)
    }

    /// Sweeps one page for a consumer: cursor, claimed, trimmed.
    async fn claim_idle(
        &self,
        consumer: &ConsumerName,
        cursor: EntryId,
        limit: usize,
    ) -> Result<(EntryId, Vec<Delivery>, usize), BoxError> {
        let inlet = Inlet::STREAM;
        let sweep = IdleClaim { inlet, lease: LEASE, cursor, limit, expected: None, skip: &[] };
        match self.store.claim_idle(&self.queue, consumer, sweep).await? {
            ClaimedPage::Page { cursor, claimed, trimmed, .. } => Ok((cursor, claimed, trimmed)),
            ClaimedPage::ClockOff { .. } => Err("a clock that was not looked at was off".into()),
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// An entry with everything that text formats trip over.
fn fields(name: &str) -> Fields {
    vec![
        (Bytes::from_static(b"type"), Bytes::from_static(b"t")),
        (Bytes::from_static(b"name"), name.to_owned().into()),
        (Bytes::from_static(b"binary"), Bytes::from_static(b"\0\xff\r\n")),
        (Bytes::new(), Bytes::new()),
        (Bytes::from_static(b"name"), Bytes::from_static(b"again")),
    ]
}

/// Appends entries and waits for their answers.
pub async fn append(
    store: &dyn Store,
    stream: &StreamName,
    retention: Retention,
    entries: Vec<NewEntry>,
) -> Vec<Appended> {
    let mut appender = store.appender(stream, retention);
    appender.push(entries).await;
    appender.finish().await
}

/// Long enough that nothing grows old by itself while a case runs.
const LEASE: Duration = Duration::from_secs(60);

/// Makes a test of every case: `conformance_tests!(tokio::test, stage().await)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($test:meta, $stage:expr) => {
        $crate::__conformance_tests! { @each $test, $stage;
            reading entries_are_delivered_once_in_order_with_count_one,
            reading no_more_is_delivered_than_asked_for,
            reading a_count_of_nothing_reads_nothing_and_acknowledges,
            reading a_waiting_read_ends_with_an_entry,
            reading a_waiting_read_ends_with_its_time,
            reading a_waiting_read_is_ended_by_waking_it,
            reading acknowledgements_ride_in_front_of_a_read,
            reading an_acknowledged_entry_of_the_lane_is_deleted,
            reading an_entry_of_another_client_is_delivered_as_it_is,
            reading a_thousand_entries_of_one_append_keep_their_order,
            reading a_cap_at_appending_cuts_the_oldest,
            held a_renewal_resets_idle_time_and_not_the_count,
            held a_renewal_by_anybody_else_is_refused,
            held a_renewal_of_a_trimmed_entry_leaves_a_dead_letter,
            held a_released_entry_is_claimable_at_once_and_uncounted,
            held a_job_waiting_for_retry_comes_back_whole_in_the_lane,
            held a_job_waiting_for_retry_waits_for_its_delay,
            held jobs_waiting_for_retry_are_seen_in_the_order_in_which_they_are_due,
            held jobs_waiting_for_retry_by_others_are_seen_with_their_names,
            held a_job_that_is_to_run_now_is_due_at_once,
            held a_dead_lettered_job_is_stored_whole_and_acknowledged,
            held a_settled_entry_cannot_be_settled_again,
            held a_trimmed_entry_can_still_be_retried_and_dead_lettered,
            held a_letter_of_a_loss_is_replaced_by_the_job_it_stands_for,
            held a_sweep_claims_what_is_idle_and_counts_it,
            held a_sweep_skips_what_it_is_told_to,
            held a_sweep_keeps_its_limit_and_its_cursor,
            held a_sweep_stores_trimmed_entries_as_dead_letters,
            held a_sweep_that_meets_another_clock_claims_nothing,
            held a_look_speaks_for_others_for_a_while,
            held idle_entries_are_seen_without_being_touched,
            held lost_deliveries_are_found_and_recovered_uncounted,
            groups preparing_twice_changes_nothing,
            groups a_group_starts_where_it_is_told,
            groups a_destroyed_group_is_recreated_at_its_floor,
            groups a_flushed_group_is_missing_until_it_is_recreated_at_the_beginning,
            groups a_floor_stands_before_the_lowest_pending_entry,
            groups a_consumer_is_retired_only_with_nothing_pending,
            groups only_silent_consumers_are_retired,
            groups a_paused_group_promotes_nothing_until_it_is_resumed,
            groups trimming_history_keeps_what_any_group_needs,
            groups dead_letters_are_paged_redriven_once_and_purged,
            letters letters_are_taken_by_one_each_in_order_and_settled,
            letters letters_whose_lease_is_over_are_taken_again_before_new_ones,
            letters a_letter_that_was_not_taken_is_not_removed,
            letters taken_letters_that_are_gone_are_told_once,
            letters taking_where_there_are_no_letters_makes_nothing,
            letters takers_of_another_group_get_every_letter_too,
            letters a_letter_of_a_loss_waits_while_its_consumer_lives,
            letters a_job_comes_back_once_under_its_token,
            letters a_token_is_forgotten_after_its_time,
            marks work_is_begun_by_one_and_done_for_all,
            marks the_same_job_takes_its_work_over_at_once,
            marks abandoned_work_is_taken_over_when_its_time_is_over,
            log what_is_seen_of_a_stream_and_its_group_is_what_was_done,
            log what_is_trimmed_before_its_delivery_is_counted_once,
            log counting_ends_at_its_limit,
            log the_oldest_unfinished_entry_is_found_wherever_its_job_is,
            log pending_entries_are_paged_and_filtered,
            log a_range_is_read_from_either_end,
            log a_tail_waits_for_what_comes_and_touches_no_group,
            log moved_entries_keep_their_count_and_their_idle_time,
            log all_of_one_consumer_is_handed_over_page_by_page,
            log what_is_made_to_look_abandoned_is_claimed_at_once,
            log a_group_moves_over_undelivered_entries_only_when_told,
            log a_group_is_destroyed_only_when_it_is_done_or_when_told,
            log a_cut_stops_at_what_a_group_needs_unless_told,
            log a_cut_of_what_is_done_is_held_up_by_nobody,
            log consumers_say_who_they_are_with_every_beat,
        }
    };
    (@each $test:meta, $stage:expr; $($module:ident $case:ident,)*) => {
        $(
            #[$test]
            async fn $case() {
                let done = $crate::__store::conformance::$module::$case(&$stage).await;
                if let Err(error) = done {
                    panic!("{error}");
                }
            }
        )*
    };
}
