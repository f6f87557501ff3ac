//! Dead letters that are redriven or purged in Redis after the archive took them and before it stored them.

use std::time::{Duration, Instant};

use sqlx::Executor;
use streamjobs::{HandlerDef, Runtime};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::logs;
use streamjobs_tests::proxy::{FaultProxy, Mode};
use tracing_subscriber::layer::SubscriberExt;

use crate::archive::{DEADLINE, Desk};
use crate::pooler::Warnings;

/// A desk whose stream has the group, so that its jobs can be redriven.
async fn desk() -> Desk {
    let desk = Desk::new().await;
    desk.redis.command(&["XGROUP", "CREATE", "orders", "billing", "$", "MKSTREAM"]);
    desk
}

/// The lease is long: the archive goes on with what it took before the outage.
#[tokio::test]
async fn what_was_redriven_or_purged_during_an_outage_gets_no_row() {
    let desk = desk().await;
    let proxy = FaultProxy::start(&desk.database).unwrap();
    let archive = desk.archive_through(&proxy).await.lease(Duration::from_secs(3_600));
    proxy.set(Mode::Refuse);
    proxy.sever();
    desk.store_dead_letter(0, 3);
    let handlers: [HandlerDef; 0] = [];
    let runtime = Runtime::builder(&desk.client).handlers(handlers).service(archive);
    let runtime = runtime.start().await.unwrap();
    eventually_async(DEADLINE, "taken in vain", async || proxy.faults() >= 1).await;
    let letters = desk.client.dead_letters("orders", "billing").unwrap();
    let listed = letters.list(None, 3).await.unwrap().letters;
    letters.redrive(listed[0].id).await.unwrap();
    assert_eq!(letters.purge(&[listed[1].id]).await.unwrap(), 1);
    let (began, faults) = (Instant::now(), proxy.faults());
    let lasts = async || began.elapsed() > Duration::from_secs(2) && proxy.faults() > faults;
    eventually_async(DEADLINE, "the outage lasts", lasts).await;
    proxy.set(Mode::Pass);
    eventually_async(DEADLINE, "the last one is removed", async || desk.left() == 0).await;
    let events = "SELECT string_agg(event_id, ' ') FROM streamjobs.dead_letters";
    let events = sqlx::query_scalar::<_, String>(events).fetch_one(&desk.pool).await.unwrap();
    assert_eq!((events.as_str(), desk.redis.length("{orders}:lane:billing")), ("e-2", 1));
    let _ = runtime.shutdown().await;
}

/// The window that is left: between the question to Redis, or the taking, and the commit of the rows.
#[tokio::test]
async fn what_is_redriven_while_its_row_is_written_is_warned_of() {
    let lines = Warnings::default();
    let _guard = logs::of_this_thread(tracing_subscriber::registry().with(lines.clone()));
    let desk = desk().await;
    desk.store_dead_letter(0, 2);
    let mut lock = desk.database.owner_pool().begin().await.unwrap();
    lock.execute("LOCK TABLE streamjobs.dead_letters IN EXCLUSIVE MODE").await.unwrap();
    let archive = desk.archive();
    let redrive = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waits = async || desk.number(waiting).await == 1;
        eventually_async(DEADLINE, "the archive writes", waits).await;
        let letters = desk.client.dead_letters("orders", "billing").unwrap();
        let first = letters.list(None, 1).await.unwrap().letters.remove(0);
        letters.redrive(first.id).await.unwrap();
        lock.rollback().await.unwrap();
    };
    let (report, ()) = tokio::join!(archive.sweep(&desk.client), redrive);
    assert_eq!((report.unwrap().stored, desk.left()), (2, 0));
    assert_eq!(lines.with("redriven or purged during archiving").len(), 1, "{lines:?}");
    assert_eq!(lines.with("").len(), 1, "{lines:?}");
}
