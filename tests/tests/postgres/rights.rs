//! Missing rights, row-level security and tables that are gone: no handle opens, and jobs wait.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor};
use streamjobs::runtime::{Alert, Alerts};
use streamjobs::stream::Condition;
use streamjobs::{EventId, Job, JobError, Runtime, RuntimeBuilder, State, handler, handlers};
use streamjobs_postgres::{Once, OnceMark, Postgres, SchemaError};
use streamjobs_tests::eventually::eventually_async;

use crate::app::{App, Charge, DEADLINE, Order, options, order, quick, until, write_effect};

impl App {
    /// Runs statements as the owner of the tables.
    async fn owner(&self, sql: impl Into<String>) {
        let sql = AssertSqlSafe(sql.into());
        self.database.owner_pool().execute(sqlx::raw_sql(sql)).await.unwrap();
    }

    async fn open(&self) -> Result<Postgres, SchemaError> {
        Postgres::open(self.pool.clone()).await
    }
}

/// What takes something away from the run role, and what gives it back.
const BREAKAGES: [(&str, &str); 5] = [
    (
        "REVOKE INSERT ON streamjobs.once FROM streamjobs_run",
        "GRANT INSERT ON streamjobs.once TO streamjobs_run",
    ),
    (
        "REVOKE USAGE ON SCHEMA streamjobs FROM streamjobs_run",
        "GRANT USAGE ON SCHEMA streamjobs TO streamjobs_run",
    ),
    (
        "ALTER TABLE streamjobs.once ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE streamjobs.once DISABLE ROW LEVEL SECURITY",
    ),
    ("ALTER TABLE streamjobs.once RENAME TO away", "ALTER TABLE streamjobs.away RENAME TO once"),
    ("ALTER SCHEMA streamjobs RENAME TO away", "ALTER SCHEMA away RENAME TO streamjobs"),
];

#[tokio::test]
async fn opening_without_a_right_fails_and_says_what_to_grant() {
    let app = App::start().await;
    let cases = [
        ("REVOKE INSERT, DELETE ON streamjobs.once FROM streamjobs_run", "INSERT, DELETE", "once"),
        ("REVOKE ALL ON streamjobs.redrives FROM streamjobs_run", "UPDATE", "redrives"),
        ("REVOKE ALL ON streamjobs._migrations FROM streamjobs_run", "SELECT", "_migrations"),
        ("REVOKE USAGE ON SCHEMA streamjobs FROM streamjobs_run", "USAGE", "SCHEMA streamjobs"),
    ];
    for (revoke, right, object) in cases {
        app.open().await.unwrap();
        app.owner(revoke).await;
        let refused = app.open().await.unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("role streamjobs_run lacks rights"), "{text}");
        assert!(text.contains(right) && text.contains(object), "{text}");
        let SchemaError::Rights { grants, .. } = refused else { panic!("{refused}") };
        app.owner(grants).await;
    }
    app.open().await.unwrap();
}

#[tokio::test]
async fn opening_where_row_security_applies_or_a_table_is_gone_fails_and_names_the_table() {
    let app = App::start().await;
    app.owner("ALTER TABLE streamjobs.outbox ENABLE ROW LEVEL SECURITY").await;
    let refused = app.open().await.unwrap_err();
    assert!(matches!(&refused, SchemaError::RowSecurity { table, .. } if table == "outbox"));
    // It does not apply to the owner.
    Postgres::open(app.database.owner_pool()).await.unwrap();
    app.owner("ALTER TABLE streamjobs.outbox DISABLE ROW LEVEL SECURITY").await;
    app.owner("DROP TABLE streamjobs.outbox CASCADE").await;
    let refused = app.open().await.unwrap_err();
    assert!(matches!(&refused, SchemaError::NoTable { table, .. } if table == "outbox"));
}

#[tokio::test]
async fn a_role_with_some_of_the_rights_opens_when_that_is_said() {
    let app = App::start().await;
    app.owner(
        "REVOKE ALL ON ALL TABLES IN SCHEMA streamjobs FROM streamjobs_run;
         GRANT SELECT ON streamjobs._migrations, streamjobs.dead_letters TO streamjobs_run",
    )
    .await;
    app.open().await.unwrap_err();
    let page = Postgres::builder(app.pool.clone()).partial_rights().open().await.unwrap();
    assert_eq!(page.dead_letters().count(&Default::default()).await.unwrap(), 0);
    page.publisher().backlog().await.unwrap_err();
}

fn watched(builder: RuntimeBuilder) -> RuntimeBuilder {
    builder.watch_interval(Duration::from_millis(20))
}

async fn blocked(alerts: &mut Alerts) -> Alert {
    let next = async {
        loop {
            let alert = alerts.next().await.unwrap();
            if alert.condition == Condition::JobsBlocked {
                return alert;
            }
        }
    };
    tokio::time::timeout(DEADLINE, next).await.unwrap()
}

async fn guarded_jobs_wait_while((break_it, repair): (&'static str, &'static str)) {
    let app = App::start().await;
    let charge = Charge::once();
    app.owner(break_it).await;
    let runtime = watched(app.runtime(&charge)).start().await.unwrap();
    let mut alerts = runtime.alerts();
    app.publish(&(0..4).map(order).collect::<Vec<_>>()).await;
    let alert = blocked(&mut alerts).await;
    assert!(alert.raised && alert.text.contains("streamjobs-postgres cannot be used"), "{alert}");
    until("all wait", || runtime.counters().snoozed >= 4).await;
    app.owner(repair).await;
    eventually_async(DEADLINE, "all are done", async || app.effects().await == 4).await;
    let counters = runtime.counters();
    assert_eq!((counters.failed, counters.dead_lettered, charge.count()), (0, 0, 4), "{break_it}");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn guarded_jobs_wait_with_an_alert_until_the_guard_can_be_used_again() {
    futures_util::future::join_all(BREAKAGES.map(guarded_jobs_wait_while)).await;
}

#[tokio::test]
async fn a_guard_row_that_is_hidden_is_not_taken_for_an_attempt_that_ended() {
    let app = App::start().await;
    let charge = Charge::once();
    let runtime = watched(app.runtime(&charge)).start().await.unwrap();
    let mut alerts = runtime.alerts();
    let id = EventId::new("e-1").unwrap();
    app.client.publish_with_id(&order("1"), id.clone()).await.unwrap();
    until("done", || runtime.counters().succeeded == 1).await;
    // The role may insert rows and sees none.
    app.owner(
        "ALTER TABLE streamjobs.once ENABLE ROW LEVEL SECURITY;
         CREATE POLICY writes ON streamjobs.once FOR INSERT WITH CHECK (true)",
    )
    .await;
    app.client.publish_with_id(&order("1"), id).await.unwrap();
    assert!(blocked(&mut alerts).await.text.contains("row-level security"));
    app.owner("ALTER TABLE streamjobs.once DISABLE ROW LEVEL SECURITY").await;
    until("found as done", || runtime.counters().succeeded == 2).await;
    assert_eq!((charge.count(), runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}

#[handler(group = "billing")]
async fn mail(_: Order, _mark: &mut OnceMark, State(sent): State<Charge>, job: Job) {
    sent.record(job.event_id().as_str(), job.attempt());
}

#[tokio::test]
async fn jobs_with_a_mark_wait_with_an_alert_until_marks_can_be_written() {
    let (app, sent) = (App::start().await, Charge::once());
    app.owner("REVOKE INSERT ON streamjobs.once FROM streamjobs_run").await;
    let builder = Runtime::builder(&app.client).handlers(handlers![mail]);
    let builder = builder.state(app.postgres.clone()).state(sent.clone());
    let runtime = watched(quick(builder.group("billing", options()))).start().await.unwrap();
    let mut alerts = runtime.alerts();
    app.publish(&[order("1")]).await;
    assert!(blocked(&mut alerts).await.raised);
    app.owner("GRANT INSERT ON streamjobs.once TO streamjobs_run").await;
    until("sent", || runtime.counters().succeeded == 1).await;
    assert_eq!((sent.count(), runtime.counters().failed), (1, 0));
    let _ = runtime.shutdown().await;
}

#[handler(group = "billing", max_attempts = 2)]
async fn charge_and_publish(order: Order, tx: &mut Once, job: Job) -> Result<(), JobError> {
    let postgres = job.state::<Postgres>().unwrap();
    write_effect(tx, &order, &job).await?;
    let follow_up = Order { id: "follow-up".to_owned(), ..order };
    postgres.publisher().publish_in(tx, &follow_up).await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_right_on_the_outbox_is_waited_for_and_one_on_the_applications_table_fails() {
    let app = App::start().await;
    app.owner("REVOKE INSERT ON streamjobs.outbox FROM streamjobs_run").await;
    let builder = Runtime::builder(&app.client).handlers(handlers![charge_and_publish]);
    let builder = builder.state(app.postgres.clone()).group("billing", options());
    let runtime = watched(quick(builder)).start().await.unwrap();
    let mut alerts = runtime.alerts();
    app.publish(&[order("1")]).await;
    let alert = blocked(&mut alerts).await;
    assert!(alert.text.contains("permission denied for table outbox"), "{alert}");
    app.owner("GRANT INSERT ON streamjobs.outbox TO streamjobs_run").await;
    until("done", || runtime.counters().succeeded == 1).await;
    assert_eq!(runtime.counters().failed, 0);

    app.owner("REVOKE INSERT ON effects FROM streamjobs_run").await;
    app.publish(&[order("2")]).await;
    until("dead-lettered", || runtime.counters().dead_lettered == 1).await;
    assert_eq!((runtime.counters().failed, app.guard_rows().await), (2, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_relay_does_not_take_events_that_are_hidden_for_an_empty_outbox() {
    let app = App::start().await;
    let mut connection = app.pool.acquire().await.unwrap();
    app.postgres.publisher().publish_in(&mut connection, &order("1")).await.unwrap();
    app.owner("ALTER TABLE streamjobs.outbox ENABLE ROW LEVEL SECURITY").await;
    let refused = app.postgres.relay().sweep(&app.client).await.unwrap_err();
    assert!(refused.to_string().contains("row-level security"), "{refused}");
    app.owner("ALTER TABLE streamjobs.outbox DISABLE ROW LEVEL SECURITY").await;
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 1);
}
