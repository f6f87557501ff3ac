//! Processes of a group with a rate, of which some are killed.

use std::time::Instant;

use streamjobs::Rate;
use streamjobs_tests::eventually::eventually;
use streamjobs_tests::server::RedisServer;
use streamjobs_tests::starts::assert_rate;

use crate::processes::{DEADLINE, Plan, QUICK, lines, publish, worker};

/// The times are the server's, as each job asks for it first.
#[test]
fn six_processes_keep_the_rate_in_any_window_though_one_is_killed_with_starts_it_has_not_used() {
    let server = RedisServer::start().unwrap();
    let plan = Plan { mode: "clock", rate: Some("50/1s 30"), ..QUICK };
    let mut living = (0..6).map(|_| worker(&server, &plan)).collect::<Vec<_>>();
    let mut dead = Vec::new();
    publish(&server, (0..600).map(|id| id.to_string()));
    let begun = Instant::now();
    for kill in [100, 250] {
        let all = || dead.iter().chain(&living);
        eventually(DEADLINE, "some have started", || lines(all(), "clock ").len() >= kill);
        let mut victim = living.remove(0);
        victim.kill();
        dead.push(victim);
    }
    let all = || dead.iter().chain(&living);
    eventually(DEADLINE, "all have started", || lines(all(), "clock ").len() >= 600);
    let took = begun.elapsed();
    eventually(DEADLINE, "nothing is pending", || server.pending("orders", "work").is_empty());
    let times =
        lines(all(), "clock ").into_iter().map(|time| time.parse::<u128>().unwrap() * 1_000);
    let rate = "50/1s".parse::<Rate>().unwrap().burst(30.try_into().unwrap());
    assert_rate(times.collect(), rate);
    // At least (600 - 30) / 50, and less than twice as long: the full rate after each kill.
    println!("600 starts took {took:?}");
    assert!((11..23).contains(&took.as_secs()), "{took:?}");
}
