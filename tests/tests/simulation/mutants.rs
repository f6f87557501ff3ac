//! The checks bite: each of these does what must not happen, and is found out by name.

use std::sync::Arc;
use std::time::Duration;

use streamjobs::__store::holds::{HoldRule, HoldScope};
use streamjobs::__store::memory::MemoryStore;
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::__store::{
    Consume, DeadLetters, GroupUpkeep, Hold, Holds, IdleClaim, Inlet, ReadRequest, ReaderSetup,
};
use streamjobs::config::{Retention, Start as From};
use streamjobs::runtime::{Counters, ShutdownReport};
use streamjobs::{ConsumerName, EntryId, Fields};
use streamjobs_tests::conformance::append;
use tokio::time::{Instant, advance};

use crate::ledger::Start;
use crate::network::{Network, OPERATOR, PUBLISHER};
use crate::plan::{Action, Limits, Plan, STREAM, Weather};
use crate::state::{Group, queue};

/// A network with one process, number 2, that has the one job there is.
struct Bench {
    network: Arc<Network>,
    bare: MemoryStore,
    store: MemoryStore,
    me: ConsumerName,
    hold: Hold,
}

async fn bench() -> Bench {
    bench_with(None, 1).await
}

async fn bench_with(limits: Option<Limits>, concurrency: u32) -> Bench {
    bench_of(Plan { groups: 1, concurrency, limits, shares_slots: false, ..calm() }).await
}

fn calm() -> Plan {
    let calm = (0..).map(Plan::of).find(|plan| plan.weather == Weather::Calm).unwrap();
    Plan { actions: vec![(Duration::ZERO, Action::Start)], ..calm }
}

async fn bench_of(plan: Plan) -> Bench {
    let (network, bare) = (Arc::new(Network::new(&Arc::new(plan))), MemoryStore::new());
    let store = bare.watched(2, network.clone());
    let (queue, me) = (queue(0), ConsumerName::new("me").unwrap());
    store.prepare(&queue, From::Beginning).await.unwrap();
    let publisher = bare.watched(PUBLISHER, network.clone());
    let fields = fields(&[("type", "t"), ("sj-id", "event-0"), ("data", "payload")]);
    for answer in append(&publisher, &queue.stream, Retention::Unlimited, vec![fields]).await {
        answer.unwrap();
    }
    let mut reader =
        store.reader(&queue, &me, ReaderSetup::waiting(Duration::from_secs(1))).await.unwrap();
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 1, block: None };
    let read = reader.read(request).await.unwrap().deliveries.unwrap();
    let hold = read[0].hold();
    network.ledger(|ledger| ledger.lives(2));
    let bench = Bench { network, bare, store, me, hold };
    bench.expect(None);
    bench
}

fn fields(pairs: &[(&'static str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).to_owned().into())).collect()
}

impl Bench {
    fn expect(&self, invariant: Option<&str>) {
        let failure = self.network.ledger(|ledger| ledger.failure.clone());
        let broken = failure.as_ref().map(|text| text.split(':').next().unwrap());
        assert_eq!(broken, invariant, "{failure:?}");
    }

    fn start(&self) -> Start {
        Start {
            caller: 2,
            job: (0, self.hold.id),
            number: 0,
            entry: self.hold.id,
            consumer: self.me.to_string(),
            attempt: 1,
            count: 1,
        }
    }

    fn begin(&self, start: &Start) {
        self.network.ledger(|ledger| ledger.started(start));
    }

    async fn schedule_retry(&self, origin: &str) {
        let job = fields(&[("type", "t"), ("sj-origin", origin)]);
        let (queue, zero) = (queue(0), Duration::ZERO);
        Consume::schedule_retry(&self.store, &queue, &self.me, self.hold, None, zero, &job)
            .await
            .unwrap();
    }

    async fn store_dead_letter(&self, reason: &str) {
        let (entry, origin) = (self.hold.id.to_string(), self.hold.id.to_string());
        let letter = fields(&[
            ("sj-dead-reason", reason),
            ("sj-dead-entry", &entry),
            ("sj-dead-origin", &origin),
            ("data", "payload"),
        ]);
        self.store.store_dead_letter(&queue(0), &self.me, self.hold, None, &letter).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_before_the_run_is_found() {
    let bench = bench().await;
    bench.store.acknowledge(&queue(0), &[(Inlet::STREAM, bench.hold.id)]).await.unwrap();
    bench.expect(Some("I3"));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_after_a_failure_is_found() {
    let bench = bench().await;
    bench.begin(&bench.start());
    bench.network.ledger(|ledger| ledger.ended(0, Some(false)));
    bench.store.acknowledge(&queue(0), &[(Inlet::STREAM, bench.hold.id)]).await.unwrap();
    bench.expect(Some("I3"));
}

#[tokio::test(start_paused = true)]
async fn a_job_waiting_for_retry_as_another_one_is_found() {
    let bench = bench().await;
    bench.schedule_retry("1-1").await;
    bench.expect(Some("I3"));
}

#[tokio::test(start_paused = true)]
async fn deleted_and_invented_entries_are_found() {
    let bench = bench().await;
    let hands = bench.bare.watched(OPERATOR, bench.network.clone());
    hands.delete(STREAM, bench.hold.id);
    bench.expect(Some("I1"));
    let bench = self::bench().await;
    let hands = bench.bare.watched(OPERATOR, bench.network.clone());
    RawAccess::append(&hands, STREAM, fields(&[("type", "t")]));
    bench.expect(Some("I2"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_not_done_at_the_end_is_found() {
    let bench = bench().await;
    bench.network.ledger(|ledger| {
        assert!(!ledger.is_at_rest());
        ledger.judge_end(true);
    });
    bench.expect(Some("I1"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_with_another_reason_is_found_and_so_is_one_that_goes() {
    let bench = bench().await;
    bench.store_dead_letter("exhausted").await;
    bench.expect(Some("I6"));
    let bench = self::bench().await;
    bench.network.ledger(|ledger| ledger.failures.insert((0, bench.hold.id), 1));
    bench.store_dead_letter("rejected").await;
    bench.expect(None);
    let letters = bench.store.dead_letters(&queue(0), EntryId::ZERO, 1).await.unwrap();
    bench.store.purge(&queue(0), &[letters[0].id()]).await.unwrap();
    bench.expect(Some("I6"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_within_the_lease_is_found() {
    let bench = bench().await;
    let other = bench.bare.watched(3, bench.network.clone());
    let (inlet, cursor, lease) = (Inlet::STREAM, EntryId::ZERO, Duration::ZERO);
    let claim = IdleClaim { inlet, lease, cursor, limit: 1, expected: None, skip: &[] };
    other.claim_idle(&queue(0), &ConsumerName::new("other").unwrap(), claim).await.unwrap();
    bench.expect(Some("I9"));
}

#[tokio::test(start_paused = true)]
async fn a_step_in_the_name_of_another_process_is_found() {
    let bench = bench().await;
    advance(Duration::from_millis(10)).await;
    let other = bench.bare.watched(3, bench.network.clone());
    other.renew(&queue(0), &bench.me, &[bench.hold]).await.unwrap();
    bench.expect(Some("I10"));
}

#[tokio::test(start_paused = true)]
async fn what_stays_with_the_dead_is_found() {
    let bench = bench().await;
    bench.network.ledger(|ledger| ledger.lives(3));
    bench.network.cut(2);
    advance(Duration::from_secs(300)).await;
    bench.network.ledger(|ledger| ledger.nothing_is_left_with_the_dead());
    bench.expect(Some("I8"));
}

#[tokio::test(start_paused = true)]
async fn starts_that_must_not_be_are_found() {
    type Spoil = fn(&mut Start);
    let cases: [(&str, Spoil); 4] = [
        ("I2", |start| start.number = 7),
        ("I7", |start| start.count = 100),
        ("I7", |start| start.attempt = 100),
        ("I4", |_| {}),
    ];
    for (invariant, spoil) in cases {
        let (bench, mut start) = (bench().await, Start { caller: 3, ..bench().await.start() });
        if invariant == "I4" {
            bench.begin(&start);
            bench.network.ledger(|ledger| ledger.ended(0, Some(false)));
            bench.expect(None);
        }
        spoil(&mut start);
        bench.begin(&start);
        bench.expect(Some(invariant));
    }
}

#[tokio::test(start_paused = true)]
async fn one_run_more_than_there_are_shared_slots_is_found() {
    let limits = None;
    let bench =
        bench_of(Plan { groups: 2, concurrency: 1, limits, shares_slots: true, ..calm() }).await;
    bench.begin(&bench.start());
    bench.begin(&Start { job: (1, bench.hold.id), consumer: "other".into(), ..bench.start() });
    bench.expect(Some("I19"));
}

#[tokio::test(start_paused = true)]
async fn two_runs_at_once_are_found_and_so_is_one_more_than_there_are_slots() {
    let bench = bench().await;
    bench.begin(&bench.start());
    bench.begin(&Start { caller: 3, consumer: "other".into(), count: 2, ..bench.start() });
    bench.expect(Some("I9"));
    let bench = self::bench().await;
    let (one, two) = (EntryId::new(1, 1), EntryId::new(1, 2));
    bench.network.ledger(|ledger| {
        ledger.accepted.extend([(one, (1, Vec::new())), (two, (2, Vec::new()))]);
    });
    bench.begin(&Start { job: (0, one), number: 1, entry: one, ..bench.start() });
    bench.begin(&Start { job: (0, two), number: 2, entry: two, ..bench.start() });
    bench.expect(Some("I13"));
}

#[tokio::test(start_paused = true)]
async fn a_start_out_of_order_is_found() {
    let bench = bench().await;
    let early = EntryId::new(1, 1);
    bench.begin(&bench.start());
    bench.network.ledger(|ledger| {
        ledger.ended(0, Some(true));
        ledger.accepted.insert(early, (1, Vec::new()));
    });
    bench.begin(&Start { job: (0, early), number: 1, entry: early, ..bench.start() });
    bench.expect(Some("I12"));
}

/// Numbers of the same key are three apart.
#[tokio::test(start_paused = true)]
async fn more_runs_of_a_key_than_the_limit_are_found_and_so_are_more_places() {
    let bench = bench_with(Some(Limits::PerKey(1)), 2).await;
    let (other, third) = (EntryId::new(u64::MAX, 1), EntryId::new(u64::MAX, 3));
    bench.network.ledger(|ledger| {
        ledger.accepted.extend([(other, (1, Vec::new())), (third, (3, Vec::new()))]);
    });
    bench.begin(&bench.start());
    bench.begin(&Start { job: (0, other), number: 1, entry: other, ..bench.start() });
    bench.expect(None);
    bench.begin(&Start { caller: 3, job: (0, third), number: 3, entry: third, ..bench.start() });
    bench.expect(Some("I16"));
    let bench = bench_with(Some(Limits::PerKey(1)), 2).await;
    let publisher = bench.bare.watched(PUBLISHER, bench.network.clone());
    let jobs = ["event-1", "event-4"].map(|id| {
        fields(&[("type", "t"), ("sj-id", id), ("sj-key", "key-1"), ("data", "payload")])
    });
    let stream = &queue(0).stream;
    for answer in append(&publisher, stream, Retention::Unlimited, jobs.to_vec()).await {
        answer.unwrap();
    }
    let limit = std::num::NonZeroU32::new(2).unwrap();
    let rule = HoldRule { scope: HoldScope::Key, limit, blocks: false, is_order: false };
    bench.store.take(&queue(0), &bench.me, Inlet::STREAM, 2, rule).await.unwrap();
    bench.expect(Some("I16"));
}

#[tokio::test(start_paused = true)]
async fn a_place_beyond_the_share_of_a_key_is_found() {
    let waits = EntryId::new(u64::MAX, 1);
    for (held, broken) in [(1, None), (2, Some("I18"))] {
        let bench = bench_with(Some(Limits::Fair), 2).await;
        let place = |number| ((Inlet::STREAM, EntryId::new(1, number)), "key-0".to_owned());
        let holds = (0..held).map(place).collect();
        let after = Group { holds, lined: vec![waits], ..Group::default() };
        bench.network.ledger(|ledger| {
            ledger.accepted.insert(waits, (1, Vec::new()));
            ledger.judge(0, 2, "take", &Group::default(), &after, 0);
        });
        bench.expect(broken);
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_before_an_earlier_job_of_its_key_is_found() {
    for (limits, is_found) in
        [(Limits::Block, true), (Limits::Skip, true), (Limits::PerKey(2), false)]
    {
        let bench = bench_with(Some(limits), 1).await;
        let later = EntryId::new(u64::MAX, 3);
        bench.network.ledger(|ledger| ledger.accepted.insert(later, (3, Vec::new())));
        bench.begin(&Start { job: (0, later), number: 3, entry: later, ..bench.start() });
        bench.expect(is_found.then_some("I17"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_report_and_a_wrong_counter_are_found() {
    let bench = bench().await;
    let report = ShutdownReport::default();
    bench.network.ledger(|ledger| ledger.judge_stop(2, Instant::now(), 0, &report));
    bench.expect(Some("I11"));
    let bench = self::bench().await;
    bench.network.ledger(|ledger| {
        ledger.tally(2).acknowledged = 1;
        ledger.judge_counters(2, &Counters::default());
    });
    bench.expect(Some("I15"));
}
