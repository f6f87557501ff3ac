//! A webhook whose receiver is busy at first: `Retry-After` becomes a snooze, which counts no failure.
//!
//! `cargo run -p streamjobs-examples --bin webhook` prints the two requests and the counters.

#![allow(clippy::print_stdout, reason = "an example prints to its terminal")]

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, Job, JobError, ResultExt, Runtime, handler};
use streamjobs_examples::redis;
use streamjobs_tests::eventually::eventually_async;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "hooks", type = "hook.due")]
struct Hook {
    address: String,
}

#[handler(group = "webhooks", max_attempts = 12, backoff = "1s..1h", timeout = "30s")]
async fn deliver(hook: Hook, job: Job) -> Result<(), JobError> {
    let (status, retry_after) = send(&hook.address, job.event_id().as_str()).await?;
    match status {
        200..=299 => Ok(()),
        429 | 503 => Err(format!("status {status}")).later(retry_after),
        404 | 410 => Err(format!("status {status}")).dead(),
        _ => Err(JobError::retry(format!("status {status}"))),
    }
}

/// Sends the request: its status, and how long to wait. Use the HTTP client of your choice.
async fn send(address: &str, id: &str) -> Result<(u16, Duration), JobError> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("POST / HTTP/1.1\r\nhost: {address}\r\nidempotency-key: {id}\r\n");
    stream.write_all(format!("{request}connection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).ok_or("no status")?.parse()?;
    let seconds = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(60);
    Ok((status, Duration::from_secs(seconds)))
}

/// Answers 429 to the first request for an event, and 200 to the second.
async fn receive(headers: HeaderMap) -> (StatusCode, [(&'static str, &'static str); 1]) {
    static BUSY: std::sync::Once = std::sync::Once::new();
    let (mut status, id) = (StatusCode::OK, headers.get("idempotency-key"));
    BUSY.call_once(|| status = StatusCode::TOO_MANY_REQUESTS);
    println!("{}: {status}", if id.is_some() { "with its event id" } else { "without an id" });
    (status, [("retry-after", "1")])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (server, listener) = (redis()?, TcpListener::bind("127.0.0.1:0").await?);
    let address = listener.local_addr()?.to_string();
    let receiver = axum::serve(listener, Router::new().route("/", post(receive)));
    let client = Client::connect(&server.url()).await?;
    let runtime = Runtime::builder(&client).start().await?;
    client.publish(&Hook { address }).await?;
    tokio::select! {
        ended = receiver.into_future() => ended?,
        () = eventually_async(Duration::from_secs(20), "it is delivered", async || {
            runtime.counters().succeeded == 1
        }) => {}
    }
    let counters = runtime.counters();
    println!("snoozed {}, failed {}", counters.snoozed, counters.failed);
    if runtime.shutdown().await.abandoned.is_empty() { Ok(()) } else { Err("a job is left".into()) }
}
