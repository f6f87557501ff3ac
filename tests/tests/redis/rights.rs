//! A user or a server without a command without which no job is ever done: the start fails by name.

use std::time::Duration;

use streamjobs::doctor::Severity;
use streamjobs::{Backoff, Client, JobError, Runtime, handlers};
use streamjobs_tests::server::RedisServer;

use crate::app::{DEADLINE, Work, options, order, quick, settled, until, work};

/// The error of a start, with its causes; none if the runtime starts and does a job.
async fn refusal(url: &str) -> Option<String> {
    let client = Client::connect(url).await.unwrap();
    let fine = Work::fine();
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(fine.clone());
    match builder.start().await {
        Ok(runtime) => {
            client.publish(&order(1)).await.unwrap();
            fine.wait_for(1).await;
            let _ = runtime.shutdown().await;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

/// How a user with all rights but these connects.
fn user(server: &RedisServer, but: &[&str]) -> String {
    let words = ["ACL", "SETUSER", "bob", "reset", "on", ">canary", "~*", "&*", "+@all"];
    server.command(&[&words, but].concat());
    server.url_as("bob", "canary")
}

#[tokio::test]
async fn a_right_without_which_nothing_is_done_refuses_the_start_by_name() {
    let server = RedisServer::start().unwrap();
    for (right, place) in [("XREADGROUP", " on orders"), ("XACK", " on orders"), ("CLIENT|ID", "")]
    {
        let lower = right.to_lowercase();
        let error = refusal(&user(&server, &[&format!("-{lower}")])).await;
        let expected = format!(
            "cannot prepare group work on stream orders: the user lacks a right: user bob has no right to run {right}{place}, and \
             without it no job is ever done; grant it with ACL SETUSER bob +{lower}"
        );
        assert_eq!(error.as_ref(), Some(&expected));
    }
}

#[tokio::test]
async fn a_right_to_run_scripts_that_is_missing_is_named_as_the_server_does() {
    let server = RedisServer::start().unwrap();
    let error = refusal(&user(&server, &["-evalsha"])).await.unwrap();
    assert!(error.contains("work on stream orders") && error.contains("'evalsha'"), "{error}");
}

#[tokio::test]
async fn a_right_without_which_jobs_are_done_refuses_no_start() {
    let server = RedisServer::start().unwrap();
    for right in ["-client|setname", "-client|unblock", "-xlen"] {
        assert_eq!(refusal(&user(&server, &[right])).await, None, "{right}");
    }
}

#[tokio::test]
async fn jobs_of_a_lost_retry_set_are_reported_while_the_user_may_not_look_for_them() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&user(&server, &["-hscan"])).await.unwrap();
    let twice = Work::new(|_, job| async move {
        if job.attempt() == 1 { Err(JobError::retry("not now")) } else { Ok(()) }
    });
    let later = options().backoff(Backoff::fixed(Duration::from_secs(1)));
    let builder = Runtime::builder(&client).handlers(handlers![work]).state(twice.clone());
    let runtime = quick(builder.group("work", later)).start().await.unwrap();
    for id in 0..3 {
        client.publish(&order(id)).await.unwrap();
    }
    until(DEADLINE, "waiting for retry", || runtime.counters().retried == 3).await;
    server.command(&["DEL", "{orders}:retry:work"]);
    until(DEADLINE, "reported", || runtime.counters().retries_stranded > 0).await;
    let counters = runtime.counters();
    assert_eq!((counters.retries_stranded, counters.retries_restored), (3, 0));
    user(&server, &[]);
    twice.wait_for(6).await;
    settled(&runtime).await;
    assert_eq!(runtime.counters().retries_restored, 3);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_command_that_was_renamed_away_refuses_the_start_by_name() {
    let server = RedisServer::builder().rename("CLIENT", "").start().unwrap();
    let error = refusal(&server.url()).await;
    let expected = "cannot prepare group work on stream orders: the server does not know CLIENT|ID, \
                    and without it no job is ever done; remove its rename-command from the \
                    server's configuration";
    assert_eq!(error.as_deref(), Some(expected));
    let client = Client::connect(&server.url()).await.unwrap();
    let checkup = client.doctor_for([("orders", "work")]).await.unwrap();
    let what = "the server has no command CLIENT|ID, CLIENT|UNBLOCK, CLIENT|SETNAME";
    let found = checkup.findings.iter().find(|finding| finding.what == what);
    assert_eq!(found.map(|finding| finding.severity), Some(Severity::Critical), "{checkup}");
}

#[tokio::test]
async fn a_refused_login_is_told_in_words_and_in_the_words_of_the_server() {
    let server = RedisServer::builder().password("canary").start().unwrap();
    let error = Client::connect(&server.url_without_login()).await.unwrap_err().to_string();
    assert!(
        error.contains("the login is missing or wrong: ") && error.contains("NOAUTH"),
        "{error}"
    );
    let error = Client::connect(&server.url_as("", "wrong")).await.unwrap_err().to_string();
    assert!(error.contains("the login is missing or wrong: "), "{error}");
    assert!(error.contains("WRONGPASS"), "{error}");
}

#[tokio::test]
async fn errors_name_their_cause_in_words_and_in_the_words_of_the_server() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&user(&server, &["-xadd"])).await.unwrap();
    let error = client.publish(&order(1)).await.unwrap_err().to_string();
    assert!(error.contains("the user lacks a right: ") && error.contains("NOPERM"), "{error}");

    let client = Client::connect(&server.url()).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = client.publish(&order(1)).await.unwrap_err().to_string();
    assert!(error.contains("the server is out of memory: ") && error.contains("OOM"), "{error}");
    let error = refusal(&server.url()).await.unwrap();
    assert!(error.contains("the server is out of memory: ") && error.contains("OOM"), "{error}");
}

/// Behind a Sentinel or in a cluster, no client connects to a replica.
#[tokio::test]
async fn a_read_only_replica_is_told_in_words_and_in_the_words_of_the_server() {
    let server = RedisServer::builder().plain().start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let replica = "the server is a read-only replica: ";
    let error = client.publish(&order(1)).await.unwrap_err().to_string();
    assert!(error.contains(replica) && error.contains("READONLY"), "{error}");
    let error = refusal(&server.url()).await.unwrap();
    assert!(error.contains(replica) && error.contains("READONLY"), "{error}");
}
