//! Publishing inside a transaction: what commits with it, and in which form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use streamjobs::{EncodedEvent, Event, EventId, StreamName};
use streamjobs_postgres::PublishInError;

use crate::app::{App, Charge, Order, order, write_effect};

fn id(name: &str) -> EventId {
    EventId::new(name).unwrap()
}

/// The event that a handler publishes about its work.
#[derive(Debug, Event, serde::Serialize, serde::Deserialize)]
#[event(stream = "charges", type = "order.charged", key = "customer")]
struct Charged {
    customer: String,
}

async fn waiting(app: &App) -> i64 {
    app.number("SELECT count(*) FROM streamjobs.outbox").await
}

#[tokio::test]
async fn an_event_is_published_by_the_commit_and_never_by_a_rollback() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let mut transaction = app.pool.begin().await.unwrap();
    publisher.publish_in(&mut transaction, &order("lost")).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = app.pool.begin().await.unwrap();
    let event_id = publisher.publish_in(&mut transaction, &order("kept")).await.unwrap();
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 0);
    transaction.commit().await.unwrap();
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 1);
    let entries = app.server.entries("orders");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].text("sj-id").as_deref(), Some(event_id.as_str()));
    assert!(entries[0].text("data").unwrap().contains("kept"));
    assert_eq!(waiting(&app).await, 0);
}

#[tokio::test]
async fn a_handlers_events_commit_with_its_guard_and_its_effects() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let charge = Charge::new(move |order, tx, job| {
        let publisher = publisher.clone();
        Box::pin(async move {
            write_effect(tx, &order, &job).await?;
            let charged = Charged { customer: order.customer.clone() };
            publisher.publish_in(tx, &charged).await?;
            // The first attempt fails after it has published.
            if job.attempt() == 1 { Err("failed".into()) } else { Ok(()) }
        })
    });
    let runtime = app.runtime(&charge).start().await.unwrap();
    app.publish(&[order("o-1")]).await;
    charge.wait_for(2).await;
    app.drained("billing").await;
    assert_eq!((app.effects().await, app.guard_rows().await, waiting(&app).await), (1, 1, 1));
    let relayed = app.postgres.relay().sweep(&app.client).await.unwrap();
    assert_eq!((relayed.events, app.server.entries("charges").len()), (1, 1));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn many_events_keep_their_order_and_every_byte() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let mut connection = app.pool.acquire().await.unwrap();
    assert_eq!(publisher.publish_all_in(&mut connection, &[] as &[Order]).await.unwrap(), []);
    let orders = (0..1_700).map(order).collect::<Vec<_>>();
    let ids = publisher.publish_all_in(&mut connection, &orders).await.unwrap();
    let fields = vec![
        ("type".into(), "blob".into()),
        ("sj-id".into(), "e-blob".into()),
        (vec![0, 0xff].into(), (0..=255).collect::<Vec<u8>>().into()),
        ("empty".into(), "".into()),
    ];
    let blob = EncodedEvent::from_parts(StreamName::new("orders").unwrap(), fields).unwrap();
    publisher.publish_encoded_in(&mut connection, std::slice::from_ref(&blob)).await.unwrap();
    let relayed = app.postgres.relay().batch(400).sweep(&app.client).await.unwrap();
    assert_eq!((relayed.events, relayed.left, relayed.refused), (1_701, 0, 0));
    let mut entries = app.server.entries("orders");
    let last = entries.pop().unwrap();
    let stored = last.fields.iter().map(|(name, value)| (&name[..], &value[..]));
    assert!(stored.eq(blob.fields().iter().map(|(name, value)| (&name[..], &value[..]))));
    let stored = entries.iter().map(|entry| entry.text("sj-id").unwrap());
    assert_eq!(stored.collect::<Vec<_>>(), ids.iter().map(EventId::to_string).collect::<Vec<_>>());
    for (number, entry) in entries.iter().enumerate() {
        let expected = EncodedEvent::with_id(&orders[number], ids[number].clone()).unwrap();
        let expected = expected.fields().iter().map(|(name, value)| (&name[..], &value[..]));
        assert!(entry.fields.iter().map(|(name, value)| (&name[..], &value[..])).eq(expected));
    }
}

#[tokio::test]
async fn an_event_keeps_the_id_and_goes_to_the_stream_that_it_was_given() {
    let app = App::start().await;
    let publisher = app.postgres.publisher().without_notify();
    let mut connection = app.pool.acquire().await.unwrap();
    let tenant = StreamName::new("orders:{acme}").unwrap();
    publisher.publish_in_with_id(&mut connection, &order(1), id("own")).await.unwrap();
    publisher.publish_in_to(&mut connection, tenant, &order(2), id("acme")).await.unwrap();
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 2);
    for (stream, event_id) in [("orders", "own"), ("orders:{acme}", "acme")] {
        let entries = app.server.entries(stream);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].text("sj-id").as_deref(), Some(event_id));
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_published_leaves_the_transaction_usable() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let mut transaction = app.pool.begin().await.unwrap();
    let large = order("x".repeat(2 * 1024 * 1024));
    let refused = publisher.publish_in(&mut transaction, &large).await.unwrap_err();
    assert!(matches!(refused, PublishInError::Event(_)), "{refused}");
    let some = [order("small"), large];
    publisher.publish_all_in(&mut transaction, &some).await.unwrap_err();
    publisher.publish_in(&mut transaction, &order("small")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(waiting(&app).await, 1);
}

#[tokio::test]
async fn an_error_of_the_database_is_the_cause_of_the_publishers() {
    let app = App::start().await;
    let mut transaction = app.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await.unwrap_err();
    let publisher = app.postgres.publisher();
    let error = publisher.publish_in(&mut transaction, &order("canary")).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<sqlx::Error>();
    let code = cause.unwrap().as_database_error().unwrap().code().unwrap();
    assert_eq!((code.as_ref(), error.to_string().contains("canary")), ("25P02", false));
}

#[tokio::test]
async fn the_backlog_counts_what_waits_and_how_long() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    assert_eq!(publisher.backlog().await.unwrap().age, None);
    let mut connection = app.pool.acquire().await.unwrap();
    publisher.publish_all_in(&mut connection, &[order(1), order(2)]).await.unwrap();
    for row in [
        "UPDATE streamjobs.outbox SET published_at = clock_timestamp() - interval '1 h' \
         WHERE id = (SELECT min(id) FROM streamjobs.outbox)",
        "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values, refused) \
         VALUES ('orders', 'e', '{}', '{}', 'because')",
    ] {
        sqlx::query(row).execute(&app.pool).await.unwrap();
    }
    let backlog = publisher.backlog().await.unwrap();
    assert_eq!((backlog.events, backlog.more, backlog.refused), (2, false, 1));
    let age = backlog.age.unwrap();
    assert!(age >= Duration::from_secs(3_600) && age < Duration::from_secs(3_700), "{age:?}");
    let many = "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values) \
                SELECT 'orders', 'e', '{}', '{}' FROM generate_series(1, 10000)";
    sqlx::query(many).execute(&app.pool).await.unwrap();
    let backlog = publisher.backlog().await.unwrap();
    assert_eq!((backlog.events, backlog.more), (10_000, true));
    let view = "SELECT events FROM streamjobs.outbox_backlog WHERE stream = 'orders'";
    assert_eq!(app.number(view).await, 10_002);
}

#[tokio::test]
async fn an_event_for_a_time_is_scheduled_by_the_commit_and_published_at_once_if_that_is_over() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let at = SystemTime::now() + Duration::from_secs(3_600);
    let scheduled = app.client.scheduled("orders").unwrap();
    let mut transaction = app.pool.begin().await.unwrap();
    publisher.publish_at_in(&mut transaction, at, &order("lost")).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = app.pool.begin().await.unwrap();
    let far = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    let error = publisher.publish_at_in(&mut transaction, far, &order("far")).await.unwrap_err();
    assert!(error.to_string().contains("year 9999"), "{error}");
    let later = publisher.publish_at_in(&mut transaction, at, &order("later")).await.unwrap();
    publisher.publish_in(&mut transaction, &order("now")).await.unwrap();
    publisher.publish_at_in(&mut transaction, UNIX_EPOCH, &order("over")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 3);
    assert_eq!((waiting(&app).await, app.server.length("orders")), (0, 2));
    let page = scheduled.list(None, 10).await.unwrap();
    assert_eq!(page.events.iter().map(|event| &event.id).collect::<Vec<_>>(), [&later]);
    let due = UNIX_EPOCH + Duration::from_millis(page.events[0].due);
    let late = due.duration_since(at).unwrap_or_default();
    assert!(due >= at - Duration::from_micros(1) && late <= Duration::from_millis(1), "{late:?}");
}

/// As after the death of a relay between the two steps of a row.
#[tokio::test]
async fn a_scheduled_event_whose_row_is_moved_again_waits_once() {
    let app = App::start().await;
    let publisher = app.postgres.publisher();
    let at = SystemTime::now() + Duration::from_secs(3_600);
    for _ in 0..2 {
        let mut connection = app.pool.acquire().await.unwrap();
        publisher
            .publish_at_in_with_id(&mut connection, at, &order("again"), id("again"))
            .await
            .unwrap();
        assert_eq!(app.postgres.relay().sweep(&app.client).await.unwrap().events, 1);
    }
    let scheduled = app.client.scheduled("orders").unwrap();
    assert_eq!(scheduled.count().await.unwrap(), 1);
    assert!(scheduled.cancel(&id("again")).await.unwrap());
    assert_eq!((waiting(&app).await, app.server.length("orders")), (0, 0));
}
