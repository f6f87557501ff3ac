//! `streamjobs doctor --acl`: users with exactly the printed rules run the commands they are for, and
//! the server refuses them nothing.

use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::{Ran, run_at};

/// The rule that is printed for a use.
fn rule(access: &str) -> String {
    let ran = run_at("redis://127.0.0.1:1", "doctor --acl --stream orders").ended(0);
    let begin = format!("ACL SETUSER streamjobs-{access} ");
    ran.out.lines().find(|line| line.starts_with(&begin)).unwrap().to_owned()
}

/// A server with entries, pending entries, jobs that wait for a retry and a dead letter, and how a
/// user with the printed rule connects to it.
fn prepared(access: &str) -> (RedisServer, String) {
    let server = orders::server();
    let retry = "local now = redis.call('TIME')[1] * 1000
        redis.call('HSET', KEYS[1], 's:1-7', cmsgpack.pack({'type', 'order.placed', 'data', '1',
            'sj-id', 'event', 'sj-attempt', '2', 'sj-origin', '1-0', 'sj-error', 'red'}))
        redis.call('ZADD', KEYS[2], string.format('%.0f', now + 3600000), 's:1-7')";
    let keys = ["{orders}:retry-records:billing", "{orders}:retry:billing"];
    server.command(&["EVAL", retry, "2", keys[0], keys[1]]);
    for id in ["1-0", "2-0"] {
        let words = ["XADD", "{orders}:dead:billing", id, "sj-dead-reason", "exhausted"];
        let job = ["type", "order.placed", "data", "{}", "sj-dead-event", id];
        server.command(&[&words[..], &job].concat());
    }
    orders::schedule(&server, &[("later", 1), ("other", 2)]);
    orders::put_schedules(&server, &[("nightly", "30 2 * * *")]);
    orders::heartbeat_with(&server, "web-1", crate::limit::CODE);
    let user = format!("streamjobs-{access}");
    server.command(&["ACL", "SETUSER", &user, "on", ">canary"]);
    let rule = rule(access);
    let rule = rule.split(' ').collect::<Vec<_>>();
    server.command(&[&rule, server.form_rights()].concat());
    let url = server.url_as(&user, "canary");
    (server, url)
}

/// The server's log of refusals.
fn refused(server: &RedisServer) -> Vec<String> {
    let log = server.command(&["ACL", "LOG"]);
    log.as_sequence().unwrap().iter().map(|row| format!("{row:?}")).collect()
}

/// Runs a command that may find something, and fails only if the server refuses.
fn runs(url: &str, line: &str) -> Ran {
    let ran = run_at(url, line);
    assert!([0, 3].contains(&ran.code), "{line}: {ran:?}");
    ran
}

const READING: [&str; 26] = [
    "doctor",
    "doctor --stream orders --group billing",
    "info orders",
    "groups orders",
    "consumers orders billing",
    "pending orders billing",
    "retries orders billing",
    "finished orders billing",
    "trend orders billing --days",
    "diagnose orders billing",
    "event show orders 1-0",
    "event show orders event",
    "replay orders",
    "find orders 47",
    "tail orders --after 0 --count 1",
    "dead list orders billing",
    "dead show orders billing 1-0",
    "scheduled list orders",
    "scheduled count orders",
    "schedule list orders",
    "schedule show orders nightly",
    "schedule history orders",
    "unique show orders a --type t",
    "rate show orders billing",
    "limit show orders billing",
    "cancelled orders",
];

const CHANGING: [&str; 32] = [
    "publish orders order.placed {}",
    "publish orders order.placed {} --delay 2h",
    "claim orders billing web-2 1-0 --yes",
    "release orders billing 1-0 --yes",
    "acknowledge orders billing 1-0 --yes",
    "hand-over orders billing web-1 web-2 --yes",
    "remove-consumer orders billing web-2 --yes",
    "reap orders billing",
    "pause orders billing",
    "resume orders billing",
    "rate set orders billing 100/1m",
    "rate reset orders billing",
    "limit set orders billing 8 --by a --why x",
    "limit reset orders billing",
    "dead redrive orders billing 1-0 --yes",
    "dead purge orders billing --all --yes",
    "scheduled reschedule orders later 2h",
    "scheduled run orders later",
    "scheduled cancel orders other --yes",
    "schedule run orders nightly",
    "schedule pause orders nightly",
    "schedule resume orders nightly",
    "schedule remove orders nightly --yes",
    "unique release orders a --type t --yes",
    "cancel orders e-1 --yes",
    "uncancel orders e-1",
    "group move orders billing 0 --yes --lose-unfinished",
    "trim orders --length 2 --yes --lose-unfinished",
    "trim orders --age 1h --yes --lose-unfinished",
    "group destroy orders billing --yes --lose-unfinished",
    "group create orders billing",
    "group create orders mail --start 0",
];

#[test]
fn a_user_with_the_printed_rule_reads_everything_and_changes_nothing() {
    let (server, url) = prepared("read");
    for line in READING {
        let _ = runs(&url, line);
    }
    assert_eq!(refused(&server), Vec::<String>::new());
    for line in ["pause orders billing", "group create orders mail"] {
        let ran = run_at(&url, line).ended(1);
        assert!(ran.err.contains("the user lacks a right"), "{line}: {ran:?}");
    }
    assert!(!refused(&server).is_empty(), "the log tells refusals");
}

#[test]
fn a_user_with_the_printed_rule_does_every_operation() {
    let (server, url) = prepared("operate");
    for line in READING.iter().chain(&CHANGING) {
        let ran = runs(&url, line);
        assert!(!ran.out.contains("lacks a right"), "{line}: {ran:?}");
    }
    assert_eq!(refused(&server), Vec::<String>::new());
}

#[test]
fn a_rule_for_each_use_is_printed_without_a_server() {
    let ran = run_at("redis://127.0.0.1:1", "doctor --acl --stream orders --stream mail").ended(0);
    assert_eq!(
        ran.out.lines().next().unwrap(),
        "ACL SETUSER streamjobs-publish clearselectors resetkeys resetchannels -@all \
         ~orders ~orders:p[0-9]* ~{orders}:partitions ~mail ~mail:p[0-9]* ~{mail}:partitions \
         +client|setname +evalsha +hget +hset +info +ping +script|load +xadd"
    );
    assert_eq!(ran.out.lines().count(), 5, "{ran:?}");
    let line = "doctor --acl --stream orders --json";
    let document = run_at("redis://127.0.0.1:1", line).ended(0).json();
    for access in ["publish", "schedule", "work", "read", "operate"] {
        assert_eq!(document[access].as_str(), Some(rule(access).as_str()));
    }
    let ran = run_at("redis://127.0.0.1:1", "doctor --acl").ended(2);
    assert!(ran.err.contains("--stream"), "{ran:?}");
    let line = "doctor --acl --stream orders --group billing";
    let ran = run_at("redis://127.0.0.1:1", line).ended(2);
    assert!(ran.err.contains("--group"), "{ran:?}");
}
