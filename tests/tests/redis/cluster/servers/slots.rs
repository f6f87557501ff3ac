//! Slots that move, step by step or at once.

use std::collections::HashMap;
use std::time::Duration;

use streamjobs_tests::server::{RedisCluster, RedisServer};

use super::{
    BESIDE, STREAM, Version, Wire, all, ask, ask_asking, assert_does, code, ends, group_field,
    make_stream, script, waiting_read,
};
use crate::app::{DEADLINE, until};

/// How long the third entry of a group has been idle, which no test lasts.
const IDLE: Duration = Duration::from_secs(10_000);

/// When a consumer was seen last, in milliseconds of the server's clock.
const SEEN: &str = "
local time = redis.call('TIME')
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'work')) do
  if row[2] == 'me' then return time[1] * 1000 + math.floor(time[2] / 1000) - row[6] end
end";

const NOW: &str = "
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)";

/// Redis 7.2 ends with a failed assertion at this moment, up to 7.2.6.
fn is_safe_to_move_under_a_read(node: &RedisServer) -> bool {
    let last = |text: String| text.split('.').next_back()?.parse::<u16>().ok();
    Version::of(node) != Version::Redis(7, 2) || node.info("redis_version").and_then(last) > Some(6)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_read_ends_when_its_key_is_moved() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    if !is_safe_to_move_under_a_read(from) {
        println!("this server does not survive it");
        return;
    }
    let mut read = waiting_read(from).await;
    cluster.begin_migration(slot, to);
    assert_eq!(from.info("blocked_clients").as_deref(), Some("1"), "it still waits");
    cluster.move_keys(slot, to);
    let answer = read.receive();
    let version = Version::of(from);
    assert_does(version, "the key is moved", &code(&answer), |version| {
        let is_first = version.is_redis_before((7, 2));
        if is_first { "UNBLOCKED" } else { "ASK" }.to_owned()
    });
    if version.is_redis_before((7, 2)) {
        let error = answer.unwrap_err();
        assert_eq!(error.detail(), Some("the stream key no longer exists"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_read_ends_when_its_slot_moves_at_once() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    let mut read = waiting_read(from).await;
    if cluster.migrate_atomically(slot..=slot, to).is_none() {
        println!("this server moves slots key by key only");
        return;
    }
    assert_does(Version::of(from), "moved", &code(&read.receive()), |_| "MOVED".to_owned());
}

/// It is refused on both nodes from the first step to the last: where the former owner sends it on, the
/// new one refuses it.
#[tokio::test]
async fn a_script_with_a_key_that_does_not_exist_is_refused_while_its_slot_moves() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    let version = Version::of(from);
    let (two, one) = (script(&[STREAM, BESIDE]), script(&[BESIDE]));
    let seen =
        || vec![ask(from, &two), ask_asking(to, &two), ask(from, &one), ask_asking(to, &one)];

    cluster.begin_migration(slot, to);
    let expected = all(["TRYAGAIN", "TRYAGAIN", "ASK", "OK"]);
    assert_does(version, "the stream is on the source", &seen(), expected);
    cluster.move_keys(slot, to);
    let expected = all(["ASK", "TRYAGAIN", "ASK", "OK"]);
    assert_does(version, "the stream is on the target", &seen(), expected);
    cluster.end_migration(slot, to);
    assert_does(version, "moved", &seen(), all(["MOVED", "OK", "MOVED", "OK"]));
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_made_on_the_target_while_its_slot_moves() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    let (version, add) = (Version::of(from), ["XADD", BESIDE, "*", "type", "order.placed"]);

    cluster.begin_migration(slot, to);
    let seen = vec![ask(from, &add), ask(to, &add), ask_asking(to, &add)];
    assert_does(version, "a key is made", &seen, all(["ASK", "MOVED", "OK"]));
    // The word is good for one command.
    let seen = Wire::to(to).codes(&[&["ASKING"], &["XLEN", BESIDE], &["XLEN", BESIDE]]);
    assert_does(version, "two reads", &seen, all(["OK", "OK", "MOVED"]));
    cluster.move_keys(slot, to);
    cluster.end_migration(slot, to);
    assert_eq!((to.length(STREAM), to.length(BESIDE)), (0, 1));
}

#[tokio::test]
async fn a_script_is_unknown_to_the_new_owner_of_a_slot() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    let digest: String = from.query(&["SCRIPT", "LOAD", "return 1"]);
    let run = ["EVALSHA", &digest, "1", STREAM];
    assert_eq!(ask(from, &run), "OK");
    cluster.migrate(slot, to);
    let version = Version::of(from);
    assert_does(version, "moved by steps", &ask(to, &run), |_| "NOSCRIPT".to_owned());
    to.command(&["SCRIPT", "LOAD", "return 1"]);
    from.command(&["SCRIPT", "FLUSH"]);
    if cluster.migrate_atomically(slot..=slot, from).is_some() {
        assert_does(version, "moved at once", &ask(from, &run), |_| "NOSCRIPT".to_owned());
    }
}

/// What `MULTI`, a command for each of the two keys, and `EXEC` are answered with.
fn transaction(node: &RedisServer, is_asking: bool) -> Vec<String> {
    let mut wire = Wire::to(node);
    if is_asking {
        wire.ask(&["ASKING"]).unwrap();
    }
    wire.codes(&[&["MULTI"], &["XLEN", STREAM], &["XLEN", BESIDE], &["EXEC"]])
}

#[tokio::test]
async fn a_transaction_of_two_keys_is_refused_while_they_are_on_two_nodes() {
    let cluster = RedisCluster::start().unwrap();
    make_stream(&cluster);
    cluster.command(BESIDE, &["XADD", BESIDE, "*", "type", "order.placed"]);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    let version = Version::of(from);
    cluster.begin_migration(slot, to);
    let seen = transaction(from, false);
    assert_does(version, "both on the source", &seen, all(["OK", "OK", "OK", "OK"]));

    let port = to.port().to_string();
    from.command(&["MIGRATE", "127.0.0.1", &port, BESIDE, "0", "5000"]);
    assert_does(version, "one on each", &transaction(from, false), |version| {
        let is_late = version.is_valkey_from((9, 0));
        let codes =
            if is_late { ["OK", "OK", "OK", "TRYAGAIN"] } else { ["OK", "OK", "ASK", "EXECABORT"] };
        codes.map(str::to_owned).to_vec()
    });
    let seen = transaction(to, true);
    assert_does(version, "one on each, target", &seen, all(["OK", "OK", "OK", "TRYAGAIN"]));

    cluster.move_keys(slot, to);
    assert_does(version, "both on the target", &transaction(from, false), |version| {
        let is_late = version.is_valkey_from((9, 0));
        let codes =
            if is_late { ["OK", "OK", "OK", "ASK"] } else { ["OK", "ASK", "ASK", "EXECABORT"] };
        codes.map(str::to_owned).to_vec()
    });
    // Before `MULTI`, the word is good for all commands up to `EXEC`.
    let seen = transaction(to, true);
    assert_does(version, "both on the target, asking", &seen, all(["OK", "OK", "OK", "OK"]));
    let seen = transaction(to, false);
    assert_does(version, "not asking", &seen, all(["OK", "MOVED", "MOVED", "EXECABORT"]));
}

/// What a group holds. The second of its entries has lost its payload, by `XDEL`.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Ids and delivery counts.
    pending: Vec<(String, u64)>,
    consumers: Vec<String>,
    entries_read: Option<u64>,
    /// Whether the idle time of the third entry is the one it was given.
    is_idle_time_kept: bool,
    /// Whether the consumer was seen before the slot moved.
    is_seen_time_kept: bool,
}

impl Held {
    fn by(node: &RedisServer, moved: u64) -> Self {
        let pending = node.pending(STREAM, "work");
        let third = pending.iter().find(|row| row.id == "1-3").unwrap();
        let consumers: Vec<HashMap<String, redis::Value>> =
            node.query(&["XINFO", "CONSUMERS", STREAM, "work"]);
        let name = |row: &HashMap<String, redis::Value>| {
            redis::from_redis_value(row["name"].clone()).unwrap()
        };
        Self {
            is_idle_time_kept: third.idle >= IDLE,
            pending: pending.into_iter().map(|row| (row.id, row.deliveries)).collect(),
            consumers: consumers.iter().map(name).collect(),
            entries_read: group_field(node, "entries-read"),
            is_seen_time_kept: node.query::<u64>(&["EVAL", SEEN, "1", STREAM]) < moved,
        }
    }
}

/// Makes a group whose first entry was delivered seven times and whose second has no payload any more.
fn make_group(cluster: &RedisCluster) {
    make_stream(cluster);
    for id in ["1-1", "1-2", "1-3"] {
        cluster.command(STREAM, &["XADD", STREAM, id, "type", "order.placed"]);
    }
    let node = cluster.master_of(RedisCluster::slot(STREAM));
    node.command(&["XREADGROUP", "GROUP", "work", "me", "STREAMS", STREAM, ">"]);
    let claim = ["XCLAIM", STREAM, "work", "me", "0", "1-1", "RETRYCOUNT", "7", "JUSTID"];
    node.command(&claim);
    node.age(STREAM, "work", "1-3", IDLE);
    node.command(&["XGROUP", "CREATECONSUMER", STREAM, "work", "other"]);
    node.command(&["XDEL", STREAM, "1-2"]);
}

/// The time, once the consumer's last command is so long ago that the two can be told apart.
async fn later(node: &RedisServer) -> u64 {
    let now = || node.query::<u64>(&["EVAL", NOW, "0"]);
    let seen = || node.query::<u64>(&["EVAL", SEEN, "1", STREAM]);
    until(DEADLINE, "the consumer is idle", || now() > seen() + 20).await;
    now()
}

fn all_kept() -> Held {
    Held {
        pending: vec![("1-1".into(), 7), ("1-2".into(), 1), ("1-3".into(), 1)],
        consumers: vec!["me".into(), "other".into()],
        entries_read: Some(3),
        is_idle_time_kept: true,
        is_seen_time_kept: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_by_steps_keeps_pending_entries_without_payload_and_all_counts() {
    let cluster = RedisCluster::start().unwrap();
    make_group(&cluster);
    let (from, to) = ends(&cluster);
    let moved = later(from).await;
    assert_eq!(Held::by(from, moved), all_kept());
    cluster.migrate(RedisCluster::slot(STREAM), to);
    assert_does(Version::of(to), "moved by steps", &Held::by(to, moved), |_| all_kept());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_at_once_loses_pending_entries_without_payload_on_valkey() {
    let cluster = RedisCluster::start().unwrap();
    make_group(&cluster);
    let ((from, to), slot) = (ends(&cluster), RedisCluster::slot(STREAM));
    let moved = later(from).await;
    if cluster.migrate_atomically(slot..=slot, to).is_none() {
        println!("this server moves slots key by key only");
        return;
    }
    assert_does(Version::of(to), "moved at once", &Held::by(to, moved), |version| {
        let mut held = all_kept();
        if version.is_valkey_from((9, 0)) {
            held.pending.remove(1);
            held.is_seen_time_kept = false;
        }
        held
    });
}
