//! What fires, what is made up, and what it costs.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::__store::memory::{Passage, View, Watch};
use streamjobs::schedule::{Missed, Schedule};

use super::{FULL_HOUR, HOUR, Ran, SECOND, Stage, five_minutes, pass, seconds};

#[tokio::test(start_paused = true)]
async fn each_occurrence_is_published_when_it_is_due() {
    let stage = Stage::new();
    let runtime = stage.start([seconds(10), five_minutes(Missed::One)]).await;
    pass(Duration::from_secs(3_600)).await;
    let times = stage.runs.times("often");
    assert!((359..=360).contains(&times.len()), "{}", times.len());
    assert!(times.iter().all(|at| at % (10 * SECOND) == 0));
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 10 * SECOND));
    assert_eq!(stage.runs.times("five").len(), 12);
    assert!(stage.runs.all().iter().all(|ran| ran.late < 50 && ran.missed == 0));
    let counters = runtime.counters();
    assert_eq!(counters.schedules_fired, stage.runs.all().len() as u64);
    assert_eq!((counters.schedules_missed, counters.schedules_not_fired), (0, 0));
    let _ = runtime.shutdown().await;
}

/// Down from 23:02 to 02:04.
async fn three_hours_down(missed: Missed) -> (Vec<Ran>, u64) {
    let stage = Stage::new();
    stage.reach(FULL_HOUR - 60 * SECOND).await;
    let runtime = stage.start([five_minutes(missed)]).await;
    stage.reach(FULL_HOUR + 120 * SECOND).await;
    let _ = runtime.shutdown().await;
    assert_eq!(stage.runs.times("five"), [FULL_HOUR]);
    stage.reach(FULL_HOUR + 3 * 3_600 * SECOND + 124 * SECOND).await;
    let runtime = stage.start([five_minutes(missed)]).await;
    pass(Duration::from_secs(30)).await;
    let (runs, missed) = (stage.runs.all().split_off(1), runtime.counters().schedules_missed);
    stage.reach(FULL_HOUR + 3 * 3_600 * SECOND + 305 * SECOND).await;
    let last = stage.runs.times("five").pop().unwrap();
    assert_eq!(last, FULL_HOUR + 3 * 3_600 * SECOND + 300 * SECOND, "it goes on");
    let _ = runtime.shutdown().await;
    (runs, missed)
}

#[tokio::test(start_paused = true)]
async fn after_three_hours_down_none_one_or_all_occurrences_are_made_up() {
    let (runs, missed) = three_hours_down(Missed::None).await;
    assert_eq!((runs.len(), missed), (0, 36));
    let (runs, missed) = three_hours_down(Missed::One).await;
    let times = runs.iter().map(|ran| (ran.at, ran.missed)).collect::<Vec<_>>();
    assert_eq!((times, missed), (vec![(FULL_HOUR + 3 * 3_600 * SECOND, 35)], 35));
    let max = NonZeroU32::new(100).unwrap();
    let (runs, missed) = three_hours_down(Missed::All { max, within: HOUR * 4 }).await;
    let times = runs.iter().map(|ran| ran.at).collect::<Vec<_>>();
    let expected = (1..=36).map(|number| FULL_HOUR + number * 300 * SECOND);
    assert_eq!((times, missed), (expected.collect::<Vec<_>>(), 0));
}

/// Counts what is asked of the store.
#[derive(Debug, Default)]
struct Requests(Mutex<BTreeMap<&'static str, usize>>);

impl Watch for Requests {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        *self.0.lock().unwrap().entry(operation).or_default() += 1;
        Passage::default()
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn a_thousand_schedules_cost_as_many_requests_as_one_and_none_costs_none() {
    let mut asked = Vec::new();
    for count in [0, 1, 1_000] {
        let stage = Stage::new();
        let requests = Arc::new(Requests::default());
        let watched = streamjobs::__store::client(&stage.store.watched(1, requests.clone()));
        let schedules =
            (0..count).map(|number| Schedule::cron(&format!("s{number}"), "0 0 1 1 *").unwrap());
        let runtime = stage.start_on(&watched, schedules).await;
        pass(Duration::from_secs(30)).await;
        requests.0.lock().unwrap().clear();
        pass(Duration::from_secs(1_200)).await;
        let seen = std::mem::take(&mut *requests.0.lock().unwrap());
        let of = |name: &str| seen.get(name).copied().unwrap_or(0);
        asked.push((of("due_schedules"), of("mark_declared"), of("schedules"), of("declare")));
        let _ = runtime.shutdown().await;
    }
    assert_eq!(asked[0], (0, 0, 0, 0));
    for (looks, marks, lists, declared) in &asked[1..] {
        assert!((2_380..=2_440).contains(looks), "twice a second: {asked:?}");
        assert!((15..=26).contains(marks) && *lists <= 8 && *declared == 0, "{asked:?}");
    }
}
