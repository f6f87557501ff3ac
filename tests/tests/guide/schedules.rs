//! `docs/schedules.md`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::schedule::{Missed, Schedule, ScheduleName, Tick};
use streamjobs::{Client, Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "reports", type = "report.wanted")]
struct Report {
    tenant: u32,
}

/// What was sent.
#[derive(Clone, Default)]
struct Mailer(Arc<Mutex<Vec<String>>>);

impl Mailer {
    async fn send_report(&self, tick: &Tick) -> Result<(), JobError> {
        self.0.lock().unwrap().push(tick.schedule.clone());
        Ok(())
    }

    async fn refresh(&self) {
        self.0.lock().unwrap().push("refreshed".to_owned());
    }
}

async fn start(client: Client) -> Result<Runtime, Box<dyn std::error::Error>> {
    // page: begin
    let nightly = Schedule::cron("nightly", "30 2 * * *")?.zone("Europe/Berlin")?;
    let cleanup = Schedule::every("cleanup", Duration::from_secs(300))?.missed(Missed::None);
    let builder = Runtime::builder(&client).handlers(handlers![on_tick]);
    let runtime = builder.schedule(nightly).schedule(cleanup).start().await?;
    // page: end
    Ok(runtime)
}

// page: begin
#[handler(group = "reports")]
async fn on_tick(tick: Tick) {
    println!("{} of {:?}, {} missed", tick.schedule, tick.occurrence(), tick.missed);
}
// page: end

// page: begin
#[handler(group = "reports", cron = "0 9 * * MON-FRI", zone = "Europe/Berlin", missed = "none")]
async fn daily(tick: Tick, State(mailer): State<Mailer>) -> Result<(), JobError> {
    mailer.send_report(&tick).await
}

#[handler(group = "reports", every = "5m", offset = "1m", jitter = "30s", expires = "5m")]
async fn refresh(_: Tick, State(mailer): State<Mailer>) {
    mailer.refresh().await;
}
// page: end

async fn operate(
    client: &Client,
    (name, report): (ScheduleName, Report),
) -> Result<(), Box<dyn std::error::Error>> {
    // page: begin
    let schedules = client.schedules("reports")?;
    schedules.put(&Schedule::cron("tenant-7", "0 6 * * MON")?.publishes(&report)?).await?;
    schedules.pause(&name).await?;
    schedules.resume(&name).await?;
    schedules.run_now(&name).await?;
    for firing in schedules.history(Some(&name), 20).await? {
        println!("due {:?}, late by {:?}, {} missed", firing.due, firing.late, firing.missed);
    }
    schedules.remove(&name).await?;
    // page: end
    Ok(())
}

#[tokio::test]
async fn schedules_of_the_code_and_of_handlers_are_declared_and_run_by_hand() {
    let (server, mailer) = (RedisServer::start().unwrap(), Mailer::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let ticks = start(client.clone()).await.unwrap();
    let builder = Runtime::builder(&client).handlers(handlers![daily, refresh]);
    let reports = builder.state(mailer.clone()).start().await.unwrap();
    let within = Duration::from_secs(20);
    let of = async |stream: &str| {
        client.schedules(stream).unwrap().list(None, 10).await.unwrap().schedules.len()
    };
    let declared = async || of("ticks").await == 2 && of("ticks:reports").await == 2;
    eventually_async(within, "declared", declared).await;
    let schedules = client.schedules("ticks:reports").unwrap();
    schedules.run_now(&ScheduleName::new("daily").unwrap()).await.unwrap();
    let sent = async || mailer.0.lock().unwrap().contains(&"daily".to_owned());
    eventually_async(within, "sent", sent).await;
    for runtime in [ticks, reports] {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_schedule_of_a_tenant_is_operated_at_run_time() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let name = ScheduleName::new("tenant-7").unwrap();
    operate(&client, (name, Report { tenant: 7 })).await.unwrap();
    assert_eq!(server.length("reports"), 1, "the run by hand");
    let left = client.schedules("reports").unwrap().list(None, 10).await.unwrap().schedules;
    assert!(left.is_empty());
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/schedules.md"), include_str!("schedules.rs"));
}
