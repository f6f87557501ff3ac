//! Scenarios in which both sides do so many events: publishing and draining.

use std::num::NonZeroU32;

use streamjobs_tests::server::RedisServer;

use crate::meter::Cost;
use crate::table::Table;
use crate::{Settings, by_hand, ours};

/// What is done.
#[derive(Clone, Copy)]
pub enum Work {
    /// In calls of 500 events.
    PublishBatches,
    /// One event a call, from so many tasks.
    PublishFrom(usize),
    /// What waits, with so many jobs in flight.
    Drain(usize),
    /// The same where each job fails once and is retried at once. Nothing by hand does that.
    DrainFailing(usize),
}

pub struct Scenario {
    pub name: &'static str,
    pub work: Work,
    pub events: usize,
    /// Of a payload, about.
    pub bytes: usize,
    /// Whether the server writes an append-only file, synced every second.
    pub durable: bool,
}

const fn scenario(name: &'static str, work: Work, events: usize) -> Scenario {
    Scenario { name, work, events, bytes: 150, durable: false }
}

pub const SCENARIOS: [Scenario; 13] = [
    scenario("publish batches of 500", Work::PublishBatches, 200_000),
    scenario("publish one by one, 1 task", Work::PublishFrom(1), 10_000),
    scenario("publish one by one, 100 tasks", Work::PublishFrom(100), 200_000),
    scenario("drain, 1 in flight", Work::Drain(1), 10_000),
    scenario("drain, 10 in flight", Work::Drain(10), 50_000),
    scenario("drain, 100 in flight", Work::Drain(100), 200_000),
    scenario("drain, 1000 in flight", Work::Drain(1_000), 200_000),
    Scenario { bytes: 2_048, ..scenario("drain of 2 KiB, 1000", Work::Drain(1_000), 50_000) },
    Scenario { bytes: 65_536, ..scenario("drain of 64 KiB, 1000", Work::Drain(1_000), 4_000) },
    Scenario { durable: true, ..scenario("drain, 1000, AOF", Work::Drain(1_000), 200_000) },
    Scenario { durable: true, ..scenario("publish batches, AOF", Work::PublishBatches, 200_000) },
    Scenario {
        durable: true,
        ..scenario("publish, 100 tasks, AOF", Work::PublishFrom(100), 200_000)
    },
    scenario("drain, each fails once", Work::DrainFailing(1_000), 20_000),
];

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Ours,
    ByHand,
}

pub async fn run(scenario: &Scenario, settings: &Settings, table: &mut Table) {
    let events = scenario.events / settings.share;
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    // The first round of all warms up both sides and counts for nothing.
    for round in 0..=settings.rounds {
        let order =
            if round % 2 == 0 { [Side::Ours, Side::ByHand] } else { [Side::ByHand, Side::Ours] };
        for side in order {
            let server = server(scenario.durable);
            let cost = match side {
                Side::Ours => once_ours(scenario, events, &server).await,
                Side::ByHand => once_by_hand(scenario, events, &server).await,
            };
            if let Some(cost) = cost.filter(|_| round > 0) {
                if side == Side::Ours { own.push(cost) } else { theirs.push(cost) }
            }
        }
    }
    table.work(scenario.name, events, &own, &theirs);
}

async fn once_ours(scenario: &Scenario, events: usize, server: &RedisServer) -> Option<Cost> {
    let bytes = scenario.bytes;
    Some(match scenario.work {
        Work::PublishBatches => ours::publish_batches(server, events, bytes).await,
        Work::PublishFrom(tasks) => ours::publish_from(server, tasks, events, bytes).await,
        Work::Drain(slots) => ours::drain(server, slots_of(slots), events, bytes).await,
        Work::DrainFailing(slots) => ours::drain_failing(server, slots_of(slots), events).await,
    })
}

async fn once_by_hand(scenario: &Scenario, events: usize, server: &RedisServer) -> Option<Cost> {
    let bytes = scenario.bytes;
    match scenario.work {
        Work::PublishBatches => Some(by_hand::publish_batches(server, events, bytes).await),
        Work::PublishFrom(tasks) => Some(by_hand::publish_from(server, tasks, events, bytes).await),
        Work::Drain(slots) => Some(by_hand::drain(server, slots, events, bytes).await),
        Work::DrainFailing(_) => None,
    }
}

fn slots_of(slots: usize) -> NonZeroU32 {
    NonZeroU32::new(u32::try_from(slots).unwrap()).unwrap()
}

/// A server of its own for each measurement.
pub fn server(durable: bool) -> RedisServer {
    let builder = RedisServer::builder();
    if durable {
        builder.append_only(true).config("appendfsync", "everysec").start().unwrap()
    } else {
        builder.start().unwrap()
    }
}
