//! `docs/scheduled.md`.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, EventId};
use streamjobs_tests::server::RedisServer;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.reminder")]
struct Reminder {
    order: String,
}

async fn remind(
    client: &Client,
    reminders: &[(SystemTime, EventId, Reminder)],
    (midnight, tomorrow): (SystemTime, SystemTime),
) -> Result<(), Box<dyn std::error::Error>> {
    let report = Reminder { order: "all".into() };
    // page: begin
    let hour = Duration::from_secs(3_600);
    let scheduled = client.publish_in(hour, &Reminder { order: "o-1".into() }).await?;
    client.publish_at_with_id(midnight, &report, EventId::new("report-2025-11-24")?).await?;
    client.publish_all_at(reminders.iter().map(|(at, id, event)| (*at, id.clone(), event))).await;

    let waiting = client.scheduled("orders")?;
    waiting.cancel(scheduled.event_id()).await?;
    let id = EventId::new("report-2025-11-24")?;
    waiting.reschedule(&id, tomorrow).await?;
    waiting.run_now(&id).await?;
    for event in waiting.list(None, 50).await?.events {
        println!("{} {:?} in {:?}", event.id, event.event_type, event.due_in);
    }
    // page: end
    Ok(())
}

#[tokio::test]
async fn reminders_wait_and_a_report_is_run_at_once() {
    let server = RedisServer::start().unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let in_days = |days: u32| SystemTime::now() + Duration::from_secs(86_400) * days;
    let reminders = [1, 2].map(|number| {
        let id = EventId::new(format!("r-{number}")).unwrap();
        (in_days(number), id, Reminder { order: format!("o-{number}") })
    });
    remind(&client, &reminders, (in_days(1), in_days(2))).await.unwrap();
    assert_eq!(client.scheduled("orders").unwrap().count().await.unwrap(), 2, "the reminders");
    let entered = server.entries("orders").into_iter().filter_map(|entry| entry.text("sj-id"));
    assert_eq!(entered.collect::<Vec<_>>(), ["report-2025-11-24"]);
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/scheduled.md"), include_str!("scheduled.rs"));
}
