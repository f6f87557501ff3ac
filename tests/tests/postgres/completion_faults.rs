//! Batches with completion: what interrupts an end, what is added late, and members that cannot end by themselves.

use streamjobs::{HandlerDef, Runtime, State, handler, handlers};
use streamjobs_postgres::batches::EndMember;

use crate::app::{App, Order, options, quick, until};
use crate::completion::{BOTH, Script, completed, publish, published, status};

async fn start(app: &App, script: &Script, handlers: [HandlerDef; 1]) -> Runtime {
    let builder = Runtime::builder(&app.client).handlers(handlers);
    let builder = builder.state(script.clone()).state(app.postgres.clone());
    quick(builder.group("billing", options())).start().await.unwrap()
}

#[handler(group = "billing", wrap = EndMember, timeout = "200ms")]
async fn brief(order: Order, State(script): State<Script>) {
    script.runs.lock().unwrap().push(order.id);
}

/// The work is done, and its time is over before the member has ended: the job is no success, and comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_time_ends_before_its_member_has_ended_comes_again() {
    let (app, script) = (App::start().await, Script::default());
    publish(&app, &["a"]).await;
    let mut held = app.pool.begin().await.unwrap();
    let hold = "SELECT FROM streamjobs.batches WHERE id = 'album-7' FOR UPDATE";
    sqlx::query(hold).execute(&mut *held).await.unwrap();
    let runtime = start(&app, &script, handlers![brief]).await;
    until("it runs again", || script.count() >= 2).await;
    assert_eq!(status(&app).await.unfinished, 1);
    held.rollback().await.unwrap();
    completed(&app).await;
    app.drained("billing").await;
    assert_eq!(published(&app).await, BOTH);
    let _ = runtime.shutdown().await;
}
