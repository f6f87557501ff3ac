//! Rates of groups on a server: partitions, keys of another type, full memory, and groups without a rate.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::{Client, Rate, Runtime, handlers};
use streamjobs_tests::server::RedisServer;
use streamjobs_tests::starts::assert_rate;
use tokio::time::Instant;

use crate::app::{App, DEADLINE, Work, options, order, quick, until, work};

fn rate(text: &str, burst: u32) -> Rate {
    text.parse::<Rate>().unwrap().burst(NonZeroU32::new(burst).unwrap())
}

/// Work that notes when each job starts.
fn noted() -> (Work, Arc<Mutex<Vec<Instant>>>) {
    let times = Arc::<Mutex<Vec<Instant>>>::default();
    let noted = Arc::clone(&times);
    let work = Work::new(move |_, _| {
        noted.lock().unwrap().push(Instant::now());
        async { Ok(()) }
    });
    (work, times)
}

fn assert_times(times: &Mutex<Vec<Instant>>, rate: Rate) {
    let times = times.lock().unwrap();
    let first = times.iter().min().copied().unwrap();
    assert_rate(times.iter().map(|time| (*time - first).as_micros()).collect(), rate);
}

#[tokio::test]
async fn partitions_of_a_stream_share_the_rate_of_the_group_on_the_first() {
    let server = RedisServer::start().unwrap();
    let client = Client::builder(&server.url()).partitions("orders", 6).connect().await.unwrap();
    let (work, times) = noted();
    let rate = rate("40/1s", 24);
    let mut runtimes = Vec::new();
    for _ in 0..2 {
        let builder = Runtime::builder(&client).handlers(handlers![self::work]).state(work.clone());
        let builder = quick(builder.group("work", options().rate(rate)));
        runtimes.push(builder.start().await.unwrap());
    }
    for id in 0..160 {
        client.publish(&crate::app::Order { customer: id.to_string(), ..order(id) }).await.unwrap();
    }
    let begun = Instant::now();
    work.wait_for(160).await;
    assert_times(&times, rate);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    let keys = server.query::<Vec<String>>(&["KEYS", "*:rate:*"]);
    assert_eq!(keys, ["{orders}:rate:work"], "one for all partitions");
    assert!(server.query::<i64>(&["PTTL", "{orders}:rate:work"]) > 0, "it expires");
    let group = client.stream("orders").unwrap().group("work").unwrap();
    assert_eq!(group.info().await.unwrap().rate.and_then(|info| info.in_force()), Some(rate));
    assert!(group.set_rate(Some(rate.into())).await.unwrap());
    let one = client.stream("orders").unwrap().partitions().remove(3).group("work").unwrap();
    let error = one.set_rate(None).await.unwrap_err().to_string();
    assert!(error.contains("a rate belongs to the whole stream"), "{error}");
    for runtime in runtimes {
        let _ = runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_group_without_a_rate_asks_for_no_start_and_leaves_no_key() {
    let app = App::start().await;
    let (work, _) = noted();
    // Trends expire as well.
    let runtime = app.runtime(&work).trends(false).start().await.unwrap();
    app.publish(200).await;
    app.drained("work").await;
    let _ = runtime.shutdown().await;
    assert_eq!(app.number(&["EXISTS", "{orders}:rate:work"]), 0);
    assert_eq!(app.calls("pexpire"), 0, "no reservation");
}

#[tokio::test]
async fn while_the_key_of_the_rate_has_another_type_the_jobs_wait_and_then_they_start() {
    let app = App::start().await;
    app.server.command(&["SET", "{orders}:rate:work", "x"]);
    let (work, times) = noted();
    let rate = rate("50/1s", 20);
    let builder = app.bare(&work).group("work", options().rate(rate));
    let runtime = builder.start().await.unwrap();
    app.publish(30).await;
    let failed = || runtime.counters().server_errors;
    until(DEADLINE, "the refusal was met again and again", || failed() > 3).await;
    assert_eq!((work.count(), app.pending("work")), (0, 0));
    assert!(app.client.stream("orders").unwrap().group("work").unwrap().info().await.is_ok());
    app.server.command(&["DEL", "{orders}:rate:work"]);
    work.wait_for(30).await;
    assert_times(&times, rate);
    // What another client writes into it grants nothing more, and stops nothing.
    for odd in ["-inf", "1e300", "nan", "", "9007199254740993"] {
        let before = work.count();
        app.server.command(&["HSET", "{orders}:rate:work", "tat", odd, "rate", odd, "by", odd]);
        app.publish(5).await;
        work.wait_for(before + 5).await;
    }
    app.server.command(&["HSET", "{orders}:group:work", "rate", "0/0/0", "limited", "1 x"]);
    let before = work.count();
    app.publish(5).await;
    work.wait_for(before + 5).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn on_a_server_with_full_memory_jobs_go_on_at_their_rate() {
    let app = App::start().await;
    let (work, times) = noted();
    let rate = rate("50/1s", 20);
    let runtime = app.bare(&work).group("work", options().rate(rate)).start().await.unwrap();
    app.publish(100).await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(work.count() < 100, "most of them are granted from here on");
    work.wait_for(100).await;
    assert_times(&times, rate);
    let _ = runtime.shutdown().await;
}
