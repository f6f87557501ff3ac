//! Results of jobs on a server.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::stream::{Group, JobResult};
use streamjobs::{Client, EntryId, Job, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::app::{App, DEADLINE, Order, Work, options, order, quick, settled, until};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    order: String,
    attempt: u32,
}

#[handler(group = "work", result = "10m", max_attempts = 2)]
async fn receipt(order: Order, State(work): State<Work>, job: Job) -> Result<Receipt, JobError> {
    let (id, attempt) = (order.id.clone(), job.attempt());
    work.run(order, job).await?;
    Ok(Receipt { order: id, attempt })
}

fn of(id: &str, attempt: u32) -> Receipt {
    Receipt { order: id.to_owned(), attempt }
}

async fn runtime(client: &Client, work: &Work) -> Runtime {
    let builder = Runtime::builder(client).handlers(handlers![receipt]).state(work.clone());
    quick(builder).group("work", options()).start().await.unwrap()
}

fn group(client: &Client) -> Group {
    client.stream("orders").unwrap().group("work").unwrap()
}

fn key(id: &streamjobs::EventId) -> String {
    format!("{{orders}}:result:work:{{{id}}}")
}

#[tokio::test]
async fn a_result_is_kept_as_json_in_a_key_that_expires() {
    let (app, work) = (App::start().await, Work::fine());
    let runtime = runtime(&app.client, &work).await;
    let published = app.client.publish(&order("o-1")).await.unwrap();
    let found = group(&app.client).wait_for::<Receipt>(&published, DEADLINE).await.unwrap();
    assert_eq!(found.done(), Some(of("o-1", 1)));
    let key = key(&published.event_id);
    let stored: String = redis::from_redis_value(app.server.command(&["GET", &key])).unwrap();
    assert_eq!(stored, r#"{"order":"o-1","attempt":1}"#);
    let rest = app.number(&["PTTL", &key]);
    assert!(rest > 590_000 && rest <= 600_000, "{rest}");
    let report = app.client.stream("orders").unwrap().event(&published.event_id).await.unwrap();
    assert_eq!(report.jobs[0].result.unwrap().bytes, Some(stored.len() as u64));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_dead_letter_is_seen_and_a_redrive_makes_it_a_result() {
    let (app, gate) = (App::start().await, crate::app::Gate::default());
    let open = gate.clone();
    let work = Work::new(move |_, job| {
        let open = open.clone();
        async move {
            if job.origin().is_some() && job.attempt() == 1 {
                open.passed().await;
                return Ok(());
            }
            Err("no such article".into())
        }
    });
    let runtime = runtime(&app.client, &work).await;
    let published = app.client.publish(&order("o-1")).await.unwrap();
    let group = group(&app.client);
    let found = group.wait_for::<Receipt>(&published, DEADLINE).await.unwrap();
    let JobResult::Dead(dead) = found else { panic!("{found:?}") };
    let (reason, error) = (dead.reason.unwrap(), dead.error.unwrap());
    assert_eq!((reason.as_str(), error.as_str()), ("exhausted", "no such article"));
    let sign: String =
        redis::from_redis_value(app.server.command(&["GET", &key(&published.event_id)])).unwrap();
    assert_eq!(sign, "!dead exhausted\nno such article");
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let letter = app.server.entries("{orders}:dead:work")[0].id.parse::<EntryId>().unwrap();
    letters.redrive(letter).await.unwrap();
    work.wait_for(3).await;
    let redriven = group.result::<Receipt>(&published).await.unwrap();
    assert!(redriven.is_unknown(), "it runs again: {redriven:?}");
    gate.open();
    let found = group.wait_for::<Receipt>(&published, DEADLINE).await.unwrap();
    assert_eq!(found.done(), Some(of("o-1", 1)));
    let _ = runtime.shutdown().await;
}

/// The job of a server without memory: done once, and its waiter is told that there is no result.
#[tokio::test]
async fn a_full_server_keeps_a_sign_in_place_of_the_result_and_the_job_is_done_once() {
    let (app, gate) = (App::start().await, crate::app::Gate::default());
    let work = Work::gated(&gate);
    let runtime = runtime(&app.client, &work).await;
    let published = app.client.publish(&order("o-1")).await.unwrap();
    work.wait_for(1).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    gate.open();
    let group = group(&app.client);
    let found = group.wait_for::<Receipt>(&published, DEADLINE).await.unwrap();
    assert_eq!(found, JobResult::NotKept);
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((counters.succeeded, counters.failed, counters.results_lost), (1, 0, 1));
    let key = key(&published.event_id);
    assert!(app.number(&["PTTL", &key]) > 590_000, "the sign expires as a result does");
    let report = app.client.stream("orders").unwrap().event(&published.event_id).await.unwrap();
    assert_eq!(report.jobs[0].result.unwrap().bytes, None);
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    // A later run of the same job may leave its result in place of the sign.
    let id = published.event_id.clone();
    app.client.publish_with_id(&order("o-1"), id).await.unwrap();
    until(DEADLINE, "a second run", || work.count() == 2).await;
    app.drained("work").await;
    let found = group.wait_for::<Receipt>(&published.event_id, Duration::ZERO).await.unwrap();
    assert_eq!(found.done(), Some(of("o-1", 1)));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_key_of_another_type_hides_the_result_and_fails_no_job() {
    let (app, work) = (App::start().await, Work::fine());
    let id = streamjobs::EventId::new("o-1").unwrap();
    app.server.command(&["RPUSH", &key(&id), "x"]);
    let runtime = runtime(&app.client, &work).await;
    app.client.publish_with_id(&order("o-1"), id.clone()).await.unwrap();
    app.drained("work").await;
    settled(&runtime).await;
    let counters = runtime.counters();
    assert_eq!((counters.succeeded, counters.failed, counters.results_lost), (1, 0, 1));
    let refused = group(&app.client).result::<Receipt>(&id).await.unwrap_err();
    assert!(format!("{refused:?}").contains("WRONGTYPE"), "{refused:?}");
    let report = app.client.stream("orders").unwrap().event(&id).await.unwrap();
    assert_eq!(report.jobs[0].result, None);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_lost_answer_neither_loses_the_result_nor_repeats_the_job() {
    let (app, work) = (App::start().await, Work::fine());
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    let runtime = runtime(&client, &work).await;
    let (faults, id) = (proxy.faults(), streamjobs::EventId::new("o-1").unwrap());
    proxy.set(Mode::LoseReplyTo(key(&id)));
    app.client.publish_with_id(&order("o-1"), id.clone()).await.unwrap();
    until(DEADLINE, "an answer is lost", || proxy.faults() > faults).await;
    proxy.set(Mode::Pass);
    let found = group(&app.client).wait_for::<Receipt>(&id, DEADLINE).await.unwrap();
    assert_eq!(found.done(), Some(of("o-1", 1)));
    app.drained("work").await;
    settled(&runtime).await;
    assert_eq!((work.count(), runtime.counters().results_lost), (1, 0));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_result_is_in_the_partition_of_its_event() {
    let (server, work) = (RedisServer::start().unwrap(), Work::fine());
    let client = Client::builder(&server.url()).partitions("orders", 4).connect().await.unwrap();
    let runtime = runtime(&client, &work).await;
    let group = group(&client);
    for customer in 0..8 {
        let event = Order { id: "o".to_owned(), customer: format!("customer-{customer}") };
        let published = client.publish(&event).await.unwrap();
        let found = group.wait_for::<Receipt>(&published, DEADLINE).await.unwrap();
        assert_eq!(found.done(), Some(of("o", 1)));
        // Who knows the id alone asks all partitions.
        let found = group.result::<Receipt>(&published.event_id).await.unwrap();
        assert_eq!(found.done(), Some(of("o", 1)));
        let place = usize::from(published.partition.unwrap());
        let mut parts = client.stream("orders").unwrap().partitions().into_iter().enumerate();
        let elsewhere = parts.find(|(part, _)| *part != place).unwrap().1.group("work").unwrap();
        let found = elsewhere.result::<Receipt>(&published.event_id).await.unwrap();
        assert!(found.is_unknown());
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_cluster_keeps_results_beside_their_streams() {
    let (cluster, work) = (RedisCluster::start().unwrap(), Work::fine());
    let client = Client::builder(&cluster.url()).partitions("orders", 6).connect().await.unwrap();
    let runtime = runtime(&client, &work).await;
    let group = group(&client);
    for customer in 0..12 {
        let event = Order { id: "o".to_owned(), customer: format!("customer-{customer}") };
        let published = client.publish(&event).await.unwrap();
        let found = group.wait_for::<Receipt>(&published.event_id, DEADLINE).await.unwrap();
        assert_eq!(found.done(), Some(of("o", 1)));
    }
    let _ = runtime.shutdown().await;
}
