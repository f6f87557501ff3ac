//! Resources that one run has for all its jobs.

use std::time::Duration;

use streamjobs::batch::{BatchBegun, BatchResource};
use streamjobs::{
    Batch, Begin, EventId, Job, JobError, JobResource, Runtime, State, handler, handlers,
};
use streamjobs_tests::eventually::eventually_async;

use super::{Log, Page, Stage, index, seconds};

#[handler(group = "guarded", concurrency = 50, batch = 10, max_attempts = 2, backoff = "1s")]
async fn guarded(
    batch: Batch<Page>,
    State(log): State<Log>,
    ledger: &mut Ledger,
) -> Result<(), JobError> {
    ledger.begun = true;
    index(&batch, &log).await
}

#[handler(group = "twice", concurrency = 50, batch = 10)]
async fn of_two(
    batch: Batch<Page>,
    State(log): State<Log>,
    ledger: &mut Ledger,
    _turnstile: &mut Turnstile,
) -> Result<(), JobError> {
    ledger.begun = true;
    index(&batch, &log).await
}

/// Lets no job in at its first attempt whose id says so.
struct Turnstile;

impl JobResource for Turnstile {
    async fn begin(_: &Job) -> Result<Begin<Self>, JobError> {
        Ok(Begin::Run(Self))
    }

    async fn commit(self) -> Result<(), JobError> {
        Ok(())
    }

    async fn rollback(self) {}
}

impl BatchResource for Turnstile {
    async fn begin_batch(jobs: &[Job]) -> Result<BatchBegun<Self>, JobError> {
        let closed =
            |job: &Job| job.event_id().as_str().starts_with("closed") && job.origin().is_none();
        let places = jobs.iter().enumerate().filter(|(_, job)| closed(job));
        let later = || JobError::later(Duration::from_secs(5), "closed");
        Ok(places.fold(BatchBegun::new(Self), |begun, (place, _)| begun.failed(place, later())))
    }

    async fn commit_batch(self, _: &[usize]) -> Result<(), JobError> {
        Ok(())
    }
}

/// Knows which events were done before: those whose id says so. Its commit takes three seconds for some.
struct Ledger {
    log: Log,
    begun: bool,
    is_slow: bool,
}

impl JobResource for Ledger {
    async fn begin(_: &Job) -> Result<Begin<Self>, JobError> {
        Err("begins for several jobs".into())
    }

    async fn commit(self) -> Result<(), JobError> {
        Err("is committed for several jobs".into())
    }

    async fn rollback(self) {
        self.log.note("rolled back");
    }
}

impl BatchResource for Ledger {
    async fn begin_batch(jobs: &[Job]) -> Result<BatchBegun<Self>, JobError> {
        let log = jobs[0].state::<Log>().unwrap();
        let is_slow = jobs.iter().any(|job| job.event_id().as_str().starts_with("slow"));
        let begun = BatchBegun::new(Self { log, begun: false, is_slow });
        let places = jobs.iter().enumerate();
        Ok(places.fold(begun, |begun, (place, job)| match job.event_id().as_str() {
            id if id.starts_with("done") => begun.done(place),
            id if id.starts_with("alone") => begun.alone(place),
            id if id.starts_with("busy") && job.is_first_delivery() => {
                begun.failed(place, JobError::later(Duration::from_secs(5), "another does it"))
            }
            _ => begun,
        }))
    }

    async fn commit_batch(self, failed: &[usize]) -> Result<(), JobError> {
        assert!(self.begun);
        if self.is_slow {
            self.log.note("commits");
            seconds(3).await;
        }
        self.log.note(format!("committed without {failed:?}"));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_during_the_commit_is_done() {
    let stage = Stage::new();
    for (number, id) in ["slow-0", "n-1"].into_iter().enumerate() {
        let page = Page { number, plan: "fine".to_owned() };
        stage.client.publish_with_id(&page, EventId::new(id).unwrap()).await.unwrap();
    }
    let builder = Runtime::builder(&stage.client).handlers(handlers![guarded]);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    let commits = async || stage.log.notes() == ["commits"];
    eventually_async(Duration::from_secs(60), "the commit has begun", commits).await;
    let id = EventId::new("n-1").unwrap();
    stage.client.stream("pages").unwrap().cancel(&id).await.unwrap();
    stage.until_done(&runtime, "guarded", 2).await;
    assert_eq!(stage.letters("guarded").await.len(), 0);
    assert_eq!((stage.log.done(), stage.log.notes().len()), (vec![0, 1], 2));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_a_resource_wants_alone_runs_alone_and_is_not_taken_for_done() {
    let stage = Stage::new();
    for (number, id) in ["n-0", "alone-1", "n-2"].into_iter().enumerate() {
        let page = Page { number, plan: "fine".to_owned() };
        stage.client.publish_with_id(&page, EventId::new(id).unwrap()).await.unwrap();
    }
    let builder = Runtime::builder(&stage.client).handlers(handlers![guarded]);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    stage.until_done(&runtime, "guarded", 3).await;
    assert_eq!((stage.log.sizes(), stage.log.done()), (vec![2, 1], vec![0, 1, 2]));
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_resource_leaves_out_is_not_done_for_another() {
    let stage = Stage::new();
    for (number, id) in ["n-0", "closed-1", "n-2"].into_iter().enumerate() {
        let page = Page { number, plan: "fine".to_owned() };
        stage.client.publish_with_id(&page, EventId::new(id).unwrap()).await.unwrap();
    }
    let builder = Runtime::builder(&stage.client).handlers(handlers![of_two]);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    stage.until_done(&runtime, "twice", 3).await;
    assert_eq!((stage.log.sizes(), stage.log.done()), (vec![2, 1], vec![0, 1, 2]));
    assert_eq!(stage.log.notes(), ["committed without [1]", "committed without []"]);
    let _ = runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_of_a_run_leaves_out_what_was_done_and_what_failed() {
    let stage = Stage::new();
    let plans = [
        ("n-0", "fine"),
        ("done-1", "fail"),
        ("n-2", "mark"),
        ("n-3", "fine"),
        ("busy-4", "fine"),
        ("done-5", "fail"),
    ];
    for (number, (id, plan)) in plans.into_iter().enumerate() {
        let page = Page { number, plan: plan.to_owned() };
        stage.client.publish_with_id(&page, EventId::new(id).unwrap()).await.unwrap();
    }
    let builder = Runtime::builder(&stage.client).handlers(handlers![guarded]);
    let runtime = builder.state(stage.log.clone()).start().await.unwrap();
    let ended = async || stage.letters("guarded").await.len() == 1;
    eventually_async(Duration::from_secs(600), "one has failed twice", ended).await;
    stage.until_done(&runtime, "guarded", 5).await;
    assert_eq!((stage.log.sizes(), stage.log.done()), (vec![3, 1, 1], vec![0, 3, 4]));
    let expected = ["committed without [2]", "rolled back", "committed without []"];
    assert_eq!(stage.log.notes(), expected, "nothing is committed where every job has failed");
    let counters = runtime.counters();
    assert_eq!((counters.succeeded, counters.snoozed, counters.failed), (5, 1, 2));

    stage.publish(&[("fine", 1), ("fail once", 1)]).await;
    stage.until_done(&runtime, "guarded", 7).await;
    let expected = ["rolled back", "committed without []", "committed without []"];
    assert_eq!(stage.log.notes()[3..], expected);

    let page = Page { number: 9, plan: "fail".to_owned() };
    stage.client.publish_with_id(&page, EventId::new("done-9").unwrap()).await.unwrap();
    stage.until_done(&runtime, "guarded", 8).await;
    assert_eq!(stage.log.notes()[6..], ["rolled back"], "a run of done events does not begin");
    let _ = runtime.shutdown().await;
}
