//! An axum application with jobs and a clean stop: requests end first, then jobs. With `DASHBOARD_PASSWORD=… \
//! REDIS_URL=redis://127.0.0.1:6379 cargo run -p streamjobs-examples --bin axum_app`, try
//! `curl -d '{"email":"alice@example.org"}' -H 'content-type: application/json' 127.0.0.1:3000/users`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints to its terminal")]

mod mailer;
mod operations;
#[cfg(test)]
mod tests;

use std::env::var;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use streamjobs::runtime::Control;
use streamjobs::{Client, Event, JobError, Runtime, State as JobState, handler};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::mailer::Mailer;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "users", type = "user.registered", key = "email")]
struct UserRegistered {
    email: String,
}

#[handler(group = "welcome", start = "$", timeout = "30s")]
async fn welcome(user: UserRegistered, JobState(mailer): JobState<Mailer>) -> Result<(), JobError> {
    Ok(mailer.send(&user.email, "welcome").await?)
}

async fn register(State(web): State<Web>, Json(user): Json<UserRegistered>) -> StatusCode {
    let published = web.client.publish(&user).await.inspect_err(|error| eprintln!("{error}"));
    published.map_or(StatusCode::SERVICE_UNAVAILABLE, |_| StatusCode::ACCEPTED)
}

async fn ready(State(web): State<Web>) -> StatusCode {
    let healthy = web.jobs.health().is_healthy();
    if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Clone)]
struct Web {
    client: Client,
    jobs: Control,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scrape = operations::recorder()?; // before the client connects
    let client = Client::connect(&var("REDIS_URL")?).await?;
    // What can fail comes before the start: from then on, jobs run.
    let operations = operations::routes(&client, scrape)?;
    let listener = TcpListener::bind(var("ADDRESS").unwrap_or("127.0.0.1:3000".into())).await?;
    println!("listening on {}", listener.local_addr()?);
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let builder = Runtime::builder(&client).state(Mailer).grace(Duration::from_secs(20));
    let runtime = builder.start().await?;
    let web = Web { client, jobs: runtime.control() };
    let app = Router::new().route("/users", post(register)).route("/ready", get(ready));
    let app = app.with_state(web).merge(operations);
    let asked = async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(asked).await;
    let report = runtime.shutdown().await; // after the last request, which may publish
    println!("stopped: {} released, {} abandoned", report.released, report.abandoned.len());
    Ok(served?)
}
