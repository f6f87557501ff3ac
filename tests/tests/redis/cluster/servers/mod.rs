//! What each server does at the moments that matter to a client of a cluster, without streamjobs.
//!
//! A test that fails on a new version has found a server that does otherwise: add the version to the list,
//! and what it does to the test.

mod nodes;
mod slots;

use std::collections::HashMap;
use std::fmt;

use redis::{Connection, FromRedisValue, RedisResult, Value};
use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::app::{DEADLINE, until};

/// A stream, and a second key of the same slot.
const STREAM: &str = "orders";
const BESIDE: &str = "{orders}:beside";

/// The versions whose behaviour is known, oldest first.
const REDIS: [(u16, u16); 5] = [(7, 0), (7, 2), (7, 4), (8, 2), (8, 10)];
const VALKEY: [(u16, u16); 2] = [(8, 1), (9, 1)];

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Redis(u16, u16),
    Valkey(u16, u16),
}

impl Version {
    fn of(node: &RedisServer) -> Self {
        let numbers = |field: &str| {
            let text = node.info(field)?;
            let mut numbers = text.split('.').map(|part| part.parse().unwrap());
            Some((numbers.next()?, numbers.next()?))
        };
        match (numbers("valkey_version"), numbers("redis_version")) {
            (Some((major, minor)), _) => Self::Valkey(major, minor),
            (None, Some((major, minor))) => Self::Redis(major, minor),
            (None, None) => panic!("neither Redis nor Valkey"),
        }
    }

    fn is_redis_before(self, number: (u16, u16)) -> bool {
        matches!(self, Self::Redis(major, minor) if (major, minor) < number)
    }

    fn is_valkey_from(self, number: (u16, u16)) -> bool {
        matches!(self, Self::Valkey(major, minor) if (major, minor) >= number)
    }

    /// This version if it is known, else those that are known before and after it.
    fn known(self) -> Vec<Self> {
        match self {
            Self::Redis(major, minor) => neighbours(&REDIS, (major, minor), Self::Redis),
            Self::Valkey(major, minor) => neighbours(&VALKEY, (major, minor), Self::Valkey),
        }
    }
}

fn neighbours(
    known: &[(u16, u16)],
    number: (u16, u16),
    version: fn(u16, u16) -> Version,
) -> Vec<Version> {
    let before = known.iter().rfind(|other| **other <= number);
    let after = known.iter().find(|other| **other >= number);
    let mut found = before.into_iter().chain(after).collect::<Vec<_>>();
    found.dedup();
    found.into_iter().map(|(major, minor)| version(*major, *minor)).collect()
}

/// Asserts what a server of this version does. One between two known versions may do as either.
#[track_caller]
fn assert_does<T: PartialEq + fmt::Debug>(
    version: Version,
    moment: &str,
    seen: &T,
    expected: impl Fn(Version) -> T,
) {
    let known = version.known();
    let expected = known.iter().map(|version| expected(*version)).collect::<Vec<_>>();
    assert!(
        expected.contains(seen),
        "{moment}: {version:?} answers {seen:?}, and {known:?} are known to answer {expected:?}"
    );
}

/// Answers of a version that does as all others do.
fn all<const N: usize>(codes: [&str; N]) -> impl Fn(Version) -> Vec<String> {
    move |_| codes.map(str::to_owned).to_vec()
}

/// A connection to one node, on which redirections are answers.
struct Wire(Connection);

impl Wire {
    fn to(node: &RedisServer) -> Self {
        let connection = redis::Client::open(node.plain_url()).unwrap().get_connection().unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(connection)
    }

    fn send(&mut self, words: &[&str]) {
        let mut command = redis::Cmd::new();
        command.arg(words);
        self.0.send_packed_command(&command.get_packed_command()).unwrap();
    }

    fn receive(&mut self) -> RedisResult<Value> {
        self.0.recv_response().and_then(Value::extract_error)
    }

    fn ask(&mut self, words: &[&str]) -> RedisResult<Value> {
        self.send(words);
        self.receive()
    }

    /// The answers to some commands, each as [`code`] has it.
    fn codes(&mut self, commands: &[&[&str]]) -> Vec<String> {
        commands.iter().map(|words| code(&self.ask(words))).collect()
    }
}

/// The first word of an error, else `OK`.
fn code(answer: &RedisResult<Value>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(error) => error.code().unwrap_or_else(|| panic!("no answer: {error}")).to_owned(),
    }
}

/// What a node answers to one command.
fn ask(node: &RedisServer, words: &[&str]) -> String {
    code(&Wire::to(node).ask(words))
}

/// What a node answers to one command that is sent with `ASKING`.
fn ask_asking(node: &RedisServer, words: &[&str]) -> String {
    let mut wire = Wire::to(node);
    wire.ask(&["ASKING"]).unwrap();
    code(&wire.ask(words))
}

/// The command that runs a script which names these keys and does nothing.
fn script<'k>(keys: &[&'k str]) -> Vec<&'k str> {
    let count = ["0", "1", "2"][keys.len()];
    [&["EVAL", "return 1", count], keys].concat()
}

/// Makes the stream with a group.
fn make_stream(cluster: &RedisCluster) {
    cluster.command(STREAM, &["XGROUP", "CREATE", STREAM, "work", "0", "MKSTREAM"]);
}

/// A read of the group that waits for entries on this node.
async fn waiting_read(node: &RedisServer) -> Wire {
    let mut wire = Wire::to(node);
    wire.send(&["XREADGROUP", "GROUP", "work", "me", "BLOCK", "0", "STREAMS", STREAM, ">"]);
    let waits = || node.info("blocked_clients").as_deref() == Some("1");
    until(DEADLINE, "the read waits", waits).await;
    wire
}

/// The master of the stream, and another one.
fn ends(cluster: &RedisCluster) -> (&RedisServer, &RedisServer) {
    let from = cluster.master_of(RedisCluster::slot(STREAM));
    (from, super::other_master(cluster, STREAM))
}

/// A field of what `XINFO GROUPS` says of the one group.
fn group_field<T: FromRedisValue>(node: &RedisServer, name: &str) -> T {
    let groups: Vec<HashMap<String, Value>> = node.query(&["XINFO", "GROUPS", STREAM]);
    redis::from_redis_value(groups[0][name].clone()).unwrap()
}

#[test]
fn a_version_between_two_known_ones_may_do_as_either() {
    use Version::{Redis, Valkey};

    assert_eq!(Redis(8, 2).known(), [Redis(8, 2)]);
    assert_eq!(Redis(8, 4).known(), [Redis(8, 2), Redis(8, 10)]);
    assert_eq!(Redis(9, 0).known(), [Redis(8, 10)]);
    assert_eq!(Valkey(7, 2).known(), [Valkey(8, 1)]);
    assert_does(Valkey(9, 0), "", &false, |version| version.is_valkey_from((9, 0)));
    assert_does(Valkey(9, 0), "", &true, |version| version.is_valkey_from((9, 0)));
}

#[test]
#[should_panic(expected = "a read: Redis(8, 4) answers 1, and [Redis(8, 2), Redis(8, 10)]")]
fn a_version_that_does_otherwise_than_those_around_it_is_named() {
    assert_does(Version::Redis(8, 4), "a read", &1, |_| 2);
}
