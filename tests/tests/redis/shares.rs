//! Fair shares, and lines of limits, on a server whose keys other clients have deleted or changed: nothing stops,
//! nothing loops.

use std::num::NonZeroU32;
use std::sync::Arc;

use streamjobs::__store::holds::{HoldRule, HoldScope};
use streamjobs::__store::{HoldSweep, Inlet, Left, Queue, Store, StoreError, SweepCursors};
use streamjobs::config::{Retention, Start};
use streamjobs::{Client, ConsumerName, Fields, GroupName, StreamName};
use streamjobs_tests::conformance::append;
use streamjobs_tests::server::RedisServer;

const SHARE: HoldRule =
    HoldRule { scope: HoldScope::Share, limit: NonZeroU32::MAX, blocks: false, is_order: false };

struct Stage {
    server: RedisServer,
    store: Arc<dyn Store>,
    queue: Queue,
    me: ConsumerName,
}

impl Stage {
    /// Some jobs of `a` run, and so many others wait in its line.
    async fn with_line(jobs: usize) -> Self {
        let server = RedisServer::start().unwrap();
        let client = Client::connect(&server.url()).await.unwrap();
        let queue = Queue {
            stream: StreamName::new("orders").unwrap(),
            group: GroupName::new("work").unwrap(),
        };
        let (store, me) = (streamjobs::__store::of(&client), ConsumerName::new("me").unwrap());
        store.prepare(&queue, Start::Beginning).await.unwrap();
        let stage = Self { server, store, queue, me };
        // A take looks at 500 entries.
        while stage.in_lines() < jobs {
            let missing = jobs - stage.in_lines();
            stage.publish(&vec!["a"; missing.min(450) + 1]).await;
            stage.take(1).await.unwrap();
        }
        assert_eq!(stage.in_lines(), jobs);
        stage
    }

    async fn publish(&self, keys: &[&str]) {
        let jobs = keys.iter().map(|key| job(key)).collect::<Vec<_>>();
        for chunk in jobs.chunks(500) {
            let (store, stream) = (self.store.as_ref(), &self.queue.stream);
            for stored in append(store, stream, Retention::Unlimited, chunk.to_vec()).await {
                stored.unwrap();
            }
        }
    }

    async fn take(&self, slots: usize) -> Result<(Left, Vec<String>), StoreError> {
        let taken = self.store.take(&self.queue, &self.me, Inlet::STREAM, slots, SHARE).await?;
        let key = |entry: &streamjobs::Entry| entry.text("sj-key").unwrap().to_owned();
        Ok((taken.left, taken.deliveries.iter().map(|delivery| key(&delivery.entry)).collect()))
    }

    async fn sweep(&self) {
        let sweep = HoldSweep { rule: Some(SHARE), cursors: SweepCursors::default() };
        self.store.sweep_holds(&self.queue, sweep).await.unwrap();
    }

    fn run(&self, command: &[&str]) {
        let _: redis::Value = self.server.query(command);
    }

    fn in_lines(&self) -> usize {
        self.server.query(&["ZCARD", &key("lines")])
    }

    fn letters(&self) -> usize {
        self.server.query(&["XLEN", &key("dead")])
    }
}

fn key(name: &str) -> String {
    format!("{{orders}}:{name}:work")
}

fn job(key: &str) -> Fields {
    vec![("type".into(), "t".into()), ("sj-key".into(), key.to_owned().into())]
}

#[tokio::test]
async fn lines_that_were_deleted_end_no_take() {
    let stage = Stage::with_line(40).await;
    stage.run(&["DEL", &key("lines")]);
    stage.publish(&["a", "b"]).await;
    let (_, mut keys) = stage.take(8).await.unwrap();
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"]);
    let one = Stage::with_line(3).await;
    let members: Vec<String> = one.server.query(&["ZRANGE", &key("lines"), "0", "0"]);
    one.run(&["ZREM", &key("lines"), &members[0]]);
    assert_eq!(one.take(8).await.unwrap().1, ["a", "a"]);
    assert_eq!(one.take(8).await.unwrap(), (Left::Drained, vec![]));
}

#[tokio::test]
async fn each_job_of_a_line_without_its_record_is_one_dead_letter() {
    let stage = Stage::with_line(1_300).await;
    stage.run(&["DEL", &key("line-records")]);
    stage.publish(&["b"]).await;
    let mut keys = Vec::new();
    for _ in 0..9 {
        keys.extend(stage.take(2).await.unwrap().1);
    }
    assert_eq!((stage.letters(), stage.in_lines(), keys), (1_300, 0, vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_line_whose_first_job_can_go_nowhere_holds_no_other_up() {
    let stage = Stage::with_line(2).await;
    let members: Vec<String> = stage.server.query(&["ZRANGE", &key("lines"), "0", "0"]);
    stage.run(&["HSET", &key("line-records"), &members[0], "no record"]);
    stage.run(&["SET", &key("dead"), "of another type"]);
    stage.publish(&["b", "b", "b"]).await;
    assert_eq!(stage.take(1).await.unwrap().1, ["b"]);
    assert_eq!(stage.take(9).await.unwrap().1, ["b", "b"]);
    assert_eq!(stage.take(9).await.unwrap(), (Left::Full, vec![]));
    stage.run(&["DEL", &key("dead")]);
    stage.sweep().await;
    assert_eq!(stage.take(9).await.unwrap().1, ["a"]);
    assert_eq!((stage.letters(), stage.in_lines()), (1, 0));
}

#[tokio::test]
async fn lines_without_shares_are_found_by_the_next_take() {
    let stage = Stage::with_line(3).await;
    stage.run(&["DEL", &key("shares")]);
    assert_eq!(stage.take(9).await.unwrap().1, ["a", "a", "a"]);
    assert_eq!(stage.take(9).await.unwrap(), (Left::Drained, vec![]));
}

#[tokio::test]
async fn a_lane_of_another_type_is_said_to_be() {
    let stage = Stage::with_line(3).await;
    stage.run(&["DEL", &key("lane")]);
    stage.run(&["SET", &key("lane"), "of another type"]);
    let refused = stage.take(9).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    assert_eq!(stage.in_lines(), 3);
}

/// The same for a limit: what waits for a higher one goes on.
#[tokio::test]
async fn a_line_whose_first_job_can_go_nowhere_holds_no_other_key_of_a_limit_up() {
    let stage = Stage::with_line(0).await;
    let rule = |limit| {
        let limit = NonZeroU32::new(limit).unwrap();
        HoldRule { scope: HoldScope::Key, limit, blocks: false, is_order: false }
    };
    stage.publish(&["b", "b", "c", "c", "c"]).await;
    let (store, queue, inlet) = (&stage.store, &stage.queue, Inlet::STREAM);
    assert_eq!(store.take(queue, &stage.me, inlet, 9, rule(1)).await.unwrap().parked, 3);
    let members: Vec<String> = stage.server.query(&["ZRANGE", &key("lines"), "0", "0"]);
    stage.run(&["HSET", &key("line-records"), &members[0], "no record"]);
    stage.run(&["SET", &key("dead"), "of another type"]);
    let sweep = HoldSweep { rule: Some(rule(3)), cursors: SweepCursors::default() };
    let swept = store.sweep_holds(queue, sweep).await.unwrap();
    assert_eq!((swept.fed, swept.parked), (2, 1), "those of c");
}
