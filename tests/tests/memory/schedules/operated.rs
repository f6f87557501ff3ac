//! Schedules that are stored, paused, run and refused.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::schedule::{Missed, Schedule, ScheduleName, ScheduleOrigin, ScheduleState};
use streamjobs::{Event, Job, Runtime, State, handler, handlers};

use super::{HOUR, Ran, Runs, Stage, pass, seconds, work};

#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_all_processes_and_a_resume_makes_up_nothing() {
    let stage = Stage::new();
    let (schedules, name) = (stage.schedules(), ScheduleName::new("often").unwrap());
    let declared = || [seconds(10).missed(Missed::All { max: NonZeroU32::MAX, within: HOUR })];
    let (one, two) = (stage.start(declared()).await, stage.start(declared()).await);
    pass(Duration::from_secs(60)).await;
    schedules.pause(&name).await.unwrap();
    let before = stage.runs.times("often").len();
    let _ = two.shutdown().await;
    let two = stage.start(declared()).await;
    pass(Duration::from_secs(600)).await;
    assert_eq!(stage.runs.times("often").len(), before);
    assert_eq!(stage.info("often").await.unwrap().state, ScheduleState::Paused);
    let published = schedules.run_now(&name).await.unwrap();
    pass(Duration::from_secs(1)).await;
    let by_hand = stage.runs.all().pop().unwrap();
    assert_eq!(by_hand.id, published.event_id.to_string());
    let resumed = stage.now().await;
    assert!(schedules.resume(&name).await.unwrap());
    assert!(!schedules.resume(&name).await.unwrap());
    pass(Duration::from_secs(60)).await;
    let after = stage.runs.times("often").split_off(before + 1);
    assert!((5..=6).contains(&after.len()) && after.iter().all(|at| *at > resumed), "{after:?}");
    let missing = ScheduleName::new("missing").unwrap();
    for error in [
        schedules.pause(&missing).await.unwrap_err(),
        schedules.resume(&missing).await.unwrap_err(),
        schedules.run_now(&missing).await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "stream ticks has no schedule missing");
    }
    let _ = (one.shutdown().await, two.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn a_paused_group_keeps_no_schedule_from_firing() {
    let stage = Stage::new();
    let runtime = stage.start([seconds(10)]).await;
    pass(Duration::from_secs(30)).await;
    let group = stage.client.stream("ticks").unwrap().group("work").unwrap();
    group.pause().await.unwrap();
    pass(Duration::from_secs(5)).await;
    let (ran, fired) = (stage.runs.all().len(), stage.entries("ticks").await.len());
    pass(Duration::from_secs(600)).await;
    assert_eq!(stage.runs.all().len(), ran);
    assert!(stage.entries("ticks").await.len() >= fired + 59);
    group.resume().await.unwrap();
    pass(Duration::from_secs(60)).await;
    assert_eq!(stage.runs.all().len(), stage.entries("ticks").await.len(), "each has run");
    let _ = runtime.shutdown().await;
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "report.wanted", key = "tenant")]
struct Report {
    tenant: String,
}

#[handler(group = "reports")]
async fn report(report: Report, job: Job, State(runs): State<Runs>) {
    let (schedule, id) = (report.tenant, job.event_id().to_string());
    runs.0.lock().unwrap().push(Ran { schedule, at: 0, missed: 0, late: 0, id });
}

#[tokio::test(start_paused = true)]
async fn a_stored_schedule_is_fired_by_every_runtime_of_its_stream_until_it_is_removed() {
    let stage = Stage::new();
    let builder = Runtime::builder(&stage.client).handlers(handlers![report]);
    let runtime = builder.state(stage.runs.clone()).start().await.unwrap();
    pass(HOUR).await;
    let schedules = stage.client.schedules("orders").unwrap();
    let tenant = Report { tenant: "alice".into() };
    let wanted = Schedule::every("alice", Duration::from_secs(60)).unwrap();
    let wanted = wanted.publishes(&tenant).unwrap();
    assert!(schedules.put(&wanted).await.unwrap());
    assert!(!schedules.put(&wanted).await.unwrap(), "the same again changes nothing");
    pass(Duration::from_secs(600)).await;
    let runs = stage.runs.all();
    assert!((9..=10).contains(&runs.len()) && runs.iter().all(|ran| ran.schedule == "alice"));
    let listed = schedules.list(None, 10).await.unwrap();
    let [info] = &listed.schedules[..] else { panic!("{listed:?}") };
    assert_eq!((info.name.as_str(), info.state), ("alice", ScheduleState::Active));
    assert_eq!(info.origin, Some(ScheduleOrigin::Stored));
    assert_eq!((info.fired, info.missed, info.runs), (runs.len() as u64, 0, 0));
    let read = info.schedule.as_ref().unwrap();
    assert_eq!((read.in_words(), read.timing()), ("Every minute".to_owned(), "1m".to_owned()));
    let history = schedules.history(Some(&info.name), 3).await.unwrap();
    let last = history.first().unwrap();
    assert_eq!((history.len(), last.due, last.entry), (3, info.last, info.last_entry));
    assert_eq!((last.published, last.missed, last.by.is_some()), (1, 0, true));
    assert!(schedules.remove(&info.name).await.unwrap());
    assert!(!schedules.remove(&info.name).await.unwrap());
    pass(HOUR).await;
    assert_eq!(stage.runs.all().len(), runs.len());
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_the_code_cannot_be_replaced_or_removed_at_run_time() {
    let stage = Stage::new();
    let runtime = stage.start([seconds(10)]).await;
    pass(Duration::from_secs(1)).await;
    let schedules = stage.schedules();
    let error = schedules.put(&seconds(20)).await.unwrap_err().to_string();
    assert!(error.contains("schedule often of stream ticks is declared in code"), "{error}");
    let name = ScheduleName::new("often").unwrap();
    let error = schedules.remove(&name).await.unwrap_err().to_string();
    assert!(error.contains("is declared in code: pause it"), "{error}");
    let other = seconds(5).stream("others").unwrap();
    let error = schedules.put(&other).await.unwrap_err().to_string();
    assert!(error.contains("publishes to stream others"), "{error}");
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn bad_schedules_are_refused_by_name() {
    let stage = Stage::new();
    let never = Schedule::cron("never", "0 0 31 2 *").unwrap();
    let elsewhere = seconds(5).stream("others").unwrap();
    let builder = Runtime::builder(&stage.client).handlers(handlers![work]);
    let builder = builder.state(stage.runs.clone());
    let builder = [seconds(1), seconds(2), never.clone(), elsewhere]
        .into_iter()
        .fold(builder, |builder, schedule| builder.schedule(schedule));
    let error = builder.start().await.unwrap_err().to_string();
    for part in [
        "two schedules of stream ticks have the name often",
        "schedule never never occurs: it has no occurrence within eight years",
        "schedule often publishes to stream others, for which this runtime has no handler",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let error = stage.schedules().put(&never).await.unwrap_err().to_string();
    assert!(error.contains("never occurs"), "{error}");
    let large = Report { tenant: "x".repeat(2_000_000) };
    let large = Schedule::every("large", HOUR).unwrap().publishes(&large).unwrap();
    let orders = stage.client.schedules("orders").unwrap();
    let error = orders.put(&large).await.unwrap_err().to_string();
    assert!(
        error.contains("the event of schedule large has") && error.contains("1048576"),
        "{error}"
    );
    let errors = [
        Schedule::cron("a b", "* * * * *").unwrap_err().to_string(),
        Schedule::cron("a", "0 25 * * *").unwrap_err().to_string(),
        Schedule::cron("a", "0 5 * * *").unwrap().zone("Mars/Olympus").unwrap_err().to_string(),
        Schedule::every("a", Duration::from_millis(10)).unwrap_err().to_string(),
        Schedule::every("a", HOUR).unwrap().offset(HOUR).unwrap_err().to_string(),
        Schedule::every("a", HOUR).unwrap().zone("UTC").unwrap_err().to_string(),
    ];
    for (error, part) in errors.iter().zip([
        "invalid schedule name",
        "invalid cron expression \"0 25 * * *\" of schedule a",
        "invalid time zone of schedule a",
        "shorter than 1 second",
        "the offset is not less than the period",
        "an interval has no time zone",
    ]) {
        assert!(error.contains(part), "{error}");
    }
}
