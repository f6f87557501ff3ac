use std::sync::{Arc, Mutex};

use streamjobs::error::{BoxError, StartError};
use streamjobs::service::{BoxFuture, Service, ServiceContext};

use crate::app::{App, DEADLINE, Gate, Work, order, until};

/// Panics in its first run, and checks the server when it is told to stop.
#[derive(Clone, Default)]
struct Watching {
    runs: Arc<Mutex<u32>>,
    /// Jobs that ended by then, and entries that were still pending.
    at_stop: Arc<Mutex<Option<(usize, u64)>>>,
    done: Arc<Mutex<usize>>,
}

impl Service for Watching {
    fn name(&self) -> &'static str {
        "watching"
    }

    fn run(&self, context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let run = {
                let mut runs = self.runs.lock().unwrap();
                *runs += 1;
                *runs
            };
            assert!(run > 1, "the first run");
            context.stop().cancelled().await;
            let orders = context.client().stream("orders").unwrap();
            let pending = orders.groups().await.unwrap()[0].pending;
            *self.at_stop.lock().unwrap() = Some((*self.done.lock().unwrap(), pending));
        })
    }
}

#[tokio::test]
async fn a_service_is_run_again_after_a_panic_and_stopped_after_the_drain() {
    let (app, gate, watching) = (App::start().await, Gate::default(), Watching::default());
    let (passed, done) = (gate.clone(), watching.done.clone());
    let gated = Work::new(move |_, _| {
        let (passed, done) = (passed.clone(), done.clone());
        async move {
            passed.passed().await;
            *done.lock().unwrap() += 1;
            Ok(())
        }
    });
    let builder = app.runtime(&gated).service(watching.clone());
    let runtime = builder.start().await.unwrap();
    app.publish(3).await;
    gated.wait_for(3).await;
    until(DEADLINE, "run again", || *watching.runs.lock().unwrap() == 2).await;
    assert_eq!(runtime.counters().services_ended, 1);
    let control = runtime.control();
    let leaving = async {
        until(DEADLINE, "the stop has begun", || control.consumers()[0].leaving).await;
        assert_eq!((app.pending("work"), *watching.at_stop.lock().unwrap()), (3, None));
        gate.open();
    };
    let (report, ()) = tokio::join!(runtime.shutdown(), leaving);
    assert_eq!((report.finished, *watching.at_stop.lock().unwrap()), (3, Some((3, 0))));
    assert!(report.abandoned.is_empty() && *watching.runs.lock().unwrap() == 2);
}

/// Is never ready.
struct Unready;

impl Service for Unready {
    fn name(&self) -> &'static str {
        "unready"
    }

    fn prepare<'a>(&'a self, context: &'a ServiceContext) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move {
            // The client works already.
            context.client().publish(&order("prepared")).await?;
            Err("no database".into())
        })
    }

    fn run(&self, _context: ServiceContext) -> BoxFuture<'_, ()> {
        Box::pin(async { panic!("it must not run") })
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_prepared_refuses_the_start_before_the_server_is_touched() {
    let (app, work) = (App::start().await, Work::fine());
    let refused = app.runtime(&work).service(Unready).start().await.unwrap_err();
    assert!(matches!(refused, StartError::Service { name: "unready", .. }), "{refused:?}");
    assert_eq!(refused.to_string(), "cannot prepare service unready");
    // Its own event is all that there is: no group, no floor, no connection beside the client's.
    assert_eq!((app.number(&["DBSIZE"]), app.server.length("orders")), (1, 1));
    let groups = app.server.command(&["XINFO", "GROUPS", "orders"]);
    assert!(groups.as_sequence().is_some_and(<[_]>::is_empty), "{groups:?}");
    until(DEADLINE, "one connection", || app.connections() == 1).await;
    let runtime = app.runtime(&work).start().await.unwrap();
    app.drained("work").await;
    assert_eq!(work.count(), 1);
    let _ = runtime.shutdown().await;
}
