//! Which commands each use of a server needs: the one list for access lists and for the doctor.

use crate::model::access::Access;
use crate::store::{Inlet, Queue};

/// A command as access lists name it, with an example in which `KEY` stands for the key.
pub(super) type Example = (&'static str, &'static str);

/// The keys of a queue, by the commands that a runtime needs on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Stream,
    Lane,
    Dead,
    Retry,
    Records,
    Hash,
}

impl Place {
    pub(super) const ALL: [Self; 6] =
        [Self::Stream, Self::Lane, Self::Dead, Self::Retry, Self::Records, Self::Hash];

    pub(super) fn key(self, queue: &Queue) -> String {
        match self {
            Self::Stream => queue.key(Inlet::STREAM),
            Self::Lane => queue.key(Inlet::LANE),
            Self::Dead => queue.dead_key(),
            Self::Retry => queue.retry_key(),
            Self::Records => queue.retry_records_key(),
            Self::Hash => queue.group_key(),
        }
    }

    pub(super) fn examples(self) -> Vec<Example> {
        let lists: &[&[Example]] = match self {
            Self::Stream => &[WORKED_ON, STREAM_ALONE],
            Self::Lane => &[WORKED_ON, LANE_ALONE],
            Self::Dead => &[LETTERS],
            Self::Retry => &[RETRY],
            Self::Records => &[RECORDS],
            Self::Hash => &[HASH],
        };
        lists.concat()
    }
}

/// The commands that a user of the server needs, as access lists name them; some of them appear
/// twice.
pub(crate) fn needed_commands(access: Access) -> Vec<&'static str> {
    let reading = [CONNECTING, SCRIPTING, READING].concat();
    match access {
        Access::Publish => [CONNECTING, &[XADD], AGREEING].concat(),
        Access::Schedule => [CONNECTING, &[XADD], AGREEING, SCHEDULING].concat(),
        Access::Work => {
            let keyed = Place::ALL.into_iter().flat_map(Place::examples);
            let names = keyed.chain(KEYLESS.iter().copied()).map(|(name, _)| name);
            names.chain(WORKING.iter().copied()).collect()
        }
        Access::Read => reading,
        Access::Operate => [reading.as_slice(), OPERATING].concat(),
    }
}

pub(super) const XADD: &str = "XADD";

/// The commands without a key that a runtime needs.
pub(super) const KEYLESS: &[Example] = &[
    ("PING", "PING"),
    ("INFO", "INFO server"),
    ("TIME", "TIME"),
    ("EVALSHA", "EVALSHA 0 0"),
    ("SCRIPT|LOAD", "SCRIPT LOAD x"),
    ("MULTI", "MULTI"),
    ("EXEC", "EXEC"),
    ("CLIENT|ID", "CLIENT ID"),
    ("CLIENT|UNBLOCK", "CLIENT UNBLOCK 1"),
    ("CLIENT|SETNAME", "CLIENT SETNAME x"),
];

/// Commands on the stream and on the lane.
const WORKED_ON: &[Example] = &[
    (XADD, "XADD KEY * field value"),
    ("XREADGROUP", "XREADGROUP GROUP g c STREAMS KEY >"),
    ("XACK", "XACK KEY g 1-1"),
    ("XRANGE", "XRANGE KEY - +"),
    ("XLEN", "XLEN KEY"),
    ("XPENDING", "XPENDING KEY g"),
    ("XCLAIM", "XCLAIM KEY g c 0 1-1"),
    ("XGROUP|CREATE", "XGROUP CREATE KEY g 0 MKSTREAM"),
    ("XGROUP|SETID", "XGROUP SETID KEY g 0"),
    ("XGROUP|DELCONSUMER", "XGROUP DELCONSUMER KEY g c"),
];
const STREAM_ALONE: &[Example] = &[
    ("XTRIM", "XTRIM KEY MAXLEN 1"),
    ("XINFO|STREAM", "XINFO STREAM KEY"),
    ("XINFO|GROUPS", "XINFO GROUPS KEY"),
    ("XINFO|CONSUMERS", "XINFO CONSUMERS KEY g"),
];
const LANE_ALONE: &[Example] = &[("XDEL", "XDEL KEY 1-1")];
const LETTERS: &[Example] = &[
    (XADD, "XADD KEY * field value"),
    ("XRANGE", "XRANGE KEY - +"),
    ("XLEN", "XLEN KEY"),
    ("XDEL", "XDEL KEY 1-1"),
    ("XTRIM", "XTRIM KEY MAXLEN 1"),
];
const RETRY: &[Example] = &[
    ("ZADD", "ZADD KEY 1 member"),
    ("ZREM", "ZREM KEY member"),
    ("ZCARD", "ZCARD KEY"),
    ("ZRANGE", "ZRANGE KEY 0 1"),
    ("ZRANGEBYSCORE", "ZRANGEBYSCORE KEY 0 1"),
];
const RECORDS: &[Example] = &[
    ("HSETNX", "HSETNX KEY field value"),
    ("HGET", "HGET KEY field"),
    ("HDEL", "HDEL KEY field"),
    ("HLEN", "HLEN KEY"),
];
const HASH: &[Example] = &[
    ("HSET", "HSET KEY field value"),
    ("HGET", "HGET KEY field"),
    ("HGETALL", "HGETALL KEY"),
    ("HEXISTS", "HEXISTS KEY field"),
    ("HINCRBY", "HINCRBY KEY field 1"),
    ("HDEL", "HDEL KEY field"),
    ("HLEN", "HLEN KEY"),
];

/// Commands that a runtime uses if it is allowed to: for readers that share connections, the size
/// of a stream, a lost retry set, marks of handlers, locks of unique events, schedules, and limits
/// over all processes.
pub(super) const WORKING: &[&str] = &[
    "CLIENT|TRACKING",
    "MEMORY|USAGE",
    "HSCAN",
    "PEXPIRE",
    "DEL",
    "GET",
    "PTTL",
    "SET",
    "HKEYS",
    "HMGET",
    "ZINCRBY",
    "ZRANGEBYLEX",
    "ZSCAN",
    "ZSCORE",
];

/// How a process that publishes to partitions says how many there are: in a script.
const AGREEING: &[&str] = &["EVALSHA", "SCRIPT|LOAD", "HGET", "HSET"];
/// The commands in scripts that a process needs in addition if it publishes events for a later time
/// or unique events.
const SCHEDULING: &[&str] = &[
    "DEL",
    "GET",
    "HDEL",
    "HEXISTS",
    "HLEN",
    "PTTL",
    "SET",
    "TIME",
    "XLEN",
    "ZADD",
    "ZCARD",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREM",
];
/// The first commands of every connection.
const CONNECTING: &[&str] = &["PING", "INFO", "CLIENT|SETNAME"];
const SCRIPTING: &[&str] = &["EVALSHA", "SCRIPT|LOAD", "TIME"];
/// Commands that read streams, groups and dead letters. `CLIENT|ID` and `XREAD` are for following a
/// stream.
pub(super) const READING: &[&str] = &[
    "CLIENT|ID",
    "GET",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HSCAN",
    "MEMORY|USAGE",
    "PTTL",
    "XINFO|CONSUMERS",
    "XINFO|GROUPS",
    "XINFO|STREAM",
    "XLEN",
    "XPENDING",
    "XRANGE",
    "XREAD",
    "XREVRANGE",
    "ZCARD",
    "ZRANGE",
    "ZRANK",
    "ZSCORE",
];
/// Commands that change streams, groups, pending entries and dead letters.
pub(super) const OPERATING: &[&str] = &[
    "DEL",
    "EXEC",
    "GET",
    "HDEL",
    "HEXISTS",
    "HINCRBY",
    "HSET",
    "HSETNX",
    "MULTI",
    "SET",
    "UNLINK",
    "XACK",
    XADD,
    "XCLAIM",
    "XDEL",
    "XGROUP|CREATE",
    "XGROUP|DELCONSUMER",
    "XGROUP|DESTROY",
    "XGROUP|SETID",
    "XTRIM",
    "ZADD",
    "ZREM",
];
