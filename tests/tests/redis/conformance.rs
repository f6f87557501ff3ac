//! The store's contract on a real server.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use streamjobs::__store::holds::{HoldRule, HoldScope};
use streamjobs::__store::raw_access::{PendingRow, RawAccess};
use streamjobs::__store::{Inlet, Queue};
use streamjobs::{Client, EntryId, Fields, StreamName};
use streamjobs_tests::conformance::Stage;
use streamjobs_tests::server::RedisServer;

/// A private server, by hand.
struct Server(RedisServer);

impl RawAccess for Server {
    fn append(&self, key: &str, fields: Fields) -> EntryId {
        let mut words = vec![b"XADD".to_vec(), key.as_bytes().to_vec(), b"*".to_vec()];
        words.extend(fields.iter().flat_map(|(name, value)| [name.to_vec(), value.to_vec()]));
        self.0.query::<String>(&words).parse().unwrap()
    }

    fn has(&self, key: &str, id: EntryId) -> bool {
        let id = id.to_string();
        !self.0.query::<Vec<redis::Value>>(&["XRANGE", key, &id, &id]).is_empty()
    }

    fn delete(&self, key: &str, id: EntryId) {
        self.0.command(&["XDEL", key, &id.to_string()]);
    }

    fn lose_key(&self, key: &str) {
        self.0.command(&["DEL", key]);
    }

    fn destroy_group(&self, key: &str, group: &str) {
        self.0.command(&["XGROUP", "DESTROY", key, group]);
    }

    fn set_cursor(&self, key: &str, group: &str, to: EntryId) {
        self.0.command(&["XGROUP", "SETID", key, group, &to.to_string()]);
    }

    fn delete_consumer(&self, key: &str, group: &str, consumer: &str) {
        self.0.command(&["XGROUP", "DELCONSUMER", key, group, consumer]);
    }

    fn flush(&self) {
        self.0.command(&["FLUSHALL"]);
    }

    fn age(&self, key: &str, group: &str, id: EntryId, idle: Duration) {
        self.0.age(key, group, &id.to_string(), idle);
    }

    fn schedule_retry(&self, queue: &Queue, name: &str, due: u64) {
        let key = format!("{{{}}}:retry:{}", queue.stream, queue.group);
        self.0.command(&["ZADD", &key, &due.to_string(), name]);
    }

    fn lose_retry_set(&self, queue: &Queue) {
        self.0.command(&["DEL", &format!("{{{}}}:retry:{}", queue.stream, queue.group)]);
    }

    fn lose_schedule(&self, stream: &StreamName) {
        self.0.command(&["DEL", &format!("{{{stream}}}:later")]);
    }

    fn lose_scheduled_record(&self, stream: &StreamName, id: &str) {
        self.0.command(&["HDEL", &format!("{{{stream}}}:later-records"), id]);
    }

    fn lose_scheduled_records(&self, stream: &StreamName) {
        self.0.command(&["DEL", &format!("{{{stream}}}:later-records")]);
    }

    fn place_schedule(&self, stream: &StreamName, name: &str, at: u64) {
        self.0.command(&["ZADD", &format!("{{{stream}}}:schedules"), &at.to_string(), name]);
    }

    fn lose_schedule_places(&self, stream: &StreamName) {
        self.0.command(&["DEL", &format!("{{{stream}}}:schedules")]);
    }

    fn lose_schedule_specs(&self, stream: &StreamName) {
        self.0.command(&["DEL", &format!("{{{stream}}}:schedule-specs")]);
    }

    fn garble_schedule(&self, stream: &StreamName, name: &str) {
        let key = format!("{{{stream}}}:schedule-specs");
        self.0.command(&["HSET", &key, name, "what another client wrote"]);
        self.0.command(&["HINCRBY", &key, "#", "1"]);
    }

    fn pending(&self, key: &str, group: &str) -> Vec<PendingRow> {
        let summary = self.0.try_query::<redis::Value>(&["XPENDING", key, group]);
        if summary.is_err_and(|error| error.code() == Some("NOGROUP")) {
            return Vec::new();
        }
        let rows = self.0.pending(key, group).into_iter();
        rows.map(|row| PendingRow {
            id: row.id.parse().unwrap(),
            consumer: row.consumer,
            idle: row.idle,
            delivery_count: row.deliveries,
        })
        .collect()
    }

    fn length(&self, key: &str) -> usize {
        self.0.length(key)
    }

    fn consumers(&self, key: &str, group: &str) -> Vec<String> {
        let rows: Vec<std::collections::HashMap<String, redis::Value>> =
            self.0.query(&["XINFO", "CONSUMERS", key, group]);
        rows.into_iter().map(|row| redis::from_redis_value(row["name"].clone()).unwrap()).collect()
    }
}

pub(crate) async fn stage() -> Stage {
    stage_on(RedisServer::start().unwrap()).await
}

async fn stage_on(server: RedisServer) -> Stage {
    let client = Client::connect(&server.url()).await.unwrap();
    Stage::new(streamjobs::__store::of(&client), Arc::new(Server(server))).await.unwrap()
}

streamjobs_tests::conformance_tests!(tokio::test, stage().await);

#[tokio::test]
async fn a_stream_key_of_another_type_holds_up_no_promotion() {
    let server = RedisServer::start().unwrap();
    let connection = redis::Client::open(server.plain_url()).unwrap().get_connection();
    let stage = stage_on(server).await;
    let (store, queue) = (&stage.store, &stage.queue);
    stage.raw.schedule_retry(queue, "s:1-0", 1);
    let stream = queue.stream.as_str();
    redis::cmd("SET").arg(stream).arg("text").exec(&mut connection.unwrap()).unwrap();
    let look = store.promote(queue, &stage.me, 10).await.unwrap();
    assert_eq!((look.pending, look.left, look.next_due), (0, 0, None));
    let letters = store.dead_letters(queue, EntryId::ZERO, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "its record is gone, which was told");
}

/// Another client can have written anything. Scripts, promotions and views take the same texts for a limit.
#[tokio::test]
async fn what_is_no_set_limit_is_followed_reported_and_shown_by_none() {
    let server = RedisServer::start().unwrap();
    let connection = redis::Client::open(server.plain_url()).unwrap().get_connection();
    let (stage, mut connection) = (stage_on(server).await, connection.unwrap());
    let (store, queue) = (&stage.store, &stage.queue);
    let (stream, hash) =
        (queue.stream.as_str(), format!("{{{}}}:group:{}", queue.stream, queue.group));
    let (scope, limit) = (HoldScope::Key, NonZeroU32::MIN);
    let rule = HoldRule { scope, limit, blocks: false, is_order: false };
    let note = r#"{"from":1,"by":"al","why":"x"}"#;
    let bad = ["key 8", "key 8 17 {}", "key 0 17 N", "key 4294967296 17 N", "share 8 17 N", "8"];
    for (number, (text, admitted)) in
        bad.map(|text| (text, 1)).into_iter().chain([("key 2 17 N", 2)]).enumerate()
    {
        let text = text.replace('N', note);
        redis::cmd("HSET").arg(&hash).arg("limit").arg(&text).exec(&mut connection).unwrap();
        let shown = store.group_facts(queue).await.unwrap().limit;
        let reported = store.promote(queue, &stage.me, 0).await.unwrap().limit;
        assert_eq!((shown.is_some(), reported.is_some()), (admitted == 2, admitted == 2), "{text}");
        for _ in 0..3 {
            let add = redis::cmd("XADD").arg(stream).arg("*").arg("sj-key").arg(number).clone();
            add.exec(&mut connection).unwrap();
        }
        let taken = store.take(queue, &stage.me, Inlet::STREAM, 9, rule).await.unwrap();
        assert_eq!(taken.deliveries.len(), admitted, "{text}");
    }
}
