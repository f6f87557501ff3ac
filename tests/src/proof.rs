//! What the processes of a proof share: the event, and what a handler does with it.

use std::collections::HashMap;
use std::time::Duration;

use redis::RedisResult;
use serde::{Deserialize, Serialize};
use streamjobs::{Event, GroupName, Job, JobError, StreamName};
use tokio::time::{Instant, sleep_until};

use crate::history::{Attempt, Deed, Fate, How, Writer};
use crate::postgres::{Database, PgServer};
use crate::server::{EntryRow, RedisServer};

/// An event that tells its handler what to do.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
pub struct Order {
    /// How often its handler fails before it does the job.
    pub failures: u32,
    /// Whether its handler rejects it.
    pub rejected: bool,
    /// How long its handler takes, in milliseconds.
    pub takes: u64,
    /// Derived from the event id, so that a changed or swapped payload is noticed.
    pub seal: String,
    /// Makes the payload large.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filler: String,
    /// The first version of the program that knows its type; used by the producer.
    #[serde(skip)]
    pub version: u64,
}

/// An order of a type that processes know from their second version on.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.amended")]
pub struct Amended(pub Order);

/// An order of a type that processes know from their third version on.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.shipped")]
pub struct Shipped(pub Order);

impl Order {
    /// An order that is done at once.
    pub fn new(job: &str) -> Self {
        Self {
            failures: 0,
            rejected: false,
            takes: 0,
            seal: seal(job),
            filler: String::new(),
            version: 1,
        }
    }

    /// What is meant to become of it.
    pub fn fate(&self) -> Fate {
        if self.rejected { Fate::Rejected } else { Fate::Done }
    }

    /// Does what the order says.
    ///
    /// # Errors
    ///
    /// If the order says so.
    pub async fn work(&self, job: &Job) -> Result<(), JobError> {
        if self.takes > 0 {
            sleep_until(Instant::now() + Duration::from_millis(self.takes)).await;
        }
        if self.rejected {
            return Err(JobError::dead("as ordered"));
        }
        if job.attempt() <= self.failures {
            return Err(JobError::retry("as ordered"));
        }
        Ok(())
    }
}

fn seal(job: &str) -> String {
    format!("sealed for {job} {}", "~".repeat(40))
}

/// Creates a database with the crate's schema and a table of effects that would show duplicates.
///
/// # Panics
///
/// If the server does not answer.
pub async fn database(server: &PgServer) -> Database {
    let database = server.database().await;
    let owner = database.owner_pool();
    streamjobs_postgres::migrate(&owner).await.expect("it is empty");
    let table = "CREATE TABLE effects (job text, consumer text, count bigint)";
    sqlx::query(table).execute(&owner).await.expect("it is empty");
    database.grant("streamjobs").await;
    database.grant("public").await;
    database
}

/// The attempts whose effects are in this database, by job, for jobs whose ids begin with `prefix`.
///
/// # Panics
///
/// If the server does not answer.
pub async fn effects(database: &Database, prefix: &str) -> HashMap<String, Vec<(String, u64)>> {
    let query = "SELECT job, consumer, count FROM effects WHERE starts_with(job, $1)";
    let rows = sqlx::query_as(query).bind(prefix.to_owned());
    let rows: Vec<(String, String, i64)> =
        rows.fetch_all(&database.pool_of(1)).await.expect("the table is there");
    let mut effects: HashMap<String, Vec<(String, u64)>> = HashMap::new();
    for (job, consumer, count) in rows {
        effects.entry(job).or_default().push((consumer, count.unsigned_abs()));
    }
    effects
}

/// The jobs of a group that are dead letters, with their reasons.
///
/// # Panics
///
/// If the server does not answer.
pub fn letters(server: &RedisServer, stream: &str, group: &str) -> Vec<(String, String)> {
    let (stream, group) = names(stream, group);
    let letters = server.entries(&stream.dead_key(&group)).into_iter();
    let text = |row: &EntryRow, name| row.text(name).unwrap_or_default();
    letters.map(|row| (text(&row, "sj-id"), text(&row, "sj-dead-reason"))).collect()
}

/// How many jobs of a group are pending, waiting for retry, in lines, or not delivered, at one moment: two separate
/// requests would miss a job that moves from one of these places to another in between.
///
/// # Errors
///
/// If the server does not answer, or has no such group.
pub fn unfinished(server: &RedisServer, stream: &str, group: &str) -> RedisResult<usize> {
    let (name, of) = names(stream, group);
    let (retries, lane, lines) = (name.retry_key(&of), name.lane_key(&of), name.lines_key(&of));
    server.try_query(&["EVAL", UNFINISHED, "4", stream, &retries, &lane, &lines, group])
}

fn names(stream: &str, group: &str) -> (StreamName, GroupName) {
    (StreamName::new(stream).expect("it is valid"), GroupName::new(group).expect("it is valid"))
}

/// Entries after the last delivery are counted one by one: the server's own lag is wrong after some restarts.
const UNFINISHED: &str = "\
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  if group['name'] == ARGV[1] then
    local behind = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+')
    local waiting = redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[4])
    return group['pending'] + #behind + waiting + redis.call('XLEN', KEYS[3])
  end
end
return redis.error_reply('NOGROUP')";

/// A running handler, which writes down how it ends, however that is.
#[derive(Debug)]
pub struct Running<'a> {
    history: &'a Writer,
    attempt: Attempt,
    how: How,
}

impl<'a> Running<'a> {
    /// Writes down that it starts.
    pub fn begin(history: &'a Writer, order: &Order, job: &Job) -> Self {
        let attempt = Attempt {
            job: job.event_id().to_string(),
            stream: job.stream().to_string(),
            entry: job.entry_id().to_string(),
            consumer: job.consumer().to_string(),
            count: job.delivery_count(),
            number: job.attempt(),
            intact: order.seal == seal(job.event_id().as_str()),
        };
        history.write(Deed::Started(attempt.clone()));
        Self { history, attempt, how: How::Dropped }
    }

    /// Writes down that it will return `Ok`.
    pub fn done(mut self) {
        self.how = How::Ok;
    }

    /// Writes down that it will return this error.
    pub fn failed(mut self, error: &JobError) {
        self.how = if error.is_retry() { How::Failed } else { How::Rejected };
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.history.write(Deed::Ended { attempt: self.attempt.clone(), how: self.how });
    }
}
