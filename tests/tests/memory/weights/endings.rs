//! No slot is lost, whichever way jobs, reads and consumers end.

use streamjobs::__store::memory::Fault;
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::__store::{Consume, GroupUpkeep, Inlet, Queue, ReadRequest, ReaderSetup};
use streamjobs::{ConsumerName, GroupName, StreamName};

use super::*;

/// Waits until no job has started for a lease and a half, so that none waits for a retry or a claim either.
async fn at_rest(stage: &Stage, runtime: &Runtime) {
    let (mut seen, mut since) = (stage.runs.started().len(), Instant::now());
    let rests = async || {
        let started = stage.runs.started().len();
        if started != seen || stage.runs.running() > 0 {
            (seen, since) = (started, Instant::now());
        }
        since.elapsed() >= Duration::from_secs(15)
    };
    eventually_async(Duration::from_secs(6_000), "no job runs", rests).await;
    all_free(runtime).await;
}

/// Ten of each kind run at the same time, and the set is as full as it can be.
async fn all_run(stage: &Stage, runtime: &Runtime) {
    stage.urgent(10, "gate").await;
    stage.normal(10, "gate").await;
    stage.bulk(10, "gate").await;
    let before = stage.runs.ran.lock().unwrap().ended;
    let running = async || stage.runs.running() == 6;
    eventually_async(Duration::from_secs(600), "all slots are used", running).await;
    stage.runs.gate.add_permits(30);
    let ended = async || stage.runs.ran.lock().unwrap().ended == before + 30;
    eventually_async(Duration::from_secs(600), "all have run", ended).await;
    all_free(runtime).await;
}

#[tokio::test(start_paused = true)]
async fn attempts_free_their_slots_whichever_way_they_end() {
    let stage = Stage::new();
    let runtime = stage.start(6).await;
    let plans = ["fine", "retry", "snooze", "dead", "panic", "long", "deaf", "short"];
    for plan in plans {
        stage.urgent(5, plan).await;
        stage.normal(5, plan).await;
        stage.bulk(5, plan).await;
        at_rest(&stage, &runtime).await;
    }
    assert_eq!(stage.runs.most(), 6);
    let counters = runtime.counters();
    assert_eq!(counters.succeeded + counters.dead_lettered, 15 * plans.len() as u64);
    all_run(&stage, &runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_group_has_no_slots() {
    let stage = Stage::new();
    let runtime = stage.start(6).await;
    runtime.pause("urgent").unwrap();
    let normal = stage.client.stream("normal").unwrap().group("normal").unwrap();
    normal.pause().await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(20), std::future::pending::<()>()).await;
    stage.urgent(20, "gate").await;
    stage.normal(20, "gate").await;
    stage.bulk(20, "gate").await;
    stage.runs.until_started(6).await;
    let started = stage.runs.turns(14).await;
    assert_eq!(count(&started, "bulk"), 14);
    stage.runs.gate.add_permits(6);
    all_free(&runtime).await;
    runtime.resume("urgent").unwrap();
    normal.resume().await.unwrap();
    stage.runs.gate.add_permits(40);
    stage.runs.until_started(60).await;
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}

/// A pause begins while the group's reader waits for a slot.
#[tokio::test(start_paused = true)]
async fn a_group_that_is_paused_while_it_waits_passes_its_turn_on() {
    let stage = Stage::new();
    let runtime = stage.start(4).await;
    stage.bulk(40, "gate").await;
    stage.runs.until_started(4).await;
    stage.urgent(40, "gate").await;
    stage.runs.turns(1).await;
    runtime.pause("urgent").unwrap();
    let started = stage.runs.turns(20).await;
    assert!(count(&started, "bulk") >= 19, "{started:?}");
    runtime.resume("urgent").unwrap();
    stage.runs.gate.add_permits(80);
    stage.runs.until_started(80).await;
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_lost_groups_free_what_was_taken() {
    let stage = Stage::new();
    let runtime = stage.start(6).await;
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Unreachable, Fault::Refused] {
        for step in ["read", "acknowledge", "schedule_retries", "promote", "claim_idle", "recover"]
        {
            stage.store.fail_next(step, fault);
            stage.urgent(4, "retry").await;
            stage.bulk(8, "fine").await;
            at_rest(&stage, &runtime).await;
        }
    }
    stage.urgent(20, "gate").await;
    let running = async || stage.runs.running() == 6;
    eventually_async(Duration::from_secs(600), "some run", running).await;
    RawAccess::destroy_group(&stage.store, "urgent", "urgent");
    stage.runs.gate.add_permits(1_000);
    stage.urgent(1, "fine").await;
    at_rest(&stage, &runtime).await;
    assert_eq!(runtime.counters().groups_recreated, 1);
    // What is left of the permits would end the next ones at once.
    stage.runs.gate.forget_permits(1_000);
    all_run(&stage, &runtime).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stops_leaves_its_slots_to_the_others() {
    let stage = Stage::new();
    let runtime = stage.start(6).await;
    stage.urgent(60, "gate").await;
    stage.runs.until_started(6).await;
    stage.bulk(60, "gate").await;
    let urgent =
        runtime.consumers().into_iter().find(|consumer| consumer.group.as_str() == "urgent");
    let name = urgent.unwrap().name;
    // Its jobs run on until the grace is over, and are released.
    let report = runtime.remove_consumer(&name).await.unwrap();
    assert_eq!(report.released, 6);
    stage.runs.until_started(12).await;
    assert_eq!(count(&stage.runs.started(), "bulk"), 6);
    assert_eq!(in_use(&runtime), 6);
    runtime.add_consumer("urgent").await.unwrap();
    stage.runs.gate.add_permits(120);
    let ended = async || in_use(&runtime) == 0 && stage.runs.started().len() >= 126;
    eventually_async(Duration::from_secs(600), "all have run", ended).await;
    let control = runtime.control();
    let _ = runtime.shutdown().await;
    assert_eq!(control.shared_slots()[0].in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_with_jobs_that_are_cut_off_ends_with_all_slots_free() {
    let stage = Stage::new();
    let runtime = stage.start(6).await;
    stage.urgent(20, "deaf").await;
    stage.normal(20, "long").await;
    stage.bulk(20, "deaf").await;
    stage.runs.until_started(6).await;
    let control = runtime.control();
    let report = runtime.shutdown().await;
    // The deaf ones end by themselves when they are told to.
    assert_eq!((report.released + report.finished, report.abandoned.len()), (6, 0));
    assert_eq!(control.shared_slots()[0].in_use, 0);
}

/// The other group waits for each slot, so none is ever free.
#[tokio::test(start_paused = true)]
async fn what_was_lost_on_its_way_waits_for_slots_and_not_for_its_lease() {
    let stage = Stage::new();
    stage.urgent(400, "short").await;
    stage.bulk(400, "short").await;
    let runtime = stage.start(4).await;
    stage.runs.until_started(40).await;
    stage.store.fail_next("read", Fault::AnswerLost);
    let begun = Instant::now();
    stage.runs.until_started(800).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}

/// The others have all slots for minutes, and wait for each that becomes free.
#[tokio::test(start_paused = true)]
async fn a_claim_stays_in_the_line_for_slots() {
    let stage = Stage::new();
    let (stream, group) = (StreamName::new("urgent").unwrap(), GroupName::new("urgent").unwrap());
    let queue = Queue { stream, group };
    stage.store.prepare(&queue, streamjobs::config::Start::Beginning).await.unwrap();
    stage.urgent(3, "fine").await;
    let dead = ConsumerName::new("dead").unwrap();
    let setup = ReaderSetup::waiting(Duration::from_secs(2));
    let mut reader = stage.store.reader(&queue, &dead, setup).await.unwrap();
    let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 3, block: None };
    assert_eq!(reader.read(request).await.unwrap().deliveries.unwrap().len(), 3);
    let runtime = stage.start(2).await;
    stage.bulk(60, "gate").await;
    stage.runs.until_started(2).await;
    for _ in 0..3 {
        let _ = tokio::time::timeout(Duration::from_secs(21), std::future::pending::<()>()).await;
        stage.runs.gate.add_permits(2);
        let _ =
            tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await;
    }
    assert_eq!(count(&stage.runs.started(), "urgent"), 3);
    stage.runs.gate.add_permits(60);
    all_free(&runtime).await;
    let _ = runtime.shutdown().await;
}
