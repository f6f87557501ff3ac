//! Scheduled events on streams in memory under a paused clock: when they run, in every state of their
//! groups, and what is asked of the server meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use streamjobs::__store::memory::{Fault, MemoryStore, Passage, View, Watch};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::stream::{Rescheduled, Scheduled};
use streamjobs::{Client, Event, EventId, Runtime, State, StreamName, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.reminder")]
struct Reminder {
    id: usize,
}

/// A reminder that ran: its group, its number, and when.
type Run = (&'static str, usize, Instant);

/// The reminders that ran.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<Run>>>);

impl Runs {
    fn of(&self, group: &str) -> Vec<(usize, Instant)> {
        let runs = self.0.lock().unwrap();
        runs.iter().filter(|run| run.0 == group).map(|(_, id, at)| (*id, *at)).collect()
    }

    async fn wait_for(&self, group: &str, count: usize) {
        let ran = async || self.of(group).len() >= count;
        eventually_async(Duration::from_secs(60), "they have run", ran).await;
    }
}

#[handler(group = "mail")]
async fn mail(reminder: Reminder, State(runs): State<Runs>) {
    runs.0.lock().unwrap().push(("mail", reminder.id, Instant::now()));
}

#[handler(group = "audit")]
async fn audit(reminder: Reminder, State(runs): State<Runs>) {
    runs.0.lock().unwrap().push(("audit", reminder.id, Instant::now()));
}

/// Counts what is asked of the store.
#[derive(Debug, Default)]
struct Requests(Mutex<BTreeMap<&'static str, usize>>);

impl Requests {
    fn take(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Watch for Requests {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        *self.0.lock().unwrap().entry(operation).or_default() += 1;
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

struct Stage {
    store: MemoryStore,
    /// A process that only publishes.
    client: Client,
    requests: Arc<Requests>,
    runs: Runs,
    runtime: Runtime,
}

async fn stage() -> Stage {
    let (store, runs) = (MemoryStore::new(), Runs::default());
    let requests = Arc::new(Requests::default());
    let watched = streamjobs::__store::client(&store.watched(1, requests.clone()));
    let builder = Runtime::builder(&watched).handlers(handlers![mail, audit]).state(runs.clone());
    let runtime = builder.start().await.unwrap();
    let client = streamjobs::__store::client(&store);
    Stage { store, client, requests, runs, runtime }
}

async fn pass(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

const HOUR: Duration = Duration::from_secs(3_600);
const LOOK: Duration = Duration::from_millis(500);
/// What a run may take beyond the look: the read of an idle group is woken at once.
const SLACK: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn an_event_runs_after_its_delay_and_at_most_one_look_later() {
    let stage = stage().await;
    let delays = [200, 1, 450, 2_500, 30_000, 3_600_000, 200].map(Duration::from_millis);
    for (id, delay) in delays.into_iter().enumerate() {
        // The groups are idle.
        pass(Duration::from_secs(60)).await;
        let begun = Instant::now();
        stage.client.publish_in(delay, &Reminder { id }).await.unwrap();
        pass(delay.saturating_sub(begun.elapsed())).await;
        stage.runs.wait_for("mail", id + 1).await;
        stage.runs.wait_for("audit", id + 1).await;
        for group in ["mail", "audit"] {
            let (ran, at) = stage.runs.of(group)[id];
            let waited = at - begun;
            assert!(ran == id && waited >= delay, "{id} in {group}: {waited:?} of {delay:?}");
            assert!(waited <= delay + LOOK + SLACK, "{id} in {group}: {waited:?} of {delay:?}");
        }
    }
    assert_eq!(stage.runtime.counters().scheduled_lost, 0);
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_group_keeps_no_other_from_its_scheduled_events() {
    let stage = stage().await;
    let mail = stage.client.stream("orders").unwrap().group("mail").unwrap();
    let audit = stage.client.stream("orders").unwrap().group("audit").unwrap();
    for (paused, running) in [(&mail, "audit"), (&audit, "mail")] {
        paused.pause().await.unwrap();
        pass(Duration::from_secs(5)).await;
        let before = stage.runs.of(running).len();
        stage.client.publish_in(LOOK, &Reminder { id: 1 }).await.unwrap();
        stage.runs.wait_for(running, before + 1).await;
        paused.resume().await.unwrap();
        pass(Duration::from_secs(20)).await;
    }
    assert_eq!((stage.runs.of("mail").len(), stage.runs.of("audit").len()), (2, 2));
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_event_is_early_or_lost_when_the_servers_clock_jumps() {
    let stage = stage().await;
    let events = (0..20).map(|id| (id, HOUR / 20 * u32::try_from(id).unwrap()));
    for (id, delay) in events.skip(1) {
        stage.client.publish_in(delay, &Reminder { id }).await.unwrap();
    }
    let seen = |stage: &Stage| stage.runs.of("mail").iter().map(|(id, _)| *id).collect::<Vec<_>>();
    pass(HOUR / 8).await;
    assert_eq!(seen(&stage), [1, 2]);
    stage.store.step_clock(-3_600_000);
    pass(HOUR).await;
    assert_eq!(seen(&stage), [1, 2], "by the server's clock, none was due");
    pass(HOUR / 8).await;
    assert_eq!(seen(&stage), [1, 2, 3, 4]);
    stage.store.step_clock(3_600_000);
    pass(Duration::from_secs(2)).await;
    let mut all = seen(&stage);
    all.sort_unstable();
    assert_eq!(all, (1..20).collect::<Vec<_>>(), "each is due, and each ran once");
    let _ = stage.runtime.shutdown().await;
}

/// A relay has a deadline, and publishes in calls of this kind.
#[tokio::test(start_paused = true)]
async fn a_call_that_moves_its_own_first_events_leaves_a_backlog_to_others() {
    let store = MemoryStore::new();
    let client = streamjobs::__store::client(&store);
    let later = UNIX_EPOCH + Duration::from_millis(1_700_000_001_000);
    let events = (0..2_000).map(|id| Reminder { id }).collect::<Vec<_>>();
    let items = events.iter().map(|event| (later, EventId::generate(), event));
    for answer in client.publish_all_at(items).await {
        answer.unwrap();
    }
    pass(Duration::from_secs(2)).await;
    let requests = Arc::new(Requests::default());
    let watched = streamjobs::__store::client(&store.watched(1, requests.clone()));
    watched.publish_in(Duration::from_millis(300), &Reminder { id: 0 }).await.unwrap();
    assert_eq!(requests.take().get("enter"), Some(&1), "one page of the backlog");
    let waiting = client.scheduled("orders").unwrap();
    assert_eq!(waiting.count().await.unwrap(), 1_501);
}

/// An eviction takes all records at once, and with them what says that the stream is scheduled to.
#[tokio::test(start_paused = true)]
async fn events_whose_records_are_all_lost_are_counted() {
    let stage = stage().await;
    let stream = StreamName::new("orders").unwrap();
    for (round, idle) in [Duration::ZERO, HOUR].into_iter().enumerate() {
        stage.client.publish_in(HOUR, &Reminder { id: 1 }).await.unwrap();
        stage.client.publish_in(HOUR * 2, &Reminder { id: 2 }).await.unwrap();
        stage.store.lose_scheduled_records(&stream);
        pass(HOUR + LOOK + SLACK).await;
        let lost = || stage.runtime.counters().scheduled_lost as usize;
        assert_eq!(lost(), round * 2 + 1, "the first was due");
        pass(HOUR).await;
        assert_eq!(lost(), round * 2 + 2, "the second as well");
        pass(idle).await;
    }
    assert_eq!(stage.runs.of("mail"), []);
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn errors_make_scheduled_events_late_and_neither_lose_nor_repeat_them() {
    let stage = stage().await;
    for (id, step) in ["enter", "look_ahead", "enter", "enter"].into_iter().enumerate() {
        let fault = [Fault::AnswerLost, Fault::Unreachable, Fault::RequestLost, Fault::Refused][id];
        stage.client.publish_in(Duration::from_secs(5), &Reminder { id }).await.unwrap();
        pass(Duration::from_secs(4)).await;
        stage.store.fail_next(step, fault);
        stage.runs.wait_for("mail", id + 1).await;
    }
    let id = 4;
    stage.client.publish_in(Duration::from_secs(5), &Reminder { id }).await.unwrap();
    stage.store.stop_server();
    pass(Duration::from_secs(60)).await;
    assert_eq!(stage.runs.of("mail").len(), 4);
    stage.store.start_server();
    pass(Duration::from_secs(30)).await;
    let ran = stage.runs.of("mail").iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ran, [0, 1, 2, 3, 4]);
    assert!(stage.runtime.counters().server_errors >= 4);
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn all_groups_of_a_stream_share_one_look_and_an_unused_stream_needs_none() {
    let stage = stage().await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(stage.requests.take().get("look_ahead"), Some(&1), "at the start");
    pass(Duration::from_secs(600)).await;
    assert_eq!(stage.requests.take().get("look_ahead"), None, "promotions ask for it");
    stage.client.publish_in(HOUR * 24, &Reminder { id: 1 }).await.unwrap();
    pass(Duration::from_secs(4)).await;
    stage.requests.take();
    pass(Duration::from_secs(100)).await;
    let requests = stage.requests.take();
    let looks = requests.get("look_ahead").copied().unwrap_or(0);
    assert!((195..=205).contains(&looks), "twice a second: {requests:?}");
    assert!(!requests.contains_key("enter"), "nothing is due: {requests:?}");
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_consumer_of_another_group_takes_over_when_one_stops() {
    let stage = stage().await;
    for id in 0..2 {
        stage.client.publish_in(Duration::from_secs(30), &Reminder { id }).await.unwrap();
        stage.runs.wait_for("audit", id + 1).await;
        if id == 0 {
            let consumers = stage.runtime.consumers().into_iter();
            for consumer in consumers.filter(|consumer| consumer.group.as_str() == "mail") {
                let _ = stage.runtime.remove_consumer(&consumer.name).await.unwrap();
            }
        }
    }
    assert_eq!((stage.runs.of("mail").len(), stage.runs.of("audit").len()), (1, 2));
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_event_ever_is_not_late_though_no_process_looks_for_it() {
    let stage = stage().await;
    pass(Duration::from_secs(60)).await;
    stage.requests.take();
    let begun = Instant::now();
    let delay = Duration::from_millis(200);
    let scheduled = stage.client.publish_in(delay, &Reminder { id: 1 }).await.unwrap();
    assert!(scheduled.waits());
    assert!(begun.elapsed() >= delay, "this call lasts until the event has entered");
    stage.runs.wait_for("mail", 1).await;
    assert!(begun.elapsed() <= delay + SLACK, "{:?}", begun.elapsed());
    pass(Duration::from_secs(10)).await;
    let begun = Instant::now();
    stage.client.publish_in(delay, &Reminder { id: 3 }).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "from then on, no call waits");
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_event_that_idle_groups_do_not_look_for_can_be_cancelled_or_is_three_seconds_late()
{
    let stage = stage().await;
    pass(Duration::from_secs(60)).await;
    let (begun, delay) = (Instant::now(), Duration::from_millis(501));
    let scheduled = stage.client.publish_in(delay, &Reminder { id: 1 }).await.unwrap();
    stage.client.publish_in(delay, &Reminder { id: 2 }).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let waiting = stage.client.scheduled("orders").unwrap();
    assert!(waiting.cancel(scheduled.event_id()).await.unwrap());
    stage.runs.wait_for("mail", 1).await;
    let waited = stage.runs.of("mail")[0].1 - begun;
    assert!(waited >= delay && waited <= Duration::from_millis(3_350), "{waited:?}");
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_after_the_year_9999_is_refused_and_one_before_now_is_at_once() {
    let stage = stage().await;
    let far = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    let error = stage.client.publish_at(far, &Reminder { id: 1 }).await.unwrap_err();
    assert!(error.to_string().contains("year 9999") && !error.is_unconfirmed(), "{error}");
    let waiting = stage.client.scheduled("orders").unwrap();
    let error = waiting.reschedule(&EventId::generate(), far).await.unwrap_err();
    assert!(error.to_string().contains("year 9999"), "{error}");
    let answer = stage.client.publish_at(UNIX_EPOCH, &Reminder { id: 1 }).await.unwrap();
    let Scheduled::Published(published) = answer else { panic!("{answer:?}") };
    let entry = stage.client.stream("orders").unwrap().entry(published.entry_id).await.unwrap();
    assert_eq!(entry.unwrap().text("sj-due"), None, "it is an event as any other");
    let _ = stage.runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_events_are_listed_cancelled_rescheduled_and_run() {
    let stage = stage().await;
    let stream = StreamName::new("orders").unwrap();
    let waiting = stage.client.scheduled("orders").unwrap();
    let id = |number: usize| EventId::new(format!("e:{number}@1")).unwrap();
    let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_000) + HOUR;
    let events = (0..5).map(|number| Reminder { id: number }).collect::<Vec<_>>();
    let items = events.iter().map(|event| (at + HOUR * event.id as u32, id(event.id), event));
    for answer in stage.client.publish_all_at(items).await {
        let Scheduled::Waits(event) = answer.unwrap() else { panic!("it waits") };
        assert!(!event.repeated && event.due_at() >= at);
    }
    let again = stage.client.publish_at_to(&stream, at, &events[3], id(3)).await.unwrap();
    let Scheduled::Waits(again) = again else { panic!("it waits") };
    assert_eq!((again.repeated, again.due_at()), (true, at + HOUR * 3), "the first time stands");
    assert_eq!(waiting.count().await.unwrap(), 5);
    assert!(waiting.cancel(&id(1)).await.unwrap());
    assert!(!waiting.cancel(&id(1)).await.unwrap());
    let moved = waiting.reschedule(&id(4), at - HOUR / 2).await.unwrap();
    assert!(matches!(moved, Rescheduled::Waits { .. }));
    let Rescheduled::Published(published) = waiting.run_now(&id(2)).await.unwrap() else {
        panic!("it has entered")
    };
    assert_eq!(published.event_id, id(2));
    assert_eq!(waiting.run_now(&id(2)).await.unwrap(), Rescheduled::NotScheduled);
    let first = waiting.list(None, 2).await.unwrap();
    let rest = waiting.list(first.next.as_ref(), 2).await.unwrap();
    let listed = first.events.iter().chain(&rest.events);
    assert_eq!(listed.map(|event| event.id.clone()).collect::<Vec<_>>(), [id(4), id(0), id(3)]);
    assert_eq!((rest.next, first.events[0].event_type.as_deref()), (None, Some("order.reminder")));
    let cursor = first.next.unwrap();
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
    pass(HOUR * 5).await;
    let mut ran = stage.runs.of("mail").iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!((waiting.count().await.unwrap(), ran.remove(0)), (0, 2));
    assert_eq!(ran, [4, 0, 3], "in the order of their times, and never the cancelled one");
    let _ = stage.runtime.shutdown().await;
}
