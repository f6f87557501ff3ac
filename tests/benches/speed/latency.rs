//! How long it takes from the moment at which an event is due to be published to the start of its
//! handler, at a steady rate that waits for no handler.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use streamjobs::config::GroupOptions;
use streamjobs::{Runtime, handlers};
use streamjobs_tests::server::RedisServer;
use tokio::task::JoinSet;

use crate::job::{self, Counter, order};
use crate::table::Table;
use crate::work::{Side, server};
use crate::{Settings, by_hand, ours};

/// Names, rates and how many events. The higher ones are about a tenth, a half and four fifths of
/// what one process can publish and do at once on two cores.
const RATES: [(&str, usize, usize); 4] = [
    ("latency at 100/s", 100, 1_000),
    ("latency at 10000/s", 10_000, 50_000),
    ("latency at 50000/s", 50_000, 250_000),
    ("latency at 80000/s", 80_000, 400_000),
];

pub async fn run(settings: &Settings, table: &mut Table) {
    for (name, rate, events) in RATES.iter().filter(|(name, ..)| settings.wants(name)) {
        let events = (events / settings.share).max(100);
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..settings.rounds {
            let sides = [Side::Ours, Side::ByHand];
            for side in if round % 2 == 0 { sides } else { [sides[1], sides[0]] } {
                let server = server(false);
                match side {
                    Side::Ours => own.extend(once_ours(&server, *rate, events).await),
                    Side::ByHand => theirs.extend(once_by_hand(&server, *rate, events).await),
                }
            }
        }
        table.latency(name, own, theirs);
    }
}

async fn once_ours(server: &RedisServer, rate: usize, events: usize) -> Vec<Duration> {
    let client = ours::client(server).await;
    let counter = Counter::timed(events);
    let options = GroupOptions::new().concurrency(NonZeroU32::new(1_000).unwrap());
    let builder =
        Runtime::builder(&client).handlers(handlers![job::note_start]).state(counter.clone());
    let runtime = builder.group("latency", options).start().await.unwrap();
    let due = paced(rate, events, async |numbers| {
        let orders = numbers.map(|number| order(number, 150)).collect::<Vec<_>>();
        assert!(client.publish_all(&orders).await.iter().all(Result::is_ok));
    });
    let due = due.await;
    counter.reached().await;
    let _ = runtime.shutdown().await;
    counter.since(&due)
}

async fn once_by_hand(server: &RedisServer, rate: usize, events: usize) -> Vec<Duration> {
    let counter = Counter::timed(events);
    let (reading, acking) = (by_hand::connection(server).await, by_hand::connection(server).await);
    let mut looping = JoinSet::new();
    looping.spawn(by_hand::read_loop(reading, acking, counter.clone(), 1_000, true));
    let publisher = by_hand::connection(server).await;
    let due = paced(rate, events, async |numbers| {
        let mut pipe = redis::pipe();
        for number in numbers {
            pipe.add_command(by_hand::add(&order(number, 150)));
        }
        let _ids: Vec<String> = pipe.query_async(&mut publisher.clone()).await.unwrap();
    });
    let due = due.await;
    counter.reached().await;
    looping.abort_all();
    counter.since(&due)
}

/// Publishes what is due by now, again and again: when each event was due.
async fn paced(
    rate: usize,
    events: usize,
    publish: impl AsyncFn(std::ops::Range<usize>),
) -> Vec<Instant> {
    let began = Instant::now();
    let due = |number: usize| began + Duration::from_secs_f64(number as f64 / rate as f64);
    let mut published = 0;
    while published < events {
        on_time(due(published), rate).await;
        let by_now = (began.elapsed().as_secs_f64() * rate as f64) as usize + 1;
        let next = by_now.clamp(published + 1, events);
        publish(published..next).await;
        published = next;
    }
    (0..events).map(due).collect()
}

/// Waits for a moment. Timers tick in milliseconds, which at a low rate would be all that is seen, so
/// the last of the wait is spent looking at the clock. Another process has the core meanwhile if it
/// wants it.
async fn on_time(due: Instant, rate: usize) {
    if rate > EXACT_MAX {
        return tokio::time::sleep_until(due.into()).await;
    }
    tokio::time::sleep_until((due - TICK).into()).await;
    while Instant::now() < due {
        std::thread::yield_now();
    }
}

/// Up to this rate, events are published one by one, each at its moment.
const EXACT_MAX: usize = 1_000;
const TICK: Duration = Duration::from_millis(2);
