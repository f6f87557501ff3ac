//! Servers that fail, clients that delete, and processes that die, stop and stall.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::__store::memory::{Fault, Passage, View, Watch};
use streamjobs::__store::raw_access::RawAccess;
use streamjobs::EntryId;
use streamjobs::schedule::{Missed, Schedule, ScheduleState};

use super::{HOUR, SECOND, Stage, pass, seconds, ticks};

#[tokio::test(start_paused = true)]
async fn errors_make_occurrences_late_and_neither_lose_nor_repeat_them() {
    let stage = Stage::new();
    let max = NonZeroU32::new(1_000).unwrap();
    let schedule = seconds(60).missed(Missed::All { max, within: HOUR });
    let runtime = stage.start([schedule]).await;
    let start = stage.now().await;
    let steps = ["fire", "due_schedules", "schedules", "mark_declared", "fire", "fire"];
    let faults = [Fault::AnswerLost, Fault::Unreachable, Fault::RequestLost, Fault::Refused];
    for (round, step) in steps.into_iter().enumerate() {
        stage.store.fail_next(step, faults[round % 4]);
        pass(Duration::from_secs(90)).await;
    }
    stage.store.stop_server();
    pass(Duration::from_secs(600)).await;
    stage.store.start_server();
    pass(Duration::from_secs(120)).await;
    let entries = stage.entries("ticks").await;
    let first = start / 60_000 + 1;
    let expected = (0..entries.len() as u64).map(|number| (first + number) * 60_000);
    assert_eq!(
        entries.iter().map(|(_, due)| *due).collect::<Vec<_>>(),
        expected.collect::<Vec<_>>()
    );
    assert!(entries.len() >= 20, "{}", entries.len());
    assert!(runtime.counters().server_errors >= 4);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_other_clients_delete_or_overwrite_is_restored_or_told_and_stops_nothing_else() {
    let stage = Stage::new();
    let schedules = stage.schedules();
    let stored = Schedule::every("stored", Duration::from_secs(30)).unwrap();
    schedules.put(&stored).await.unwrap();
    schedules.put(&Schedule::every("bad", Duration::from_secs(30)).unwrap()).await.unwrap();
    let runtime = stage.start([seconds(10)]).await;
    pass(Duration::from_secs(60)).await;
    stage.store.garble_schedule(&ticks(), "bad");
    let (often, bad) = (stage.runs.times("often").len(), stage.runs.times("bad").len());
    pass(Duration::from_secs(600)).await;
    assert!(stage.runs.times("often").len() >= often + 59, "others go on");
    assert_eq!(stage.runs.times("bad").len(), bad);
    assert_eq!(runtime.counters().schedules_not_fired, 1, "told once");
    assert_eq!(stage.info("bad").await.unwrap().state, ScheduleState::Unreadable);
    stage.store.lose_schedule_places(&ticks());
    pass(Duration::from_secs(120)).await;
    let [often, stored] = ["often", "stored"].map(|name| stage.runs.times(name).len());
    pass(Duration::from_secs(120)).await;
    assert!(stage.runs.times("often").len() >= often + 11, "the next times are back");
    assert!(stage.runs.times("stored").len() >= stored + 3, "that of the stored one as well");
    stage.store.lose_schedule_specs(&ticks());
    pass(Duration::from_secs(120)).await;
    let (often, stored) = (stage.runs.times("often").len(), stage.runs.times("stored").len());
    pass(Duration::from_secs(120)).await;
    assert!(stage.runs.times("often").len() >= often + 11, "it is declared again");
    assert_eq!(stage.runs.times("stored").len(), stored);
    assert!(runtime.counters().schedules_lost >= 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_servers_clock_jumps_no_occurrence_is_early_left_out_or_published_twice() {
    let stage = Stage::new();
    let schedule = seconds(60).missed(Missed::All { max: NonZeroU32::MAX, within: HOUR * 2 });
    let runtime = stage.start([schedule]).await;
    pass(Duration::from_secs(600)).await;
    stage.store.step_clock(3_600_000);
    pass(Duration::from_secs(600)).await;
    let ahead = stage.entries("ticks").await.len();
    assert!(ahead >= 78, "what was due by the clock is made up: {ahead}");
    stage.store.step_clock(-3_600_000);
    pass(Duration::from_secs(3_000)).await;
    assert_eq!(stage.entries("ticks").await.len(), ahead, "the next one is not due");
    pass(Duration::from_secs(1_200)).await;
    let entries = stage.entries("ticks").await;
    assert!(entries.len() >= ahead + 9, "{} {ahead}", entries.len());
    assert!(entries.windows(2).all(|pair| pair[1].1 - pair[0].1 == 60_000), "{entries:?}");
    let _ = runtime.shutdown().await;
}

/// Delays and loses requests and answers, from a seed.
#[derive(Debug)]
struct Unreliable(Mutex<fastrand::Rng>);

impl Watch for Unreliable {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        let mut random = self.0.lock().unwrap();
        if !matches!(operation, "fire" | "due_schedules" | "schedules" | "mark_declared") {
            return Passage::default();
        }
        let mut delay = || match random.u32(..100) {
            0..70 => Duration::ZERO,
            70..99 => Duration::from_millis(random.u64(1..200)),
            // A process that stalls between its look and its firing.
            _ => Duration::from_millis(random.u64(1_000..30_000)),
        };
        let (before, after) = (delay(), delay());
        let fault = match random.u32(..100) {
            0 => Some(Fault::AnswerLost),
            1 => Some(Fault::RequestLost),
            2 => Some(Fault::Unreachable),
            _ => None,
        };
        Passage { before, fault, after }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

/// Without a leader, and with processes that die, stop and stall at any moment.
#[tokio::test(start_paused = true)]
async fn eight_processes_publish_ten_thousand_occurrences_once_each_and_in_order() {
    const COUNT: u64 = 10_000;
    let seed = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("SIM_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new();
    let schedule = || seconds(1).missed(Missed::All { max: NonZeroU32::MAX, within: HOUR });
    let client = |random: &mut fastrand::Rng| {
        let watch = Unreliable(Mutex::new(random.fork()));
        streamjobs::__store::client(&stage.store.watched(1, Arc::new(watch)))
    };
    let mut fleet = Vec::new();
    for _ in 0..8 {
        fleet.push(Some(stage.start_on(&client(&mut random), [schedule()]).await));
    }
    let (start, mut kills) = (stage.now().await / SECOND, 0);
    // Retention removes those that were read.
    let (mut entries, mut from) = (Vec::new(), EntryId::ZERO);
    while stage.now().await / SECOND < start + COUNT {
        pass(Duration::from_millis(random.u64(100..40_000))).await;
        entries.extend(stage.entries_from("ticks", &mut from).await);
        let place = random.usize(..fleet.len());
        match fleet[place].take() {
            Some(runtime) if random.bool() => {
                drop(runtime);
                kills += 1;
            }
            Some(runtime) => drop(runtime.shutdown().await),
            None => fleet[place] = Some(stage.start_on(&client(&mut random), [schedule()]).await),
        }
    }
    for runtime in fleet.into_iter().flatten() {
        let _ = runtime.shutdown().await;
    }
    // One process without faults publishes what is left.
    let runtime = stage.start([schedule()]).await;
    pass(Duration::from_secs(60)).await;
    let _ = runtime.shutdown().await;
    entries.extend(stage.entries_from("ticks", &mut from).await);
    let times = entries.iter().map(|(_, due)| due / SECOND).collect::<Vec<_>>();
    let first = times[0];
    assert!(first <= start + 1 && times.len() as u64 >= COUNT, "{first} {start} {}", times.len());
    let wrong = (first..).zip(&times).position(|(expected, time)| *time != expected);
    assert_eq!(wrong, None, "each once and in order: {kills} kills");
    let ids = entries.iter().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids.len(), entries.len());
    assert!(kills > 20, "{kills}");
}
