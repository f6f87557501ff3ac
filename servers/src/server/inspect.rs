//! Asks a private server what it holds, with plain Redis commands, without any of the code under test.

use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Value};

use super::RedisServer;

/// How long an answer may take. A frozen server would otherwise hang the test that froze it.
const ANSWER: Duration = Duration::from_secs(10);

/// Finds the owner of a pending entry and sets the entry's idle time, in one step that no claim can
/// interrupt.
const AGE: &str = r"
local row = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
if not row then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], row[2], 0, ARGV[2], 'IDLE', ARGV[3], 'JUSTID')
return 1
";

/// One entry of a group's pending list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRow {
    /// The entry's id.
    pub id: String,
    /// The consumer to which it was delivered.
    pub consumer: String,
    /// Time since it was delivered or last renewed.
    pub idle: Duration,
    /// How often it has been delivered.
    pub deliveries: u64,
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// The entry's id.
    pub id: String,
    /// Its fields in their order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl EntryRow {
    /// The value of the field `name` as text; bytes that are not text are replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// One connection that the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRow {
    /// The connection's id, as `CLIENT KILL ID` takes it.
    pub id: u64,
    /// The name that it has set; empty if it has not.
    pub name: String,
    /// The command that it ran last, in lower case.
    pub command: String,
    /// Its flags: `b` while it waits in a blocking command, `t` if the server remembers what it reads,
    /// `N` for none.
    pub flags: String,
    /// The connection that is told when something changes that was read on this one.
    pub told: Option<u64>,
}

/// The questions of tests. Each uses a connection of its own, so that no connection is stale after a
/// restart.
///
/// All of them panic if the server does not answer or refuses, because no test can continue then.
impl RedisServer {
    /// Runs one command and returns the raw reply.
    #[track_caller]
    pub fn command<A: AsRef<[u8]>>(&self, words: &[A]) -> Value {
        self.query(words)
    }

    /// Runs one command and returns the reply as a `T`.
    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, words: &[impl AsRef<[u8]>]) -> T {
        self.try_query(words).unwrap_or_else(|error| {
            let name = words.first().map(|word| String::from_utf8_lossy(word.as_ref()));
            panic!("{} failed on {self:?}: {error}", name.unwrap_or_default())
        })
    }

    /// Runs one command that may be refused.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, does not answer in time, refuses, or answers with something that
    /// is not a `T`.
    pub fn try_query<T: FromRedisValue>(&self, words: &[impl AsRef<[u8]>]) -> RedisResult<T> {
        command_of(words).query(&mut self.connection()?)
    }

    /// Runs one command for a key in a slot that is moving to this node.
    pub(super) fn query_asking<T: FromRedisValue>(
        &self,
        words: &[impl AsRef<[u8]>],
    ) -> RedisResult<T> {
        let mut connection = self.connection()?;
        redis::cmd("ASKING").query::<()>(&mut connection)?;
        command_of(words).query(&mut connection)
    }

    fn connection(&self) -> RedisResult<redis::Connection> {
        let connection =
            redis::Client::open(self.plain_url())?.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        Ok(connection)
    }

    /// The value of one field of `INFO all`, such as `used_memory` or `cmdstat_xadd`.
    #[track_caller]
    pub fn info(&self, field: &str) -> Option<String> {
        let info: String = self.query(&["INFO", "all"]);
        value_of(&info, field)
    }

    /// The number of entries in `stream`; 0 if the stream does not exist.
    #[track_caller]
    pub fn length(&self, stream: &str) -> usize {
        self.query(&["XLEN", stream])
    }

    /// All entries of `stream` with their fields, oldest first.
    #[track_caller]
    pub fn entries(&self, stream: &str) -> Vec<EntryRow> {
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.query(&["XRANGE", stream, "-", "+"]);
        let row = |(id, fields): (String, Vec<Vec<u8>>)| {
            let pairs = fields.chunks_exact(2);
            EntryRow { id, fields: pairs.map(|pair| (pair[0].clone(), pair[1].clone())).collect() }
        };
        entries.into_iter().map(row).collect()
    }

    /// The pending list of `group` on `stream`, in the order of entry ids.
    #[track_caller]
    pub fn pending(&self, stream: &str, group: &str) -> Vec<PendingRow> {
        let words = ["XPENDING", stream, group, "-", "+", "1000000"];
        let rows: Vec<(String, String, u64, u64)> = self.query(&words);
        let row = |(id, consumer, idle, deliveries)| PendingRow {
            id,
            consumer,
            idle: Duration::from_millis(idle),
            deliveries,
        };
        rows.into_iter().map(row).collect()
    }

    /// Sets the idle time of the pending entry `id` to `idle`; owner and delivery count stay.
    ///
    /// This replaces waiting: to a test, a lease is over when the idle time is long enough.
    ///
    /// # Panics
    ///
    /// If the entry is not pending.
    #[track_caller]
    pub fn age(&self, stream: &str, group: &str, id: &str, idle: Duration) {
        let idle = idle.as_millis().to_string();
        let aged: bool = self.query(&["EVAL", AGE, "1", stream, group, id, &idle]);
        assert!(aged, "entry {id} of stream {stream} is not pending in group {group}");
    }

    /// The server's connections, except the one that asks and those of Sentinels.
    #[track_caller]
    pub fn client_list(&self) -> Vec<ClientRow> {
        let list: String = self.query(&["CLIENT", "LIST", "TYPE", "normal"]);
        let counts =
            |row: &ClientRow| row.command != "client|list" && !row.name.starts_with("sentinel-");
        list.lines().map(client_row).filter(counts).collect()
    }
}

/// The value of `field` in the text of an `INFO`.
pub(super) fn value_of(info: &str, field: &str) -> Option<String> {
    let value = |line: &str| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned);
    info.lines().find_map(value)
}

fn command_of(words: &[impl AsRef<[u8]>]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    command
}

fn client_row(line: &str) -> ClientRow {
    let value = |name: &str| {
        let named = |word: &str| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        line.split(' ').find_map(named).unwrap_or_default()
    };
    let id = value("id").parse().expect("a connection has a number");
    // -1 for none.
    let told = value("redir").parse().ok();
    ClientRow { id, name: value("name"), command: value("cmd"), flags: value("flags"), told }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_not_mistaken_for_one_it_begins() {
        let info = "# Server\r\nuptime_in_days:1\r\nuptime:7\r\n";
        assert_eq!(value_of(info, "uptime").as_deref(), Some("7"));
        assert_eq!(value_of(info, "up"), None);
    }

    #[test]
    fn a_connection_without_a_name_has_an_empty_one() {
        let row = client_row("id=3 addr=127.0.0.1:5 name= age=0 flags=b cmd=xreadgroup user=x");
        let expected = ("", "xreadgroup", "b");
        assert_eq!((row.name.as_str(), row.command.as_str(), row.flags.as_str()), expected);
    }
}
