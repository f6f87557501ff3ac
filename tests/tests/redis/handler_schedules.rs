//! Handlers with a schedule of their own, on a real server and in two processes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::schedule::Tick;
use streamjobs::{Client, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;

use crate::app::App;

/// The time of each occurrence that ran.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<u64>>>);

// A machine that stands still for seconds leaves out no occurrence.
#[handler(group = "beats", every = "1s", missed = "all")]
async fn beat(tick: Tick, State(runs): State<Runs>) {
    assert_eq!(tick.schedule, "beat");
    runs.0.lock().unwrap().push(tick.at);
}

#[tokio::test]
async fn each_occurrence_of_a_handler_runs_once_in_one_of_two_processes() {
    let app = App::start().await;
    let runs = Runs::default();
    let mut runtimes = Vec::new();
    for _ in 0..2 {
        let client = Client::connect(&app.server.url()).await.unwrap();
        let builder = Runtime::builder(&client).handlers(handlers![beat]).state(runs.clone());
        runtimes.push(builder.start().await.unwrap());
    }
    let enough = async || runs.0.lock().unwrap().len() >= 4;
    eventually_async(Duration::from_secs(30), "four occurrences ran", enough).await;
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
    let mut ran = runs.0.lock().unwrap().clone();
    ran.sort_unstable();
    let entries = app.server.entries("ticks:beats");
    let number = |text: Option<String>| text.unwrap().parse::<u64>().unwrap();
    let due = entries.iter().map(|entry| number(entry.text("sj-due"))).collect::<Vec<_>>();
    assert_eq!(ran, due[..ran.len()], "each of them once");
    assert!(due.windows(2).all(|pair| pair[1] == pair[0] + 1_000), "{due:?}");
    for entry in &entries {
        let published = number(entry.id.split('-').next().map(str::to_owned));
        assert!(published >= number(entry.text("sj-due")), "{} is early", entry.id);
        assert_eq!(entry.text("type").as_deref(), Some("tick.beat"));
    }
}

#[derive(Clone, Default)]
struct Imports(Arc<Mutex<Vec<(u64, u32)>>>);

#[handler(group = "imports", every = "1s", overlap = "skip", max_attempts = 2, backoff = "2s")]
async fn import(tick: Tick, job: Job, State(imports): State<Imports>) -> Result<(), JobError> {
    imports.0.lock().unwrap().push((tick.at, job.attempt()));
    match job.attempt() {
        1 => Err(JobError::retry_after(Duration::from_secs(2), "not yet")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn an_occurrence_is_skipped_while_the_retry_of_the_last_one_waits() {
    let app = App::start().await;
    let (client, imports) = (Client::connect(&app.server.url()).await.unwrap(), Imports::default());
    let builder = Runtime::builder(&client).handlers(handlers![import]).state(imports.clone());
    let runtime = builder.start().await.unwrap();
    let enough = async || imports.0.lock().unwrap().len() >= 6;
    eventually_async(Duration::from_secs(60), "three occurrences ran twice", enough).await;
    let ran = imports.0.lock().unwrap().clone();
    for pair in ran.chunks_exact(2) {
        assert_eq!((pair[0].0, pair[0].1, pair[1].1), (pair[1].0, 1, 2), "{ran:?}");
    }
    let schedules = client.schedules("ticks:imports").unwrap();
    let history = schedules.history(None, 1_000).await.unwrap();
    let _ = runtime.shutdown().await;
    let of = |skips: bool| history.iter().filter(move |firing| (firing.skipped > 0) == skips);
    assert!(of(true).count() >= 2, "at least one beside each retry: {history:?}");
    assert!(of(true).all(|firing| firing.published == 0 && firing.entry.is_none()));
    assert!(of(false).all(|firing| firing.published == 1), "{history:?}");
}
