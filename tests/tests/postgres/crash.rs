//! Processes killed at each step between the guard row and the acknowledgement.

use streamjobs_tests::eventually::{eventually, eventually_async};
use streamjobs_tests::process::Worker;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, order};

/// The step at which a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The guard row is written, the effect is not.
    GuardAfterInsert,
    /// The commit was sent and has not reached the database.
    GuardBeforeCommit,
    /// The database committed, and the process has no reply.
    GuardAfterCommit,
    /// The acknowledgement was sent and has not reached the server.
    AckBeforeSend,
    /// The server acknowledged, and the process has no reply.
    AckAfterSend,
}

struct Guarded {
    app: App,
    redis: FaultProxy,
    database: FaultProxy,
}

/// The command that ends a guarded transaction.
const COMMIT: &str = "COMMIT AND CHAIN";

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

    /// A process without proxies.
    fn successor(&self) -> Worker {
        let builder = Worker::builder(env!("CARGO_BIN_EXE_guarded"))
            .env("WORKER_URL", self.app.server.url())
            .env("WORKER_DATABASE_URL", self.app.database.run_url());
        ready(builder.start().unwrap())
    }

    /// Lets a process run its job up to the point.
    async fn reach(&self, point: Point, victim: &Worker) {
        match point {
            Point::GuardAfterInsert => {}
            Point::GuardBeforeCommit => self.database.set(Mode::HoldRequest(COMMIT.into())),
            Point::GuardAfterCommit => self.database.set(Mode::HoldReplyTo(COMMIT.into())),
            Point::AckBeforeSend => self.redis.set(Mode::HoldRequest("XACK".into())),
            Point::AckAfterSend => self.redis.set(Mode::HoldReplyTo("XACK".into())),
        }
        self.app.publish(&[order("1")]).await;
        victim.wait_for(|line| line.starts_with("start 1 "), DEADLINE);
        let effects = async || self.app.effects().await;
        match point {
            Point::GuardAfterInsert => {}
            Point::GuardBeforeCommit => {
                eventually(DEADLINE, "the proxy has the commit", || self.database.held() > 0);
                assert_eq!(effects().await, 0, "not committed yet");
            }
            Point::GuardAfterCommit => {
                eventually_async(DEADLINE, "committed", async || effects().await == 1).await;
                eventually(DEADLINE, "the proxy has the reply", || self.database.held() > 0);
            }
            Point::AckBeforeSend => {
                eventually(DEADLINE, "the proxy has the request", || self.redis.held() > 0);
                assert_eq!((effects().await, self.app.pending()), (1, 1));
            }
            Point::AckAfterSend => {
                eventually(DEADLINE, "acknowledged", || self.app.pending() == 0);
                eventually(DEADLINE, "the proxy has the reply", || self.redis.held() > 0);
            }
        }
    }
}

fn ready(worker: Worker) -> Worker {
    worker.wait_for(|line| line.starts_with("ready "), DEADLINE);
    worker
}

/// How often handlers wrote their effect, whether their transaction committed or not.
fn bodies(workers: [&Worker; 2]) -> usize {
    let lines = workers.into_iter().flat_map(Worker::lines);
    lines.filter(|line| line.starts_with("effect ")).count()
}

/// Kills a process at the point, lets another one finish, and returns how often the body ran.
async fn killed_at(point: Point) -> usize {
    let guarded = Guarded::start().await;
    let mut victim = guarded.victim(point == Point::GuardAfterInsert);
    guarded.reach(point, &victim).await;
    victim.kill();
    // The proxies drop what they have not passed on.
    guarded.redis.sever();
    guarded.database.sever();
    // A cluster sends the next process to the proxy as well.
    guarded.redis.set(Mode::Pass);
    let successor = guarded.successor();
    guarded.app.drained("billing").await;
    assert_eq!(guarded.app.effects().await, 1, "{point:?}");
    assert_eq!(guarded.app.guard_rows().await, 1, "{point:?}");
    bodies([&victim, &successor])
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_guard_row_and_before_the_effect_the_next_attempt_does_both() {
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
