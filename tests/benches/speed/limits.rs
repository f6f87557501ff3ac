//! What order per key and fair shares cost: draining beside a plain group, how soon the next job of a key
//! starts, and after how many jobs small keys are done that are behind a large one.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use streamjobs::config::{GroupOptions, KeyOrder};
use streamjobs::{Client, Event, Runtime, State, handler, handlers};

use crate::job::Counter;
use crate::meter::{self, Cost, Meter};
use crate::table::Table;
use crate::work::server;
use crate::{Settings, by_hand, ours};

const SLOTS: u32 = 1_000;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "keyed", type = "keyed", key = "customer")]
struct Keyed {
    customer: String,
    number: usize,
    note: String,
}

fn keyed(number: usize, keys: usize) -> Keyed {
    let note = "two pounds of coffee, whole beans, to be left with the neighbour".to_owned();
    Keyed { customer: format!("customer-{}", number % keys), number, note }
}

#[handler(group = "bench")]
async fn count(_: Keyed, State(counter): State<Counter>) {
    counter.add();
}

/// When the jobs of one key started and ended, in that order.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<Vec<Instant>>>);

#[handler(group = "bench", order = "key")]
async fn timed(_: Keyed, State(counter): State<Counter>, State(times): State<Times>) {
    times.0.lock().unwrap().push(Instant::now());
    counter.add();
    times.0.lock().unwrap().push(Instant::now());
}

pub async fn run(settings: &Settings, table: &mut Table) {
    if settings.wants("limits: order") {
        let ordered = GroupOptions::new().order(KeyOrder::Block);
        for keys in [10_000, 100] {
            beside(("order", &ordered), (100_000 / settings.share, keys), settings, table).await;
        }
    }
    if settings.wants("limits: fair") {
        for keys in [10_000, 100] {
            let fair = GroupOptions::new().fair();
            beside(("fair", &fair), (100_000 / settings.share, keys), settings, table).await;
        }
        behind_a_large_one(table).await;
    }
    if settings.wants("limits: one key") {
        one_key(10_000 / settings.share, table).await;
    }
}

async fn publish(client: &Client, events: usize, keys: usize) {
    let all = (0..events).map(|number| keyed(number, keys)).collect::<Vec<_>>();
    for chunk in all.chunks(by_hand::BATCH) {
        assert!(client.publish_all(chunk).await.iter().all(Result::is_ok));
    }
}

async fn drain(events: usize, keys: usize, options: GroupOptions) -> Cost {
    let server = server(false);
    let client = ours::client(&server).await;
    publish(&client, events, keys).await;
    let counter = Counter::expect(events);
    let builder = Runtime::builder(&client).handlers(handlers![count]).state(counter.clone());
    let options = options.concurrency(NonZeroU32::new(SLOTS).expect("some"));
    let meter = Meter::start(&server);
    let runtime = builder.group("bench", options).start().await.unwrap();
    counter.reached().await;
    let cost = meter.stop();
    let _ = runtime.shutdown().await;
    cost
}

/// A group with an option beside the same group without.
async fn beside(
    (name, options): (&str, &GroupOptions),
    (events, keys): (usize, usize),
    settings: &Settings,
    table: &mut Table,
) {
    let (mut plain, mut ordered) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        plain.push(drain(events, keys, GroupOptions::new()).await);
        ordered.push(drain(events, keys, *options).await);
    }
    let rate = |costs: &[Cost]| {
        median(costs.iter().map(|cost| events as f64 / cost.wall.as_secs_f64()).collect())
    };
    let server = |costs: &[Cost]| {
        median(costs.iter().map(|cost| cost.server.as_secs_f64() * 1e6 / events as f64).collect())
    };
    let (plain_rate, ordered_rate) = (rate(&plain), rate(&ordered));
    let (plain_server, ordered_server) = (server(&plain), server(&ordered));
    let ratio = ordered_rate / plain_rate;
    let text = format!(
        "{events} jobs of {keys} keys, {SLOTS} slots: {ordered_rate:.0}/s, without {plain_rate:.0}/s: \
         {ratio:.2}; server {ordered_server:.1} and {plain_server:.1} µs a job"
    );
    let figures = json!({ "events": events, "keys": keys, "limited": ordered_rate,
        "plain": plain_rate, "limited_server_us": ordered_server, "plain_server_us": plain_server });
    table.note(&format!("limits: {name}"), &text, figures);
}

/// The keys of the jobs that ended, in that order.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<String>>>);

#[handler(group = "bench", fair = "key")]
async fn shared(job: Keyed, State(counter): State<Counter>, State(ended): State<Ended>) {
    meter::pass(Duration::from_millis(1)).await;
    ended.0.lock().unwrap().push(job.customer);
    counter.add();
}

/// When the jobs of ten small keys are done that are behind many of a large one.
async fn behind_a_large_one(table: &mut Table) {
    let server = server(false);
    let client = ours::client(&server).await;
    let of = |customer: &str| Keyed { customer: customer.to_owned(), ..keyed(0, 1) };
    let small = (0..200).map(|number| of(&format!("small-{}", number % 10)));
    let all = (0..5_000).map(|_| of("large")).chain(small).collect::<Vec<_>>();
    for chunk in all.chunks(by_hand::BATCH) {
        assert!(client.publish_all(chunk).await.iter().all(Result::is_ok));
    }
    let (counter, ended) = (Counter::expect(all.len()), Ended::default());
    let builder = Runtime::builder(&client).handlers(handlers![shared]);
    let options = GroupOptions::new().concurrency(NonZeroU32::new(16).expect("some"));
    let builder = builder.state(counter.clone()).state(ended.clone()).group("bench", options);
    let runtime = builder.start().await.unwrap();
    counter.reached().await;
    let _ = runtime.shutdown().await;
    let ended = ended.0.lock().unwrap().clone();
    let last = ended.iter().rposition(|customer| customer != "large").map_or(0, |place| place + 1);
    let text = format!(
        "200 jobs of ten small keys behind 5,000 of a large one, 16 slots: the last is the {last}th to end"
    );
    table.note("limits: fair", &text, json!({ "last": last }));
}

/// How long after the end of a job the next one of its key starts.
async fn one_key(events: usize, table: &mut Table) {
    let server = server(false);
    let client = ours::client(&server).await;
    publish(&client, events, 1).await;
    let (counter, times) = (Counter::expect(events), Times::default());
    let builder = Runtime::builder(&client).handlers(handlers![timed]);
    let runtime = builder.state(counter.clone()).state(times.clone()).start().await.unwrap();
    counter.reached().await;
    let _ = runtime.shutdown().await;
    let times = times.0.lock().unwrap().clone();
    let mut gaps = times[1..times.len() - 1]
        .chunks(2)
        .map(|pair| pair[1] - pair[0])
        .collect::<Vec<Duration>>();
    gaps.sort_unstable();
    let quantile =
        |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let (half, most) = (quantile(0.5), quantile(0.99));
    let text = format!(
        "{events} jobs of one key: the next starts p50 {half:.2} ms, p99 {most:.2} ms after"
    );
    table.note(
        "limits: one key",
        &text,
        json!({ "events": events, "p50_ms": half, "p99_ms": most }),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
