//! Benchmark: moving dead letters from Redis into the table.

use std::time::{Duration, Instant};

use streamjobs::{GroupName, StreamName};

use crate::place::Place;

/// Dead-letters this many jobs, as a runtime does, and archives them.
pub async fn move_letters(place: &Place, letters: usize) -> Duration {
    place.redis.command(&["FLUSHALL"]);
    place.truncate("TRUNCATE streamjobs.dead_letters").await;
    dead_letter(place, letters);
    let (stream, group) = (StreamName::new("orders"), GroupName::new("billing"));
    let archive = place.postgres.archive().queue(stream.unwrap(), group.unwrap());
    let started = Instant::now();
    let report = archive.sweep(&place.client).await.unwrap();
    let took = started.elapsed();
    assert_eq!(report.stored, letters as u64);
    took
}

fn dead_letter(place: &Place, letters: usize) {
    let client = redis::Client::open(place.redis.plain_url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let numbers = (0..letters).collect::<Vec<_>>();
    for chunk in numbers.chunks(1_000) {
        let mut pipe = redis::pipe();
        for number in chunk {
            let add = pipe.cmd("XADD").arg("{orders}:dead:billing").arg("*");
            let error = format!("the bank refused card {number}: insufficient funds");
            let data = format!("{{\"order_id\":\"o-{number:08}\",\"cents\":4950}}");
            for (name, value) in [
                ("sj-dead-reason", "exhausted"),
                ("sj-dead-error", &error),
                ("sj-dead-attempts", "5"),
                ("sj-dead-deliveries", "1"),
                ("sj-dead-entry", "1795000000000-0"),
                ("sj-dead-source", "lane"),
                ("sj-dead-origin", "1795000000000-0"),
                ("sj-dead-first", "1795000000001"),
                ("sj-dead-last", "1795000060001"),
                ("sj-dead-consumer", "streamjobs-1-0123456789abcdef"),
                ("sj-dead-event", &format!("{number:036}")),
                ("type", "order.placed"),
                ("data", &data),
                ("sj-id", &format!("{number:036}")),
            ] {
                add.arg(name).arg(value);
            }
            add.ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
}
