//! What a process does for each of its queues meets in few requests.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::__store::{Queue, ServerTime};
use streamjobs::config::{GroupOptions, Start};
use streamjobs::{Client, ConsumerName, EventId, GroupName, Runtime, StreamName, handlers};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Order, Work, order, settled, until, work};

const COUNT: u16 = 24;
/// A third of it is long enough for the loops of idle groups to meet.
const LEASE: Duration = Duration::from_secs(6);

struct Partitioned {
    app: App,
    client: Client,
    runtime: Runtime,
    work: Work,
}

impl Partitioned {
    async fn start() -> Self {
        let app = App::on(RedisServer::builder().plain().start().unwrap()).await;
        let client = Client::builder(&app.server.url()).partitions("orders", COUNT);
        let client = client.connect().await.unwrap();
        let work = Work::new(|_, job| async move {
            if job.attempt() == 1 { Err("again".into()) } else { Ok(()) }
        });
        let options = GroupOptions::new()
            .lease(LEASE)
            .concurrency(NonZeroU32::new(8).unwrap())
            .backoff(streamjobs::Backoff::fixed(LEASE * 3 / 2));
        let builder = Runtime::builder(&client).handlers(handlers![self::work]).state(work.clone());
        let runtime = builder.group("work", options).start().await.unwrap();
        Self { app, client, runtime, work }
    }

    fn partitions(&self) -> Vec<StreamName> {
        self.client.partitions(&StreamName::new("orders").unwrap())
    }

    /// When the last heartbeat of each partition came.
    fn heartbeats(&self) -> Vec<u64> {
        let of = |stream: &StreamName| {
            let name = stream.as_str();
            let key = match name.contains('{') {
                true => format!("{name}:group:work"),
                false => format!("{{{name}}}:group:work"),
            };
            let fields = self.app.server.try_query::<Vec<(String, String)>>(&["HGETALL", &key]);
            let beat = fields
                .unwrap_or_default()
                .into_iter()
                .find(|(field, _)| field.starts_with("beat:"));
            beat.map_or(0, |(_, at)| at.parse().unwrap())
        };
        self.partitions().iter().map(of).collect()
    }

    /// Waits until each partition has sent another heartbeat, and says how many scripts were called.
    async fn round_of_heartbeats(&self) -> usize {
        let (before, calls) = (self.heartbeats(), self.app.calls("evalsha"));
        until(DEADLINE, "each partition sends another heartbeat", || {
            self.heartbeats().iter().zip(&before).all(|(now, then)| now > then)
        })
        .await;
        self.app.calls("evalsha") - calls
    }
}

#[tokio::test]
async fn idle_queues_are_kept_up_in_few_requests() {
    let it = Partitioned::start().await;
    // Until no group has been active for a lease, and the loops have met.
    for _ in 0..3 {
        it.round_of_heartbeats().await;
    }
    let counted = it.app.calls("xpending");
    let calls = it.round_of_heartbeats().await;
    let steps = it.app.calls("xpending") - counted;
    // A heartbeat and a promotion read the pending entries once each, and by itself each would be a script.
    assert!(steps > usize::from(COUNT) * 2, "each partition is kept up: {steps}");
    assert!(calls < steps / 2, "{calls} scripts for {steps} heartbeats and promotions");
    // What waits in an idle group is found: a failed job of each customer.
    let events = (0..60).map(order).collect::<Vec<Order>>();
    for answer in it.client.publish_all(&events).await {
        answer.unwrap();
    }
    until(DEADLINE * 2, "each is retried after its back-off", || it.work.count() == 120).await;
    settled(&it.runtime).await;
    assert_eq!(it.work.distinct(), 60);
    let _ = it.runtime.shutdown().await;
}

/// What waits there is far ahead, so that each process asks for each partition twice a second.
#[tokio::test]
async fn looks_for_scheduled_events_of_many_queues_meet_in_few_requests() {
    let it = Partitioned::start().await;
    let events = (0..200).map(|id| Order { id: id.to_string(), customer: id.to_string() });
    let events = events.collect::<Vec<_>>();
    let at = std::time::SystemTime::now() + Duration::from_secs(3_600);
    let items = events.iter().map(|event| (at, streamjobs::EventId::generate(), event));
    for answer in it.client.publish_all_at(items).await {
        assert!(answer.unwrap().waits());
    }
    for partition in it.partitions() {
        let waiting = it.client.scheduled(partition.as_str()).unwrap();
        assert!(waiting.count().await.unwrap() > 0, "{partition}");
    }
    for _ in 0..3 {
        it.round_of_heartbeats().await;
    }
    let (begun, counted) = (std::time::Instant::now(), it.app.calls("zcard"));
    let calls = it.round_of_heartbeats().await;
    let looks = it.app.calls("zcard") - counted;
    println!("{calls} scripts with {looks} looks and promotions in {:?}", begun.elapsed());
    // Each of them has one, and by itself each would be a script.
    assert!(looks > usize::from(COUNT) * 6, "each partition is looked at: {looks}");
    assert!(calls < looks / 4, "{calls} scripts for {looks} looks and promotions");
    let _ = it.runtime.shutdown().await;
}

/// A step that fails for one queue of many is repeated for that one alone, and its error is reported.
#[tokio::test]
async fn a_queue_whose_upkeep_fails_does_not_stop_that_of_the_others() {
    let it = Partitioned::start().await;
    it.round_of_heartbeats().await;
    let broken = it.partitions().swap_remove(3);
    let key = format!("{broken}:group:work");
    it.app.server.command(&["SET", &key, "another type"]);
    let errors = it.runtime.counters().server_errors;
    let others = || {
        let all = it.heartbeats().into_iter().enumerate();
        all.filter(|(place, _)| *place != 3).map(|(_, at)| at).collect::<Vec<_>>()
    };
    let before = others();
    until(DEADLINE, "the others send heartbeats", || {
        others().iter().zip(&before).all(|(now, then)| now > then)
    })
    .await;
    until(DEADLINE, "the failure is counted", || it.runtime.counters().server_errors > errors)
        .await;
    it.app.server.command(&["DEL", &key]);
    it.round_of_heartbeats().await;
    let _ = it.runtime.shutdown().await;
}

/// A full server refuses commands that need memory, but not a script whose first write needs none.
#[tokio::test]
async fn on_a_full_server_processes_stay_alive_and_what_is_removed_goes() {
    let app = App::start().await;
    let (server, store) = (&app.server, streamjobs::__store::of(&app.client));
    let (stream, group) = (StreamName::new("orders").unwrap(), GroupName::new("work").unwrap());
    let queue = Queue { stream, group };
    store.prepare(&queue, Start::Beginning).await.unwrap();
    let (me, hash) = (ConsumerName::new("me").unwrap(), "{orders}:group:work");
    let beat = || server.query::<Option<u64>>(&["HGET", hash, "beat:me"]);
    let event = EventId::new("e-1").unwrap();
    store.cancel(&queue.stream, None, &event).await.unwrap();
    server.command(&["XGROUP", "CREATECONSUMER", "orders", "work", "foreign"]);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    store.heartbeat(&queue, &me, "{}").await.unwrap();
    assert!(beat().is_some());
    store.sight_type(&queue, "t", ServerTime(0), Duration::from_secs(60)).await.unwrap();
    assert_eq!(store.retire_dead(&queue, LEASE).await.unwrap(), 0);
    assert!(server.query::<Option<u64>>(&["HGET", hash, "beat:foreign"]).is_some());
    assert!(store.uncancel(&queue.stream, None, &event).await.unwrap());
}
