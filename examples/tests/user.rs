//! The tests that a user of streamjobs writes: without a server, and without waiting.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests say what is wrong by failing")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::testing::Streams;
use streamjobs::{Event, JobError, ResultExt, Runtime, State, handler, handlers};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "users", type = "user.registered")]
struct UserRegistered {
    email: String,
}

/// Mail that fails as often as its first field says.
#[derive(Clone, Default)]
struct Mailer {
    failures: Arc<Mutex<u32>>,
    sent: Arc<Mutex<Vec<String>>>,
}

#[handler(group = "welcome", max_attempts = 3, backoff = "1m")]
async fn welcome(user: UserRegistered, State(mailer): State<Mailer>) -> Result<(), JobError> {
    let address = user.email.split_once('@').ok_or("no address").dead()?;
    let mut failures = mailer.failures.lock().unwrap();
    if *failures > 0 {
        *failures -= 1;
        return Err("the mail server is busy".into());
    }
    mailer.sent.lock().unwrap().push(address.0.to_owned());
    Ok(())
}

// page: begin
#[tokio::test]
async fn what_is_no_address_is_rejected() {
    let user = UserRegistered { email: "alice".into() };
    let error = welcome(user, State(Mailer::default())).await.unwrap_err();
    assert!(error.is_dead());
}
// page: end

// page: begin
#[tokio::test(start_paused = true)]
async fn mail_is_sent_although_the_server_is_busy_at_first() {
    let mailer = Mailer { failures: Arc::new(Mutex::new(2)), ..Mailer::default() };
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::welcome]);
    let runtime = builder.state(mailer.clone()).start().await.unwrap();

    client.publish(&UserRegistered { email: "alice@example.org".into() }).await.unwrap();
    streams.drain(Duration::from_secs(150)).await.unwrap(); // no real time: two retries

    assert_eq!(*mailer.sent.lock().unwrap(), ["alice"]);
    assert_eq!((runtime.counters().failed, runtime.counters().succeeded), (2, 1));
    assert!(runtime.shutdown().await.abandoned.is_empty());
}
// page: end

// page: begin
#[tokio::test(start_paused = true)]
async fn mail_that_cannot_be_sent_is_a_dead_letter() {
    let mailer = Mailer { failures: Arc::new(Mutex::new(3)), ..Mailer::default() };
    let streams = Streams::new();
    let client = streams.client();
    let builder = Runtime::builder(&client).handlers(handlers![self::welcome]);
    let runtime = builder.state(mailer).start().await.unwrap();

    client.publish(&UserRegistered { email: "alice@example.org".into() }).await.unwrap();
    streams.drain(Duration::from_secs(150)).await.unwrap();

    let letters = client.dead_letters("users", "welcome").unwrap();
    let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
    assert_eq!(letter.reason.as_str(), "exhausted");
    assert_eq!(letter.error.as_deref(), Some("the mail server is busy"));
    let _ = runtime.shutdown().await;
}
// page: end
