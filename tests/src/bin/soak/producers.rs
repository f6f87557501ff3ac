//! Publishes at a steady rate, in batches, and publishes again whatever was left unconfirmed.

use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::{Duration, Instant};

use fastrand::Rng;
use streamjobs::error::PublishError;
use streamjobs::{
    Client, DecodeError, EncodeError, Event, EventId, Fields, Payload, Published, StreamName,
};
use streamjobs_tests::history::{Deed, Writer};
use streamjobs_tests::proof::{Amended, Order, Shipped};
use tokio::time::sleep_until;

use crate::options::{Group, Options, TERMS};
use crate::stand::Stand;

/// Producers wait while more jobs than this wait for workers.
const BACKLOG_MAX: usize = 20_000;

/// Payloads are smaller than this, in bytes.
const LARGE: usize = 1024 * 1024;

/// How long to leave a server alone that did not accept something.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// How long to wait until the next batch is due.
const BETWEEN: Duration = Duration::from_millis(10);

/// How many keys the events of a stream with partitions have.
const CUSTOMERS: u64 = 997;

/// For how much of the time in which the server was away the missed jobs are made up.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Starts all producers. They end when the stand tells them to and everything is confirmed.
pub(crate) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    stand: &'scope Stand,
    options: &Options,
) {
    for group in stand.groups {
        for number in 0..group.producers {
            let rate = options.rate * group.share / 100 / group.producers;
            let seed = options.seed ^ (u64::from(number) << 32) ^ u64::from(group.letter);
            let rng = Rng::with_seed(seed);
            let (history, name) = (stand.history(group), format!("{}{number}", group.letter));
            let again = Vec::new();
            let mut producer = Producer { stand, group, history, name, rng, last: 0, again };
            scope.spawn(move || {
                let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
                executor.unwrap().block_on(producer.run(rate));
            });
        }
    }
}

struct Producer<'a> {
    stand: &'a Stand,
    group: &'a Group,
    history: &'a Writer,
    name: String,
    rng: Rng,
    last: u64,
    /// The events that were left unconfirmed.
    again: Vec<(String, Order)>,
}

impl Producer<'_> {
    async fn run(&mut self, rate: u32) {
        let client = loop {
            match self.stand.connect().await {
                Ok(client) => break client,
                Err(_) => pause(AFTER_ERROR).await,
            }
        };
        let each = Duration::from_secs(1) / rate.max(1);
        let mut due = Instant::now();
        loop {
            let stopping = self.stand.stopping.load(Ordering::SeqCst);
            let now = Instant::now();
            due = due.max(now.checked_sub(CATCH_UP).unwrap_or(now));
            let mut batch = std::mem::take(&mut self.again);
            let retried = batch.len();
            if retried == 0 && stopping {
                return;
            }
            if !stopping && self.stand.backlog() < BACKLOG_MAX {
                while due <= now && batch.len() < self.group.batch {
                    batch.push(self.order());
                    due += each;
                }
            }
            if batch.is_empty() {
                pause(BETWEEN).await;
            } else if !self.publish(&client, batch, retried).await {
                pause(AFTER_ERROR).await;
            }
        }
    }

    /// The next job. Most are done at once; some fail first, some are rejected, some take up to two
    /// leases, a few are large.
    fn order(&mut self) -> (String, Order) {
        self.last += 1;
        let job = format!("{}-{}", self.name, self.last);
        let mut order = Order::new(&job);
        if self.rng.u32(..10) == 0 {
            order.version = self.rng.u64(1..=self.stand.version.load(Ordering::SeqCst));
        }
        match self.rng.u32(..10_000) {
            0..30 => order.rejected = true,
            30..330 => order.failures = self.rng.u32(1..=2),
            330..332 => order.filler = "x".repeat(self.rng.usize(1_000..LARGE)),
            dice if dice < 332 + self.group.long => {
                order.takes = self.rng.u64(..u64::try_from(2 * TERMS.lease.as_millis()).unwrap())
            }
            _ => {}
        }
        self.history.write(Deed::Tried { job: job.clone(), fate: order.fate() });
        (job, order)
    }

    /// Whether all of them were confirmed. The first `retried` ones were left unconfirmed before, and
    /// so may be stored whatever the answer is now.
    async fn publish(
        &mut self,
        client: &Client,
        batch: Vec<(String, Order)>,
        retried: usize,
    ) -> bool {
        let mut all_well = true;
        let answers = self.send(client, &batch).await;
        for (place, ((job, order), answer)) in batch.into_iter().zip(answers).enumerate() {
            all_well &= answer.is_ok();
            match answer {
                Ok(published) => self.history.write(self.confirmed(job, &published)),
                Err(error) if error.is_unconfirmed() => {
                    self.history.write(Deed::Unconfirmed { job: job.clone() });
                    self.again.push((job, order));
                }
                Err(_) if place < retried => self.again.push((job, order)),
                // It is certainly not stored. The checker compares this with what comes out.
                Err(_) => self.history.write(Deed::Refused { job }),
            }
        }
        all_well
    }

    fn confirmed(&self, job: String, published: &Published) -> Deed {
        match self.stand.cluster() {
            Some(cluster) => {
                let stream = cluster.partition_of(&key_of(&job)).to_owned();
                Deed::Stored { job, stream, entry: published.entry_id.to_string() }
            }
            None => Deed::Published { job },
        }
    }

    /// Publishes each order under its type. The id and the deployed version decide the type, so that
    /// an order that is published again has the same type.
    async fn send_all(
        &self,
        client: &Client,
        batch: &[(String, Order)],
    ) -> Vec<Result<Published, PublishError>> {
        let of = |version: u64| {
            let orders = batch.iter().enumerate();
            let orders = orders.filter(move |(_, (_, order))| order.version == version);
            orders.map(|(place, (job, order))| (place, EventId::new(job).unwrap(), order.clone()))
        };
        let keyed = self.stand.cluster().is_some();
        let mut answers = send_typed(client, of(1), keyed).await;
        let typed = |(place, id, order)| (place, id, Amended(order));
        answers.extend(send_typed(client, of(2).map(typed), keyed).await);
        let typed = |(place, id, order)| (place, id, Shipped(order));
        answers.extend(send_typed(client, of(3).map(typed), keyed).await);
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn send(
        &self,
        client: &Client,
        batch: &[(String, Order)],
    ) -> Vec<Result<Published, PublishError>> {
        let id = |job: &str| EventId::new(job).unwrap();
        if self.group.stream == "orders" {
            return self.send_all(client, batch).await;
        }
        let stream = StreamName::new(self.group.stream).unwrap();
        let mut answers = Vec::with_capacity(batch.len());
        for (job, order) in batch {
            answers.push(client.publish_to(&stream, order, id(job)).await);
        }
        answers
    }
}

/// An event with a key or without one.
struct Keyed<E> {
    event: E,
    key: Option<String>,
}

impl<E: Event> Event for Keyed<E> {
    const STREAM: &'static str = E::STREAM;
    const TYPES: &'static [&'static str] = E::TYPES;

    fn event_type(&self) -> &'static str {
        self.event.event_type()
    }

    fn key(&self) -> Option<String> {
        self.key.clone()
    }

    fn encode(&self) -> Result<Fields, EncodeError> {
        self.event.encode()
    }

    fn decode(event_type: &str, payload: Payload<'_>) -> Result<Self, DecodeError> {
        Ok(Self { event: E::decode(event_type, payload)?, key: None })
    }
}

/// Publishes the events of one type, each with its index in the batch.
async fn send_typed<E: Event>(
    client: &Client,
    events: impl Iterator<Item = (usize, EventId, E)>,
    keyed: bool,
) -> Vec<(usize, Result<Published, PublishError>)> {
    let (places, events): (Vec<_>, Vec<_>) = events
        .map(|(place, id, event)| {
            let key = keyed.then(|| key_of(id.as_str()));
            (place, (id, Keyed { event, key }))
        })
        .unzip();
    let events = events.iter().map(|(id, event)| (id.clone(), event));
    places.into_iter().zip(client.publish_all_with_ids(events).await).collect()
}

/// The customer whose job this is, by its number.
fn key_of(job: &str) -> String {
    let number = job.rsplit_once('-').and_then(|(_, number)| number.parse::<u64>().ok());
    format!("customer-{}", number.unwrap_or_default() % CUSTOMERS)
}

/// Leaves the server alone for a while.
async fn pause(duration: Duration) {
    sleep_until(tokio::time::Instant::now() + duration).await;
}
