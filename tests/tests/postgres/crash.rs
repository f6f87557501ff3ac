//! Processes killed at each step between the guard's note and the acknowledgement.

use streamjobs_tests::eventually::{eventually, eventually_async};
use streamjobs_tests::process::Worker;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, order};

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The note is written, the effect is not.
    GuardAfterInsert,
    /// The commit is on its way and has not reached the database.
    GuardBeforeCommit,
    /// It is committed, and the process does not know.
    GuardAfterCommit,
    /// The acknowledgement is on its way and has not reached the server.
    AckBeforeSend,
    /// It is acknowledged, and the process does not know.
    AckAfterSend,
}

struct Guarded {
    app: App,
    redis: FaultProxy,
    database: FaultProxy,
}

/// What the guard asks before it commits. The word `COMMIT` itself is also part of the statement
/// that begins a transaction, in the name of its isolation level.
const LAST_LOOK: &str = "SELECT 1";

impl Guarded {
    async fn start() -> Self {
        let app = App::start().await;
        let redis = FaultProxy::start(&app.server).unwrap();
        let database = FaultProxy::start(&app.database).unwrap();
        Self { app, redis, database }
    }

    /// A process behind the proxies.
    fn victim(&self, hold: bool) -> Worker {
        let builder = Worker::builder(env!("CARGO_BIN_EXE_guarded"))
            .env("WORKER_URL", self.redis.url())
            .env("WORKER_DATABASE_URL", self.database.url());
        let builder = if hold { builder.env("WORKER_HOLD", "1") } else { builder };
        ready(builder.start().unwrap())
    }

    /// A process that nothing comes between.
    fn heir(&self) -> Worker {
        let builder = Worker::builder(env!("CARGO_BIN_EXE_guarded"))
            .env("WORKER_URL", self.app.server.url())
            .env("WORKER_DATABASE_URL", self.app.database.run_url());
        ready(builder.start().unwrap())
    }

    /// Lets a process go as far as the point with its one job.
    async fn reach(&self, point: Point, victim: &Worker) {
        match point {
            Point::GuardAfterInsert => {}
            Point::GuardBeforeCommit | Point::GuardAfterCommit => {
                self.database.set(Mode::HoldRequest(LAST_LOOK.into()));
            }
            Point::AckBeforeSend => self.redis.set(Mode::HoldRequest("XACK".into())),
            Point::AckAfterSend => self.redis.set(Mode::HoldReplyTo("XACK".into())),
        }
        self.app.publish(&[order("1")]).await;
        victim.wait_for(|line| line.starts_with("start 1 "), DEADLINE);
        let effects = async || self.app.effects().await;
        match point {
            Point::GuardAfterInsert => {}
            Point::GuardBeforeCommit => {
                eventually(DEADLINE, "the commit is held", || self.database.held() > 0);
                assert_eq!(effects().await, 0, "not committed yet");
            }
            Point::GuardAfterCommit => {
                eventually(DEADLINE, "the commit is next", || self.database.held() > 0);
                self.database.set(Mode::HoldReplyTo("COMMIT".into()));
                eventually_async(DEADLINE, "committed", async || effects().await == 1).await;
                eventually(DEADLINE, "its answer is held", || self.database.held() > 0);
            }
            Point::AckBeforeSend => {
                eventually(DEADLINE, "the acknowledgement is held", || self.redis.held() > 0);
                assert_eq!((effects().await, self.app.pending()), (1, 1));
            }
            Point::AckAfterSend => {
                eventually(DEADLINE, "acknowledged", || self.app.pending() == 0);
                eventually(DEADLINE, "its answer is held", || self.redis.held() > 0);
            }
        }
    }
}

fn ready(worker: Worker) -> Worker {
    worker.wait_for(|line| line.starts_with("ready "), DEADLINE);
    worker
}

/// How often handlers wrote their effect into their transaction, whether that was committed or not.
fn bodies(workers: [&Worker; 2]) -> usize {
    let lines = workers.into_iter().flat_map(Worker::lines);
    lines.filter(|line| line.starts_with("effect ")).count()
}

/// Kills a process at the point, lets another one finish, and says how often the body ran.
async fn killed_at(point: Point) -> usize {
    let guarded = Guarded::start().await;
    let mut victim = guarded.victim(point == Point::GuardAfterInsert);
    guarded.reach(point, &victim).await;
    victim.kill();
    // What is held goes on its way, to a link whose process is gone.
    guarded.redis.sever();
    guarded.database.sever();
    let heir = guarded.heir();
    guarded.app.drained("billing").await;
    assert_eq!(guarded.app.effects().await, 1, "{point:?}");
    assert_eq!(guarded.app.guard_rows().await, 1, "{point:?}");
    bodies([&victim, &heir])
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_note_and_before_the_effect_both_are_done_by_the_next() {
    assert_eq!(killed_at(Point::GuardAfterInsert).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_commit_everything_is_done_again_by_the_next() {
    assert_eq!(killed_at(Point::GuardBeforeCommit).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_commit_the_next_acknowledges_without_running() {
    assert_eq!(killed_at(Point::GuardAfterCommit).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_acknowledgement_the_next_acknowledges_without_running() {
    assert_eq!(killed_at(Point::AckBeforeSend).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_acknowledgement_nothing_is_left_to_do() {
    assert_eq!(killed_at(Point::AckAfterSend).await, 1);
}
