//! What a group did over hours and days, on a server.

use streamjobs::stream::{Trend, TrendRange, Unfinished};
use streamjobs::{Client, Runtime, handlers};

use crate::app::{App, DEADLINE, Gate, Work, options, order, until, work};

const MINUTES: &str = "{orders}:trend-minutes:work";
const QUARTERS: &str = "{orders}:trend-quarters:work";
const RANGES: [TrendRange; 2] = [TrendRange::SixHours, TrendRange::SevenDays];

async fn trend(client: &Client, range: TrendRange) -> Trend {
    client.stream("orders").unwrap().group("work").unwrap().trend(range).await.unwrap()
}

fn sum(trend: &Trend) -> (u64, u64) {
    trend.points.iter().fold((0, 0), |sum, point| (sum.0 + point.done, sum.1 + point.failed))
}

#[tokio::test]
async fn what_a_group_did_is_kept_in_two_rings_that_expire_and_go_with_the_group() {
    let (app, work) = (
        App::start().await,
        Work::new(
            |_, job| async move { if job.attempt() == 1 { Err("again".into()) } else { Ok(()) } },
        ),
    );
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(40).await;
    until(DEADLINE, "all are done", || runtime.counters().succeeded == 40).await;
    // The stop notes what is left.
    let _ = runtime.shutdown().await;
    for range in RANGES {
        let trend = trend(&app.client, range).await;
        assert_eq!(sum(&trend), (40, 40), "{range:?}");
        let (queue, run) = trend.points.iter().fold((0, 0), |(queue, run), point| {
            (queue + point.queue_time.count(), run + point.run_time.count())
        });
        assert_eq!((queue, run), (40, 80), "{range:?}");
        let age = trend.now.duration_since(trend.points.last().unwrap().began).unwrap();
        assert!(age <= range.step() * 2, "{age:?}");
    }
    let (hour, day) = (3_600_000, 24 * 3_600_000);
    let [minutes, quarters] = [MINUTES, QUARTERS].map(|key| app.number(&["PTTL", key]));
    assert!(minutes > 6 * hour - 60_000 && minutes <= 6 * hour + 60_000, "{minutes}");
    assert!(quarters > 7 * day - 60_000 && quarters <= 7 * day + 900_000, "{quarters}");
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    group.destroy(Unfinished::Lose).await.unwrap();
    assert_eq!(app.number(&["EXISTS", MINUTES, QUARTERS]), 0, "they go with the group");
    assert!(trend(&app.client, TrendRange::SixHours).await.points.is_empty());
}

#[tokio::test]
async fn two_processes_and_the_partitions_of_a_stream_are_one_trend() {
    let (app, work) = (App::start().await, Work::fine());
    let client =
        Client::builder(&app.server.url()).partitions("orders", 3).connect().await.unwrap();
    let start = || {
        Runtime::builder(&client)
            .handlers(handlers![self::work])
            .state(work.clone())
            .group("work", options())
    };
    let (one, other) = (start().start().await.unwrap(), start().start().await.unwrap());
    for number in 0..60 {
        let order = crate::app::Order { customer: number.to_string(), ..order(number) };
        client.publish(&order).await.unwrap();
    }
    until(DEADLINE, "all are done", || one.counters().succeeded + other.counters().succeeded == 60)
        .await;
    assert!(one.counters().succeeded > 0 && other.counters().succeeded > 0);
    let _ = (one.shutdown().await, other.shutdown().await);
    for range in RANGES {
        assert_eq!(sum(&trend(&client, range).await), (60, 0), "{range:?}");
    }
    let stream = client.stream("orders").unwrap();
    let mut parts = 0;
    for part in stream.partitions() {
        parts += sum(&part.group("work").unwrap().trend(TrendRange::SixHours).await.unwrap()).0;
    }
    assert_eq!(parts, 60, "each partition has its own");
}

#[tokio::test]
async fn a_full_server_and_a_key_of_another_type_take_no_note_and_fail_no_job() {
    let (app, work) = (App::start().await, Work::fine());
    // The second of two keys: the first must not be written either, or it would be counted again.
    app.server.command(&["RPUSH", QUARTERS, "x"]);
    let runtime = app.bare(&work).group("work", options()).start().await.unwrap();
    app.client.publish(&order(1)).await.unwrap();
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    assert_eq!(app.number(&["EXISTS", MINUTES]), 0);
    for range in RANGES {
        assert!(trend(&app.client, range).await.points.is_empty());
    }
    app.server.command(&["DEL", QUARTERS]);
    let gate = Gate::default();
    let gated = Work::gated(&gate);
    let runtime = app.bare(&gated).group("work", options()).start().await.unwrap();
    app.client.publish(&order(2)).await.unwrap();
    gated.wait_for(1).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    gate.open();
    app.drained("work").await;
    let counters = runtime.counters();
    let _ = runtime.shutdown().await;
    assert_eq!((counters.succeeded, counters.failed, counters.leases_lost), (1, 0, 0));
    assert_eq!(app.number(&["EXISTS", MINUTES, QUARTERS]), 0);
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
}

/// Steps of another day are in every place, some of them written by other software.
#[tokio::test]
async fn a_place_is_used_again_and_what_other_software_wrote_there_is_replaced() {
    let (app, work) = (App::start().await, Work::fine());
    let texts = ["7 9 9 9 9 6:9 6:9", "x", "99999999999999999999 1 1 1 1 - -", ""];
    for place in 0..360_usize {
        let text = texts[place % texts.len()];
        app.server.command(&["HSET", MINUTES, &place.to_string(), text]);
    }
    let runtime = app.bare(&work).group("work", options()).start().await.unwrap();
    app.publish(5).await;
    until(DEADLINE, "all are done", || runtime.counters().succeeded == 5).await;
    let _ = runtime.shutdown().await;
    let trend = trend(&app.client, TrendRange::SixHours).await;
    assert_eq!(sum(&trend), (5, 0));
    assert!(trend.points.len() <= 2, "{:?}", trend.points);
    assert_eq!(app.number(&["HLEN", MINUTES]), 360);
}

/// Prints what a group has on the server, with durations that are spread over a thousandfold.
#[tokio::test]
async fn the_rings_of_a_busy_group_are_as_small_as_documented() {
    let app = App::start().await;
    let spread = |from: u32| (from..from + 20).map(|at| format!("{at}:1234")).collect::<Vec<_>>();
    let (queue, run) = (spread(4).join(","), spread(10).join(","));
    for (key, places) in [(MINUTES, 360), (QUARTERS, 672)] {
        for place in 0..places {
            let text = format!("29387145 123456 1234 123456 1234567 {queue} {run}");
            app.server.command(&["HSET", key, &place.to_string(), &text]);
        }
    }
    let used = |key| app.number(&["MEMORY", "USAGE", key, "SAMPLES", "0"]);
    let bytes = used(MINUTES) + used(QUARTERS);
    println!("{bytes} bytes: {} and {}", used(MINUTES), used(QUARTERS));
    assert!(bytes < 500 * 1024, "{bytes}");
}
