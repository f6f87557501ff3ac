//! `docs/weights.md`.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::error::StartError;
use streamjobs::{Client, Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;
use tokio::time::{Instant, sleep_until};

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "mails-urgent", type = "mail")]
struct UrgentMail {
    to: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "mails", type = "mail")]
struct NormalMail {
    to: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "mails-bulk", type = "mail")]
struct BulkMail {
    to: String,
}

/// Who was written to, in order, and how many mails were on their way at once.
#[derive(Clone, Default)]
struct Mailer(Arc<Mutex<Sent>>);

#[derive(Default)]
struct Sent {
    to: Vec<String>,
    now: usize,
    most: usize,
}

impl Mailer {
    async fn send(&self, to: &str) -> Result<(), JobError> {
        {
            let mut sent = self.0.lock().unwrap();
            sent.to.push(to.to_owned());
            sent.now += 1;
            sent.most = sent.most.max(sent.now);
        }
        sleep_until(Instant::now() + Duration::from_millis(60)).await;
        self.0.lock().unwrap().now -= 1;
        Ok(())
    }

    fn sent(&self) -> Vec<String> {
        self.0.lock().unwrap().to.clone()
    }
}

// page: begin
#[handler(group = "send", slots = "mail", weight = 5)]
async fn send_urgent(mail: UrgentMail, State(mailer): State<Mailer>) -> Result<(), JobError> {
    mailer.send(&mail.to).await
}

#[handler(group = "send", slots = "mail", weight = 2)]
async fn send_normal(mail: NormalMail, State(mailer): State<Mailer>) -> Result<(), JobError> {
    mailer.send(&mail.to).await
}

#[handler(group = "send", slots = "mail")]
async fn send_bulk(mail: BulkMail, State(mailer): State<Mailer>) -> Result<(), JobError> {
    mailer.send(&mail.to).await
}

async fn start(client: &Client, mailer: Mailer) -> Result<Runtime, StartError> {
    let builder = Runtime::builder(client).handlers(handlers![send_urgent, send_normal, send_bulk]);
    builder.state(mailer).shared_slots("mail", NonZeroU32::new(20).unwrap()).start().await
}
// page: end

#[tokio::test]
async fn urgent_mails_have_most_starts_and_bulk_its_share() {
    let (server, mailer) = (RedisServer::start().unwrap(), Mailer::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let mails = 0..800;
    let urgent = mails.clone().map(|_| UrgentMail { to: "urgent".to_owned() }).collect::<Vec<_>>();
    let normal = mails.clone().map(|_| NormalMail { to: "normal".to_owned() }).collect::<Vec<_>>();
    let bulk = mails.map(|_| BulkMail { to: "bulk".to_owned() }).collect::<Vec<_>>();
    assert!(client.publish_all(&urgent).await.iter().all(Result::is_ok));
    assert!(client.publish_all(&normal).await.iter().all(Result::is_ok));
    assert!(client.publish_all(&bulk).await.iter().all(Result::is_ok));
    let runtime = start(&client, mailer.clone()).await.unwrap();
    let done = async || mailer.sent().len() == 2_400;
    eventually_async(Duration::from_secs(60), "all are sent", done).await;
    assert_eq!(mailer.0.lock().unwrap().most, 20);
    // While all three have a backlog: of 960 starts, give or take two fillings of the set.
    let sent = &mailer.sent()[120..1_080];
    let had = ["urgent", "normal", "bulk"].map(|to| sent.iter().filter(|sent| *sent == to).count());
    for (had, exact) in had.into_iter().zip([600_usize, 240, 120]) {
        assert!(had.abs_diff(exact) <= 40, "{had}, not {exact}");
    }
    let free = async || runtime.control().shared_slots()[0].in_use == 0;
    eventually_async(Duration::from_secs(20), "all slots are free", free).await;
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/weights.md"), include_str!("weights.rs"));
}
