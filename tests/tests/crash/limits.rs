//! Processes that are killed while they run the jobs of keys in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use streamjobs_tests::eventually::eventually;
use streamjobs_tests::server::RedisServer;

use crate::processes::{Plan, QUICK, worker};

const KEYS: usize = 20;
const PROCESSES: usize = 6;

/// How many jobs there are: 3,000 unless `ORDERED_JOBS` says another number.
fn jobs() -> usize {
    std::env::var("ORDERED_JOBS").map_or(3_000, |jobs| jobs.parse().unwrap())
}

fn publish(server: &RedisServer, jobs: usize) {
    let client = redis::Client::open(server.plain_url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let numbers = (0..jobs).collect::<Vec<_>>();
    for page in numbers.chunks(1_000) {
        let mut pipe = redis::pipe();
        for number in page {
            let key = format!("c-{}", number % KEYS);
            pipe.cmd("XADD").arg("orders").arg("*").arg("type").arg("order.placed");
            pipe.arg("id").arg(number).arg("customer").arg(&key).arg("sj-key").arg(key).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
}

/// The runs of each key: the numbers of its jobs as they began (false) and ended well (true).
fn runs(server: &RedisServer) -> BTreeMap<String, Vec<(usize, bool)>> {
    let mut runs = BTreeMap::<_, Vec<_>>::new();
    for line in server.query::<Vec<String>>(&["LRANGE", "runs", "0", "-1"]) {
        let words = line.split(' ').collect::<Vec<_>>();
        let [what, key, number] = words[..] else { panic!("{line}") };
        let run = (number.parse().unwrap(), what == "end");
        runs.entry(key.to_owned()).or_default().push(run);
    }
    runs
}

/// Each job begins when the one before it has ended well, and none runs again after the next has begun.
fn in_order(key: &str, runs: &[(usize, bool)], first: usize, jobs: usize) {
    let (mut current, mut has_ended) = (first, false);
    for (number, ended) in runs {
        if !ended && *number != current {
            assert!(has_ended, "{key}: {number} began before {current} had ended");
            assert_eq!(*number, current + KEYS, "{key}: it is not the next");
            (current, has_ended) = (*number, false);
        }
        assert_eq!(*number, current, "{key}: it ended after the next had begun");
        has_ended |= ended;
    }
    assert!(has_ended && current + KEYS >= jobs, "{key}: {current} was the last");
}

#[test]
fn jobs_of_a_key_run_in_order_though_processes_are_killed_all_the_time() {
    let (server, jobs) = (RedisServer::start().unwrap(), jobs());
    publish(&server, jobs);
    let plan = Plan { mode: "ordered:15", lease: Some(2_000), slots: 16, ..QUICK };
    let mut living = (0..PROCESSES).map(|_| worker(&server, &plan)).collect::<Vec<_>>();
    let (begun, limit) = (Instant::now(), Duration::from_secs(60 + jobs as u64 / 200));
    let mut kills = 0;
    let left = || server.query::<usize>(&["EVAL", LEFT, "0"]);
    while left() > 0 && begun.elapsed() < limit {
        let (mut victim, next) = (living.remove(0), Instant::now() + Duration::from_secs(1));
        victim.kill();
        kills += 1;
        living.push(worker(&server, &plan));
        eventually(Duration::from_secs(2), "a second is over", || Instant::now() >= next);
    }
    eventually(Duration::from_secs(60), "nothing is left", || left() == 0);
    let runs = runs(&server);
    assert_eq!(runs.len(), KEYS);
    for (first, key) in (0..KEYS).map(|key| (key, format!("c-{key}"))) {
        in_order(&key, &runs[&key], first, jobs);
    }
    println!("{jobs} jobs in order, {kills} kills, {:?}", begun.elapsed());
}

/// What has not come to its end: pending, undelivered, waiting for retry, in the lane, or in the limit.
const LEFT: &str = "
local left, cursor = 0, '0-0'
for _, key in ipairs({'orders', '{orders}:lane:work'}) do
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do left, cursor = left + info[6], info[8] end
  left = left + #redis.call('XRANGE', key, '(' .. cursor, '+', 'COUNT', 10)
end
for _, key in ipairs({'retry', 'lines', 'turns'}) do left = left + redis.call('ZCARD', '{orders}:' .. key .. ':work') end
return left + redis.call('HLEN', '{orders}:holds:work') + redis.call('HLEN', '{orders}:busy:work')";
