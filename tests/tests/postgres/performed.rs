//! A guarded handler that a test runs by hand, without a stream.

use streamjobs::testing::{Next, perform};
use streamjobs::{EventId, JobError};

use crate::app::{App, Charge, charge, order, write_effect};

#[tokio::test]
async fn a_guarded_handler_runs_once_by_hand_and_its_guard_skips_the_second_run() {
    let app = App::start().await;
    let id = EventId::new("e-1").unwrap();
    let run = async |charged: &Charge| {
        let run = perform::<charge>(&order("o-1")).event_id(id.clone());
        run.state(app.postgres.clone()).state(charged.clone()).await.unwrap()
    };
    let fails = Charge::new(|order, tx, job| {
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            Err(JobError::retry("the terminal is busy"))
        })
    });
    assert!(matches!(run(&fails).await.next, Next::Retry { .. }));
    assert_eq!((app.effects().await, app.guard_rows().await), (0, 0), "it was rolled back");
    let charged = Charge::once();
    for _ in 0..2 {
        assert_eq!(run(&charged).await.next, Next::Done);
    }
    assert_eq!((app.effects().await, app.guard_rows().await, charged.count()), (1, 1, 1));
    let missing = perform::<charge>(&order("o-1")).state(charged).await.unwrap_err();
    assert!(missing.to_string().contains("streamjobs_postgres::postgres::Postgres"), "{missing}");
}
