//! Processes that are killed while they run unique events.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::server::RedisServer;

use crate::processes::{DEADLINE, QUICK, started, worker};

/// An hour is the longest time: what is free before has been freed by the end of a job.
#[test]
fn the_time_of_a_unique_event_ends_with_its_job_though_processes_are_killed_all_the_time() {
    #[derive(streamjobs::Event, serde::Serialize, serde::Deserialize)]
    #[event(stream = "orders", type = "order.placed", unique = "customer")]
    struct Order {
        id: String,
        customer: String,
    }
    let server = RedisServer::start().unwrap();
    let mut living = (0..2).map(|_| worker(&server, &QUICK)).collect::<Vec<_>>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(streamjobs::Client::connect(&server.url())).unwrap();
    let unique = streamjobs::unique::Unique::until_done("work", Duration::from_secs(3_600));
    let (mut dead, mut new, begun) = (Vec::new(), 0, Instant::now());
    for kill in 1..=6 {
        while new < kill * 300 && begun.elapsed() < DEADLINE * 3 {
            for customer in 0..20 {
                let (id, customer) = (new.to_string(), customer.to_string());
                let order = Order { id, customer };
                let answer = runtime.block_on(client.publish_unique(&unique, &order)).unwrap();
                new += usize::from(answer.is_new());
            }
        }
        let mut victim = living.remove(0);
        victim.kill();
        dead.push(victim);
        living.push(worker(&server, &QUICK));
    }
    assert_eq!((server.length("orders"), new >= 1_800), (new, true), "{new}");
    eventually(DEADLINE, "none stands", || {
        server.query::<Vec<String>>(&["KEYS", "{orders}:unique:*"]).is_empty()
    });
    eventually(DEADLINE, "none is pending", || server.pending("orders", "work").is_empty());
    let all = started(dead.iter().chain(&living));
    let ids = all.iter().filter_map(|line| line.split(' ').next());
    assert_eq!(ids.collect::<HashSet<_>>().len(), new, "each one has run");
}
