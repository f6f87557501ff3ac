//! A client that is told by Sentinel where the primary is.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use streamjobs::doctor::{Check, Severity};
use streamjobs::error::Refusal;
use streamjobs::{Client, Runtime, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::{RedisServer, SentinelSetup};

use crate::app::{DEADLINE, Work, options, order, quick, settled, until, work};

/// Three sentinels, their servers, and a process with one group whose reads wait for a minute.
struct Failover {
    setup: SentinelSetup,
    client: Client,
    fine: Work,
    runtime: Runtime,
}

impl Failover {
    async fn start() -> Self {
        let setup = SentinelSetup::start().unwrap();
        let client = Client::connect(&setup.url()).await.unwrap();
        let fine = Work::fine();
        let builder = Runtime::builder(&client).handlers(handlers![work]).state(fine.clone());
        let builder = quick(builder.group("work", options())).block(Duration::from_secs(60));
        let runtime = builder.start().await.unwrap();
        Self { setup, client, fine, runtime }
    }

    /// Publishes, and waits until the replica has it and the jobs are done.
    async fn publish_replicated(&self, ids: Range<usize>) {
        let (first, second) = (self.setup.first(), self.setup.second());
        for id in ids.clone() {
            self.client.publish(&order(id)).await.unwrap();
        }
        self.fine.wait_for(ids.end).await;
        let is_done = |server: &RedisServer| {
            server.length("orders") >= ids.end && server.pending("orders", "work").is_empty()
        };
        until(DEADLINE, "replicated", || is_done(first) && is_done(second)).await;
    }

    /// Publishes until an event is stored on the second server.
    async fn published_there(&self) {
        let second = self.setup.second();
        until(DEADLINE, "promoted", || is_primary(second)).await;
        eventually_async(DEADLINE, "published on the new primary", async || {
            let _lost = self.client.publish(&order("until there")).await;
            let found = second.entries("orders").into_iter().filter_map(|row| row.text("data"));
            found.into_iter().any(|data| data.contains("until there"))
        })
        .await;
    }

    /// Waits until each event that the second server has is done there.
    async fn all_done_there(&self) {
        let second = self.setup.second();
        until(DEADLINE, "drained", || {
            let ids = second.entries("orders").into_iter().filter_map(|row| row.text("sj-id"));
            let done: HashSet<_> = self.fine.runs().into_iter().map(|run| run.event_id).collect();
            ids.into_iter().all(|id| done.contains(&id))
        })
        .await;
        settled(&self.runtime).await;
        until(DEADLINE, "acknowledged", || second.pending("orders", "work").is_empty()).await;
    }
}

impl Failover {
    /// Publishes these, and all up to them are done.
    async fn goes_on(&self, ids: Range<usize>) {
        for id in ids.clone() {
            self.client.publish(&order(id)).await.unwrap();
        }
        self.all_done_there().await;
        let done: HashSet<_> = self.fine.runs().into_iter().map(|run| run.order).collect();
        assert!((0..ids.end).all(|id| done.contains(&id.to_string())), "{done:?}");
    }
}

/// A Sentinel closes the connections of a server whose role it changes, the harness's as well.
fn is_primary(server: &RedisServer) -> bool {
    let info = server.try_query::<String>(&["INFO", "replication"]);
    info.is_ok_and(|info| info.contains("role:master"))
}

#[tokio::test]
async fn jobs_go_on_after_the_primary_was_killed_and_none_that_was_replicated_is_lost() {
    let app = Failover::start().await;
    app.publish_replicated(0..20).await;
    app.setup.first().kill();
    app.published_there().await;
    app.goes_on(20..40).await;
    assert!(app.setup.second().length("orders") >= 40);
    assert_eq!(app.runtime.counters().failed, 0);
    let _ = app.runtime.shutdown().await;
}

/// Nothing on the connections tells: the former primary accepts writes for ten seconds, and a read that
/// waits there goes on waiting.
#[tokio::test]
async fn a_former_primary_that_goes_on_answering_is_left_at_once() {
    left_at_once(Failover::start().await, 'b').await;
}

/// The same for readers that share connections and are told of changes.
#[tokio::test]
async fn shared_connections_to_a_former_primary_are_left_at_once() {
    let app = Failover::start().await;
    for _ in 0..5 {
        app.runtime.add_consumer("work").await.unwrap();
    }
    left_at_once(app, 't').await;
}

/// `flag` is what the server says of a connection of readers that wait.
async fn left_at_once(app: Failover, flag: char) {
    let (first, second) = (app.setup.first(), app.setup.second());
    app.publish_replicated(0..5).await;
    let waits =
        |server: &RedisServer| server.client_list().iter().any(|row| row.flags.contains(flag));
    until(DEADLINE, "a reader waits", || waits(first)).await;
    app.setup.fail_over(0);
    app.published_there().await;
    for id in 5..25 {
        app.client.publish(&order(id)).await.unwrap();
    }
    app.fine.wait_for(25).await;
    until(DEADLINE, "a reader waits there", || waits(second)).await;
    let ours =
        |server: &RedisServer| server.client_list().iter().any(|row| row.name == "streamjobs");
    until(DEADLINE, "every connection was dropped", || !ours(first)).await;
    assert!(is_primary(first), "it has not been told yet");
    // What is stored there is lost when it becomes a replica, and nothing of ours is.
    until(DEADLINE, "it was told", || !is_primary(first)).await;
    app.client.publish(&order(25)).await.unwrap();
    app.all_done_there().await;
    let stored: HashSet<_> =
        second.entries("orders").into_iter().filter_map(|row| row.text("sj-id")).collect();
    let lost = app.fine.runs().into_iter().filter(|run| !stored.contains(&run.event_id));
    let lost: Vec<_> = lost.map(|run| run.order).filter(|order| order != "until there").collect();
    assert_eq!(lost, Vec::<String>::new());
    let done: HashSet<_> = app.fine.runs().into_iter().map(|run| run.order).collect();
    assert!((0..26).all(|id| done.contains(&id.to_string())), "{done:?}");
    assert_eq!(app.runtime.counters().failed, 0);
    let _ = app.runtime.shutdown().await;
}

#[tokio::test]
async fn a_failover_is_heard_from_the_next_sentinel_when_one_is_gone() {
    let app = Failover::start().await;
    app.publish_replicated(0..1).await;
    let is_heard = |index: usize| {
        let list: String = app.setup.sentinel(index).query(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        list.contains("name=streamjobs")
    };
    until(DEADLINE, "the first is listened to", || is_heard(0)).await;
    app.setup.sentinel(0).kill();
    until(DEADLINE, "another is listened to", || is_heard(1) || is_heard(2)).await;
    app.setup.fail_over(2);
    app.published_there().await;
    assert!(is_primary(app.setup.first()), "it has not been told yet");
    app.all_done_there().await;
    let _ = app.runtime.shutdown().await;
}

/// The process of the primary hangs: no connection is closed, and nothing answers.
#[tokio::test]
async fn a_primary_that_hangs_is_left_when_another_server_takes_its_place() {
    let app = Failover::start().await;
    app.publish_replicated(0..5).await;
    app.setup.first().freeze();
    app.published_there().await;
    app.goes_on(5..10).await;
    app.setup.first().thaw();
    app.client.publish(&order(10)).await.unwrap();
    app.all_done_there().await;
    let _ = app.runtime.shutdown().await;
}

async fn refused(url: &str) -> String {
    let error = Client::connect(url).await.map(drop).unwrap_err().to_string();
    assert!(!error.contains("canary"), "{error}");
    error
}

#[tokio::test]
async fn what_names_no_primary_is_refused_by_name() {
    let setup = SentinelSetup::start_with(Some("canary")).unwrap();
    Client::connect(&setup.url()).await.unwrap();
    let sentinel = setup.sentinel(0).port();
    let error = refused(&setup.url_of("other")).await;
    assert!(error.contains("it knows no primary named other"), "{error}");
    for index in 0..3 {
        let port = setup.sentinel(index).port();
        assert!(error.contains(&format!("127.0.0.1:{port}: ")), "{error}");
    }
    let wrong = format!("redis+sentinel://127.0.0.1:{sentinel}/jobs?sentinel_password=canary2");
    let error = refused(&wrong).await;
    assert!(error.contains(&format!("127.0.0.1:{sentinel}: WRONGPASS")), "{error}");
    let error = refused(&format!("redis+sentinel://127.0.0.1:{sentinel}/jobs")).await;
    assert!(error.contains("NOAUTH"), "{error}");
    let server = setup.first().port();
    let error = refused(&format!("redis+sentinel://127.0.0.1:{server}/jobs")).await;
    assert!(error.contains(&format!("127.0.0.1:{server}: it is not a Sentinel")), "{error}");
    let error = refused(&format!("redis://:canary@127.0.0.1:{sentinel}")).await;
    assert!(error.contains("the server is a Sentinel"), "{error}");
    assert!(error.contains("redis+sentinel://"), "{error}");
    let url = setup.url();
    drop(setup);
    let error = refused(&url).await;
    assert!(error.contains("no primary jobs was found"), "{error}");
    assert!(error.contains(&format!("127.0.0.1:{sentinel}: Connection refused")), "{error}");
}

#[tokio::test]
async fn the_documented_rights_are_enough_at_a_sentinel_and_role_is_needed_at_the_primary() {
    let setup = SentinelSetup::start().unwrap();
    let sentinel = setup.sentinel(0);
    let words = "ACL SETUSER bob reset on >canary +sentinel|get-master-addr-by-name +sentinel|master \
                 +subscribe &+switch-master +client|setname";
    sentinel.command(&words.split_whitespace().collect::<Vec<_>>());
    let hosts = format!("127.0.0.1:{}/jobs", sentinel.port());
    let settings = "?sentinel_user=bob&sentinel_password=canary";
    let client = Client::connect(&format!("redis+sentinel://{hosts}{settings}")).await.unwrap();
    let listens = || {
        let list: String = sentinel.query(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        list.lines().any(|row| row.contains("name=streamjobs") && row.contains("user=bob"))
    };
    until(DEADLINE, "the sentinel is listened to", listens).await;
    client.publish(&order(1)).await.unwrap();
    let words = ["ACL", "SETUSER", "eve", "reset", "on", ">canary", "allkeys", "+@all", "-role"];
    setup.first().command(&words);
    let error = refused(&format!("redis+sentinel://eve:canary@{hosts}{settings}")).await;
    assert!(error.contains("ROLE was refused: NOPERM"), "{error}");
    let wrong = format!("redis+sentinel://eve:canary2@{hosts}{settings}");
    let error = Client::connect(&wrong).await.map(drop).unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Login), "{error}");
}

#[tokio::test]
async fn the_doctor_names_what_a_failover_can_lose() {
    let setup = SentinelSetup::start().unwrap();
    let client = Client::connect(&setup.url()).await.unwrap();
    let found = async || {
        let checkup = client.doctor_for([("orders", "work")]).await.unwrap();
        let findings = checkup.findings.into_iter();
        let findings = findings.filter(|finding| finding.check == Check::Replicas);
        findings.map(|finding| (finding.severity, finding.what)).collect::<Vec<_>>()
    };
    let findings = found().await;
    let [(severity, what)] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(*severity, Severity::Warning);
    assert!(what.contains("min-replicas-to-write is 0"), "{what}");
    setup.first().command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_eq!(found().await, []);
}
