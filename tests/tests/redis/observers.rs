//! What observers are told while answers of the server are late or lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::runtime::{Observation, Observed};
use streamjobs::{Client, Runtime, handlers};
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, Gate, Work, options, quick, settled, until, work};

/// What was told of each event, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Told {
    fn note(&self, seen: &Observation) {
        let word = match seen.what() {
            Observed::Started => "started",
            Observed::Done => "done",
            Observed::Failed { .. } => "failed",
            other => panic!("{other:?}"),
        };
        let line = format!("{word} {}", seen.attempt());
        self.0.lock().unwrap().entry(seen.event_id().to_string()).or_default().push(line);
    }

    fn count(&self, line: &str) -> usize {
        self.0.lock().unwrap().values().flatten().filter(|told| *told == line).count()
    }

    /// Checks what was told of each event. When the answer to a retry is lost, the next attempt may start
    /// before the failure of this one is confirmed.
    fn each_is(&self, expected: &[&str], events: usize) {
        let mut told = self.0.lock().unwrap();
        assert_eq!(told.len(), events);
        told.values_mut()
            .for_each(|lines| lines.sort_by_key(|line| line[line.len() - 1..].to_owned()));
        assert!(told.values().all(|lines| lines == expected), "{told:?}");
    }
}

/// A runtime behind a proxy, whose observers are told what happens.
async fn observed(app: &App, work: &Work) -> (FaultProxy, Told, Runtime) {
    let (proxy, told) = (FaultProxy::start(&app.server).unwrap(), Told::default());
    let client = Client::connect(proxy.url()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![self::work]).state(work.clone());
    let group = options().lease(Duration::from_secs(60));
    let notes = told.clone();
    let builder = quick(builder.group("work", group)).observe(move |seen| notes.note(seen));
    (proxy, told, builder.start().await.unwrap())
}

#[tokio::test]
async fn done_is_told_after_the_answer_to_the_acknowledgement() {
    let (app, gate) = (App::start().await, Gate::default());
    let gated = Work::gated(&gate);
    let (proxy, told, runtime) = observed(&app, &gated).await;
    app.publish(8).await;
    gated.wait_for(8).await;
    proxy.set(Mode::HoldReplyTo("XACK".to_owned()));
    gate.open();
    until(DEADLINE, "the server has acknowledged", || app.pending("work") < 8).await;
    let acknowledged = 8 - app.pending("work");
    assert_eq!((told.count("started 1"), told.count("done 1")), (8, 0), "of {acknowledged}");
    proxy.set(Mode::Pass);
    app.drained("work").await;
    settled(&runtime).await;
    let _ = runtime.shutdown().await;
    told.each_is(&["started 1", "done 1"], 8);
}

#[tokio::test]
async fn an_acknowledgement_whose_answer_is_lost_is_told_once() {
    let (app, gate) = (App::start().await, Gate::default());
    let gated = Work::gated(&gate);
    let (proxy, told, runtime) = observed(&app, &gated).await;
    app.publish(8).await;
    gated.wait_for(8).await;
    proxy.set(Mode::LoseReplyTo("XACK".to_owned()));
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    assert!(runtime.counters().server_errors > 0, "an answer was lost");
    let _ = runtime.shutdown().await;
    told.each_is(&["started 1", "done 1"], 8);
}

#[tokio::test]
async fn failures_whose_common_answer_is_lost_are_told_once() {
    let (app, gate) = (App::start().await, Gate::default());
    let opened = gate.clone();
    let failing = Work::new(move |_, job| {
        let gate = opened.clone();
        async move {
            gate.passed().await;
            if job.attempt() == 1 { Err("not-yet-canary".into()) } else { Ok(()) }
        }
    });
    let (proxy, told, runtime) = observed(&app, &failing).await;
    app.publish(16).await;
    failing.wait_for(16).await;
    proxy.set(Mode::LoseReplyTo("not-yet-canary".to_owned()));
    gate.open();
    app.drained("work").await;
    settled(&runtime).await;
    assert!(runtime.counters().server_errors > 0, "an answer was lost");
    let _ = runtime.shutdown().await;
    told.each_is(&["started 1", "failed 1", "started 2", "done 2"], 16);
}
