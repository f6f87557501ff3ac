//! Many readers of one process: they share connections and wait without a read on the server.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::config::GroupOptions;
use streamjobs::{Client, Runtime};

use crate::app::{App, DEADLINE, Work, options, order, until};

/// More readers than have connections of their own.
const READERS: usize = 6;

/// Readers that wait for a minute, longer than any test: what they find, they were told of.
async fn readers(app: &App, work: &Work) -> Runtime {
    let builder = app.bare(work).group("work", patient()).block(Duration::from_secs(60));
    let runtime = builder.start().await.unwrap();
    for _ in 1..READERS {
        runtime.add_consumer("work").await.unwrap();
    }
    runtime
}

fn patient() -> GroupOptions {
    options().lease(Duration::from_secs(3600)).concurrency(NonZeroU32::new(10).unwrap())
}

fn blocked(app: &App) -> usize {
    app.server.client_list().iter().filter(|client| client.flags.contains('b')).count()
}

/// Waits until no read waits on the server, and the server remembers the stream for the readers. Reads of
/// readers that came when there were few are ended.
async fn idle(app: &App) {
    until(DEADLINE, "the stream is remembered", || {
        for client in app.server.client_list() {
            if client.flags.contains('b') {
                app.server.command(&["CLIENT", "UNBLOCK", &client.id.to_string()]);
            }
        }
        is_remembered(app)
    })
    .await;
}

fn is_remembered(app: &App) -> bool {
    blocked(app) == 0 && app.server.info("tracking_total_keys").as_deref() == Some("1")
}

/// The connections on which the server remembers what is read.
fn reading(app: &App) -> Vec<u64> {
    let clients = app.server.client_list().into_iter();
    clients.filter(|client| client.flags.contains('t')).map(|client| client.id).collect()
}

#[tokio::test]
async fn many_readers_share_connections_and_are_told_of_each_entry() {
    let app = App::start().await;
    let (before, fine) = (app.connections(), Work::fine());
    let runtime = readers(&app, &fine).await;
    idle(&app).await;
    for number in 1..=20 {
        app.client.publish(&order(number)).await.unwrap();
        fine.wait_for(number).await;
        until(DEADLINE, "acknowledged", || app.pending("work") == 0).await;
    }
    assert_eq!(fine.distinct(), 20);
    // One for reading, one that is told, one for all else.
    assert_eq!(app.connections() - before, 3);
    let _ = runtime.shutdown().await;
    until(DEADLINE, "connections closed", || app.connections() == before).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_while_all_wait_costs_no_entry() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = readers(&app, &fine).await;
    idle(&app).await;
    let told = app.server.client_list().into_iter().find_map(|client| client.told);
    let told = told.expect("a connection that is told");
    for (round, lost) in [reading(&app), vec![told]].into_iter().enumerate() {
        assert!(!lost.is_empty());
        for id in lost {
            app.server.command(&["CLIENT", "KILL", "ID", &id.to_string()]);
        }
        app.client.publish(&order(round)).await.unwrap();
        fine.wait_for(round + 1).await;
        // Those that come back first have connections of their own for one read.
        idle(&app).await;
    }
    app.server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let back = async || app.client.publish(&order("back")).await.is_ok();
    streamjobs_tests::eventually::eventually_async(DEADLINE, "published", back).await;
    fine.wait_for(3).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn readers_that_wait_recreate_a_group_that_is_deleted() {
    let app = App::start().await;
    let fine = Work::fine();
    let runtime = readers(&app, &fine).await;
    idle(&app).await;
    app.server.command(&["DEL", "orders"]);
    let exists = || app.server.try_query::<i64>(&["EXISTS", "orders"]).is_ok_and(|n| n == 1);
    until(DEADLINE, "recreated", exists).await;
    app.client.publish(&order("after")).await.unwrap();
    fine.wait_for(1).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn without_the_right_to_be_told_each_reader_waits_on_the_server() {
    let app = App::start().await;
    let rules = ["ACL", "SETUSER", "bob", "on", ">canary", "~*", "&*", "+@all", "-client|tracking"];
    app.server.command(&rules);
    let url = app.server.url_as("bob", "canary");
    let app = App { client: Client::connect(&url).await.unwrap(), server: app.server };
    let fine = Work::fine();
    let builder = app.bare(&fine).group("work", patient());
    let runtime = builder.block(Duration::from_secs(2)).start().await.unwrap();
    for _ in 1..READERS {
        runtime.add_consumer("work").await.unwrap();
    }
    until(DEADLINE, "each waits", || blocked(&app) == READERS).await;
    app.publish(30).await;
    app.drained("work").await;
    assert_eq!((fine.count(), reading(&app)), (30, Vec::new()));
    let _ = runtime.shutdown().await;
}
