use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use streamjobs::error::PublishError;
use streamjobs::{Client, EncodedEvent, EventId, StreamName};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use crate::app::{App, order, orders};

#[tokio::test]
async fn publish_returns_the_id_of_the_stored_entry() {
    let app = App::start().await;
    let published = app.client.publish(&order(1)).await.unwrap();
    let entries = app.server.entries("orders");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].id, published.entry_id.to_string());
}

#[tokio::test]
async fn an_event_is_one_entry_with_its_type_first() {
    let app = App::start().await;
    let published = app.client.publish(&order(1)).await.unwrap();
    let fields = app.server.entries("orders").remove(0).fields;
    let texts = fields.iter().map(|(name, value)| {
        (String::from_utf8(name.clone()).unwrap(), String::from_utf8(value.clone()).unwrap())
    });
    let expected = [
        ("type", "order.placed"),
        ("data", r#"{"id":"1","customer":"alice"}"#),
        ("sj-id", published.event_id.as_str()),
        ("sj-key", "alice"),
    ];
    assert_eq!(
        texts.collect::<Vec<_>>(),
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[tokio::test]
async fn entry_ids_come_from_the_servers_clock_and_only_rise() {
    let app = App::start().await;
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let published = app.client.publish_all(&orders(200)).await;
    let ids = published.into_iter().map(|answer| answer.unwrap().entry_id).collect::<Vec<_>>();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(u128::from(ids[0].milliseconds()) >= before, "the server runs on this machine's clock");
}

#[tokio::test]
async fn publish_all_keeps_order_and_answers_for_each_event() {
    let app = App::start().await;
    let answers = app.client.publish_all(&orders(2_500)).await;
    let ids =
        answers.into_iter().map(|answer| answer.unwrap().entry_id.to_string()).collect::<Vec<_>>();
    let stored = app.server.entries("orders");
    assert_eq!(ids, stored.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>());
    let payload = |fields: &[(Vec<u8>, Vec<u8>)]| String::from_utf8(fields[1].1.clone()).unwrap();
    assert!(payload(&stored[2_499].fields).contains(r#""id":"2499""#));
}

#[tokio::test]
async fn encoded_events_reach_their_streams_in_order_with_an_answer_for_each() {
    let app = App::start().await;
    let streams = ["orders", "orders:{acme}", "orders:{bond}"].map(StreamName::new);
    let streams = streams.map(Result::unwrap);
    let events = (0..600).map(|number| {
        let event = EncodedEvent::new(&order(number)).unwrap();
        event.to_stream(streams[number % streams.len()].clone())
    });
    let events = events.collect::<Vec<_>>();
    let (client, sent) = (app.client.clone(), events.clone());
    // In a task of its own, as a service does it.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { client.publish_encoded(sent).await });
    let answers = tasks.join_next().await.unwrap().unwrap();
    assert_eq!(answers.len(), events.len());
    let mut stored = streams.iter().map(|name| app.server.entries(name.as_str()).into_iter());
    let mut stored = std::array::from_fn::<_, 3, _>(|_| stored.next().unwrap());
    for (number, (event, answer)) in events.iter().zip(answers).enumerate() {
        let (answer, entry) = (answer.unwrap(), stored[number % 3].next().unwrap());
        assert_eq!((&answer.event_id, answer.entry_id.to_string()), (event.event_id(), entry.id));
        let fields = event.fields().iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(fields.collect::<Vec<_>>(), entry.fields);
    }
}

#[tokio::test]
async fn an_encoded_event_that_a_client_does_not_take_hides_no_other() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).payload_bytes_max(200).connect().await.unwrap();
    let large = crate::app::Order { customer: "x".repeat(500), ..order(1) };
    let error = client.encode(&large, EventId::generate()).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { bytes_max: 200, .. }), "{error:?}");
    let other = EncodedEvent::new(&order(3)).unwrap().to_stream(StreamName::new("taken").unwrap());
    server.command(&["SET", "taken", "not a stream"]);
    let events = vec![
        client.encode(&order(0), EventId::generate()).unwrap(),
        EncodedEvent::new(&large).unwrap(),
        other,
        EncodedEvent::new(&order(2)).unwrap(),
    ];
    let answers = client.publish_encoded(events).await;
    assert!(answers[0].is_ok() && answers[3].is_ok());
    assert!(matches!(answers[1], Err(PublishError::TooLarge { .. })));
    assert!(matches!(answers[2], Err(PublishError::Rejected { .. })));
    assert_eq!(server.length("orders"), 2);
}

#[tokio::test]
async fn no_events_make_no_call() {
    let app = App::start().await;
    assert!(app.client.publish_encoded(Vec::new()).await.is_empty());
    assert!(app.client.publish_all::<crate::app::Order, _>(&[]).await.is_empty());
    assert_eq!(app.calls("xadd"), 0);
}

#[tokio::test]
async fn one_refused_event_does_not_hide_the_others() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).payload_bytes_max(200).connect().await.unwrap();
    let mut events = orders(3);
    events[1].customer = "x".repeat(500);
    let answers = client.publish_all(&events).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let error = answers[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("exceed the limit of 200") && error.contains("orders"), "{error}");
    assert_eq!(server.length("orders"), 2);
}

#[tokio::test]
async fn the_callers_own_event_id_is_stored() {
    let app = App::start().await;
    let id = EventId::new("order-1/placed").unwrap();
    let published = app.client.publish_with_id(&order(1), id.clone()).await.unwrap();
    assert_eq!(published.event_id, id);
    let fields = app.server.entries("orders").remove(0).fields;
    assert!(fields.contains(&(b"sj-id".to_vec(), b"order-1/placed".to_vec())));
}

#[tokio::test]
async fn what_the_server_refuses_is_certainly_not_stored() {
    let app = App::start().await;
    app.server.command(&["SET", "orders", "not a stream"]);
    let error = app.client.publish(&order(1)).await.unwrap_err();
    assert!(!error.is_unconfirmed());
    let id = error.event_id().cloned().unwrap();
    app.server.command(&["DEL", "orders"]);
    app.client.publish_with_id(&order(1), id).await.unwrap();
    assert_eq!(app.server.length("orders"), 1);
}

#[tokio::test]
async fn what_could_not_be_sent_is_certainly_not_stored() {
    let app = App::start().await;
    app.server.kill();
    let first = app.client.publish(&order(1)).await.unwrap_err();
    let second = app.client.publish(&order(2)).await.unwrap_err();
    // The first may have been written into a socket that was dying; the second found none.
    assert!(first.event_id().is_some());
    assert!(!second.is_unconfirmed(), "{second:?}");
}

#[tokio::test]
async fn a_lost_answer_is_unconfirmed_and_repeats_under_the_same_id() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    client.publish(&order(0)).await.unwrap();
    proxy.set(Mode::LoseReply);
    let error = client.publish(&order(1)).await.unwrap_err();
    assert!(error.is_unconfirmed(), "{error:?}");
    assert_eq!(server.length("orders"), 2, "it was stored all the same");
    proxy.set(Mode::Pass);
    let id = error.event_id().cloned().unwrap();
    client.publish_with_id(&order(1), id.clone()).await.unwrap();
    let ids = server.entries("orders").into_iter().map(|entry| entry.fields[2].1.clone());
    assert_eq!(ids.filter(|stored| stored == id.as_str().as_bytes()).count(), 2);
}

/// A broken connection is replaced within the call, also right after it was opened. Each round breaks
/// the one that the round before has opened.
#[tokio::test]
async fn a_client_whose_connection_breaks_right_after_its_opening_publishes_at_once() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    for round in 0..4 {
        proxy.sever();
        let published = client.publish(&order(round)).await;
        // The break may be noticed only by what was sent: then it is unconfirmed, as ever.
        let open = |error: &PublishError| error.is_unconfirmed();
        assert!(published.as_ref().err().is_none_or(open), "{published:?}");
        if published.is_err() {
            client.publish(&order(round)).await.unwrap();
        }
    }
    let all = client.publish_all(&orders(3)).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_among_many_events_leaves_no_gap_among_the_stored() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    for bytes in [0, 1_000, 7_000, 20_000, 50_000] {
        server.command(&["DEL", "orders"]);
        let client = Client::connect(proxy.url()).await.unwrap();
        proxy.set(Mode::CutReplies { after: bytes });
        let answers = client.publish_all(&orders(5_000)).await;
        proxy.set(Mode::Pass);
        // Stored, then open, then certainly not stored: never the other way round.
        let state = |answer: &Result<_, PublishError>| match answer {
            Ok(_) => 0,
            Err(error) if error.is_unconfirmed() => 1,
            Err(_) => 2,
        };
        let states = answers.iter().map(state).collect::<Vec<_>>();
        assert!(states.is_sorted() && states.contains(&1) && states.contains(&2), "{bytes}");
        let stored = server.entries("orders");
        let confirmed = states.iter().filter(|state| **state == 0).count();
        let possible = states.iter().filter(|state| **state <= 1).count();
        assert!((confirmed..=possible).contains(&stored.len()), "{confirmed} {}", stored.len());
        for (number, entry) in stored.iter().enumerate() {
            let data = entry.text("data").unwrap();
            assert!(data.contains(&format!(r#""id":"{number}""#)), "{number}: {data}");
        }
    }
}

#[tokio::test]
async fn publishing_may_go_on_in_a_task_of_its_own() {
    let app = App::start().await;
    let client = app.client.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { client.publish_all(&orders(3)).await.len() });
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 3);
    assert_eq!(app.server.length("orders"), 3);
}

#[tokio::test]
async fn many_callers_publish_through_one_connection() {
    let app = App::start().await;
    let calls = (0..200).map(|id| {
        let client = app.client.clone();
        async move { client.publish(&order(id)).await.unwrap() }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(app.server.length("orders"), 200);
    assert_eq!(app.connections(), 1);
}

/// What the server may have got in its buffers is unconfirmed; what waited behind it is not.
#[tokio::test]
async fn of_a_burst_on_a_silent_server_only_what_was_sent_is_unconfirmed() {
    let app = App::start().await;
    app.publish(1).await;
    app.server.freeze();
    let calls = (0..3_000).map(|id| {
        let client = app.client.clone();
        async move { client.publish(&order(id)).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    app.server.thaw();
    let errors = answers.iter().map(|answer| answer.as_ref().unwrap_err()).collect::<Vec<_>>();
    let id = |error: &&PublishError| error.event_id().unwrap().as_str().to_owned();
    let open = errors.iter().copied().filter(|error| error.is_unconfirmed());
    let open = open.map(|error| id(&error)).collect::<HashSet<_>>();
    assert!((1..=1_024).contains(&open.len()), "{} are unconfirmed", open.len());
    // The server works its buffers off before it answers a new client.
    Client::connect(&app.server.url()).await.unwrap().publish(&order(0)).await.unwrap();
    let stored = app.server.entries("orders").into_iter().map(|entry| entry.text("sj-id").unwrap());
    let stored = stored.collect::<HashSet<_>>();
    let certain = errors.iter().filter(|error| !error.is_unconfirmed()).map(id);
    assert_eq!(certain.filter(|id| stored.contains(id)).count(), 0, "certainly not stored");
}

#[tokio::test]
async fn a_burst_that_takes_longer_than_a_deadline_is_stored_or_certainly_not_stored() {
    let app = App::start().await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    proxy.set(Mode::Limit(250_000));
    let calls = (0..12_000).map(|id| {
        let client = client.clone();
        async move { client.publish(&order(id)).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    proxy.set(Mode::Pass);
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let unsent =
        |answer: &&Result<_, PublishError>| matches!(answer, Err(PublishError::Unsent { .. }));
    let unsent = answers.iter().filter(unsent).count();
    assert_eq!(stored + unsent, 12_000, "none is unconfirmed: the server answered all the time");
    assert_eq!((stored, stored > 1_024), (app.server.length("orders"), true));
    client.publish(&order("later")).await.unwrap();
}

/// The chunks of a batch have places themselves while the next one waits for its own.
#[tokio::test]
async fn batches_of_many_callers_share_the_places_of_a_connection() {
    let app = App::start().await;
    let calls = (0..40).map(|_| {
        let client = app.client.clone();
        async move { client.publish_all(&orders(1_200)).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().flatten().all(Result::is_ok));
    assert_eq!(app.server.length("orders"), 40 * 1_200);
}

/// Joined in one task, so that none of them gets to run while all are started.
#[tokio::test]
async fn of_a_burst_of_calls_on_a_healthy_server_none_is_unconfirmed() {
    let app = App::start().await;
    let calls = (0..100_000).map(|id| {
        let client = app.client.clone();
        async move { client.publish(&order(id)).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
    let others = errors.filter(|error| !matches!(error, PublishError::Unsent { .. }));
    let others = others.collect::<Vec<_>>();
    assert!(others.is_empty(), "{} such as {:?}", others.len(), others[0]);
    assert_eq!((stored, stored > 1_024), (app.server.length("orders"), true));
}

#[tokio::test]
async fn headers_of_the_application_are_fields_of_the_entry_and_refused_events_are_not_sent() {
    let app = App::start().await;
    let builder = Client::builder(&app.server.url()).on_publish(|event| match event.event_id() {
        id if id.as_str() == "refused" => Err("not this one".into()),
        _ => Ok(event.set_header("tenant", "t-7")?),
    });
    let client = builder.connect().await.unwrap();
    let id = |text: &str| EventId::new(text).unwrap();
    let (one, two) = (order(1), order(2));
    let events = [(id("e-1"), &one), (id("refused"), &two), (id("e-2"), &two)];
    let answers = client.publish_all_with_ids(events).await;
    assert!(matches!(answers[1], Err(PublishError::Refused { .. })), "{answers:?}");
    let entries = app.server.entries("orders");
    let ids = entries.iter().map(|entry| entry.text("sj-id").unwrap()).collect::<Vec<_>>();
    assert_eq!(ids, ["e-1", "e-2"]);
    for entry in &entries {
        assert_eq!(entry.text("sj-header-tenant").as_deref(), Some("t-7"));
    }
}
