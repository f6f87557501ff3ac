//! Versions of a program that declare a schedule differently, or not at all.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::schedule::{Missed, Schedule, ScheduleOrigin, ScheduleState};

use super::{HOUR, SECOND, Stage, pass};

/// Two versions of a program, each of whose lines the other one never has.
fn old() -> Schedule {
    Schedule::cron("line", "*/10 * * * *").unwrap()
}

fn new() -> Schedule {
    Schedule::cron("line", "5-55/10 * * * *").unwrap()
}

fn is_new(at: u64) -> bool {
    at / 60_000 % 10 == 5
}

/// Every order of two starts and two stops.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for step in 0..4 {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |place| {
                    let mut order = order.clone();
                    order.insert(place, step);
                    order
                })
            })
            .collect();
    }
    orders
}

#[tokio::test(start_paused = true)]
async fn after_a_rolling_change_in_any_order_only_the_new_times_fire() {
    let orders = orders();
    assert_eq!(orders.len(), 24);
    for order in orders {
        let stage = Stage::new();
        let mut olds = [Some(stage.start([old()]).await), Some(stage.start([old()]).await)];
        pass(Duration::from_secs(720)).await;
        let before = stage.runs.times("line");
        assert!(!before.is_empty() && !before.iter().any(|at| is_new(*at)), "{before:?}");
        let (mut news, mut last_start) = (Vec::new(), 0);
        for step in &order {
            match step {
                0 | 1 => {
                    let runtime = olds[*step].take().unwrap();
                    let _ = runtime.shutdown().await;
                }
                _ => {
                    news.push(stage.start([new()]).await);
                    pass(Duration::from_millis(50)).await;
                    last_start = stage.now().await;
                }
            }
            pass(Duration::from_secs(100)).await;
        }
        pass(Duration::from_secs(1_500)).await;
        let after = stage.runs.times("line").into_iter().filter(|at| *at > last_start);
        let after = after.collect::<Vec<_>>();
        assert!(after.len() >= 2 && after.iter().all(|at| is_new(*at)), "{order:?}: {after:?}");
        for runtime in news {
            let _ = runtime.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_rolled_back_by_stopping_it_is_followed_by_the_living_one() {
    let stage = Stage::new();
    let living = stage.start([old()]).await;
    pass(Duration::from_secs(60)).await;
    let other = stage.start([new()]).await;
    pass(Duration::from_secs(1_200)).await;
    assert!(stage.runs.times("line").iter().all(|at| is_new(*at)), "the living one is older");
    assert_eq!(living.counters().schedules_not_fired, 1, "and says so once");
    let _ = other.shutdown().await;
    let stopped = stage.now().await;
    pass(Duration::from_secs(3_600)).await;
    let after = stage.runs.times("line").into_iter().filter(|at| *at > stopped).collect::<Vec<_>>();
    assert!(after.iter().all(|at| !is_new(*at)), "{after:?}");
    let first = after.first().unwrap() - stopped;
    assert!(first > 600 * SECOND && first <= 1_300 * SECOND, "after ten minutes: {first}");
    assert!(after.len() >= 3);
    let _ = living.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_gone_from_the_code_never_fires_again_and_is_forgotten() {
    let stage = Stage::new();
    let runtime = stage.start([old()]).await;
    pass(Duration::from_secs(1_200)).await;
    let _ = runtime.shutdown().await;
    let fired = stage.runs.times("line").len();
    assert_eq!(fired, 2);
    let runtime = stage.start([]).await;
    pass(HOUR * 5).await;
    assert_eq!(stage.runs.times("line").len(), fired);
    let info = stage.info("line").await.unwrap();
    assert_eq!((info.state, info.origin), (ScheduleState::Undeclared, Some(ScheduleOrigin::Code)));
    assert_eq!(runtime.counters().schedules_not_fired, 0, "it is none of its own");
    stage.store.step_clock(29 * 24 * 3_600 * 1_000);
    pass(HOUR).await;
    assert!(stage.info("line").await.is_some());
    stage.store.step_clock(24 * 3_600 * 1_000);
    pass(HOUR).await;
    assert!(stage.info("line").await.is_none());
    assert_eq!(runtime.counters().schedules_forgotten, 1);
    assert_eq!(stage.runs.times("line").len(), fired);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_expression_and_a_first_start_make_up_nothing() {
    let max = NonZeroU32::new(1_000).unwrap();
    let all = Missed::All { max, within: HOUR * 100 };
    let stage = Stage::new();
    let line = |text: &str| Schedule::cron("line", text).unwrap().missed(all);
    let runtime = stage.start([line("*/10 * * * *")]).await;
    pass(Duration::from_secs(10)).await;
    assert_eq!(stage.runs.all(), [], "the first start begins after now");
    let _ = runtime.shutdown().await;
    pass(HOUR * 3).await;
    let changed = stage.now().await;
    let runtime = stage.start([line("7-57/10 * * * *")]).await;
    pass(HOUR).await;
    let times = stage.runs.times("line");
    assert!(times.iter().all(|at| *at > changed && at / 60_000 % 10 == 7), "{times:?}");
    assert_eq!(times.len(), 6);
    let _ = runtime.shutdown().await;
}
