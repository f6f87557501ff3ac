//! One cell of the grid: twenty jobs, one process to which something happens, and one that inherits.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use streamjobs::__proof::FailPoint;
use streamjobs::{Client, EventId};
use streamjobs_tests::check::{Terms, Truth, check};
use streamjobs_tests::eventually::{eventually, poll};
use streamjobs_tests::history::{self, Deed, Disturbance, Writer};
use streamjobs_tests::postgres::Database;
use streamjobs_tests::process::Worker;
use streamjobs_tests::proof::{self, Order};
use streamjobs_tests::proxy::FaultProxy;
use streamjobs_tests::server::RedisServer;
use tokio::runtime::Runtime as Executor;

use super::kind::{Kind, disorder, open_batch, unended};

/// What happens to the process at its fail point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Panic,
    Abort,
    Kill,
    Freeze,
    Cut,
}

impl Action {
    pub(crate) const ALL: [Self; 5] =
        [Self::Panic, Self::Abort, Self::Kill, Self::Freeze, Self::Cut];

    /// What the process is told to do by itself.
    fn order(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Abort => "abort",
            Self::Kill | Self::Freeze | Self::Cut => "ask",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) point: FailPoint,
    pub(crate) action: Action,
    pub(crate) kind: Kind,
}

const DEADLINE: Duration = Duration::from_secs(30);
const JOBS: usize = 20;
const TERMS: Terms = Terms {
    lease: Duration::from_millis(900),
    slots: 6,
    max_attempts: 5,
    max_deliveries: 10,
    slack: Duration::from_secs(5),
};

impl Cell {
    /// What was promised and not kept.
    pub(crate) fn run(self, database: &Database) -> Vec<String> {
        let stand = Stand::new(self, database);
        stand.publish(database);
        let donor = (self.point == FailPoint::ClaimAfterReply).then(|| stand.dead_donor());
        let victim = stand.victim(self.order());
        if self.needs_a_stop() {
            victim.wait_for(|line| line == "ready", DEADLINE);
            eventually(DEADLINE, "jobs run", || stand.has_started());
            stand
                .history
                .write(Deed::Broken { fault: STOP, what: Disturbance::Stop { pid: victim.pid() } });
            victim.terminate();
        }
        let reached = format!("reached {}", self.point.name());
        victim.wait_for(|line| line == reached, DEADLINE);
        let mut workers = vec![stand.heir()];
        workers.extend(stand.act(self.action, victim));
        stand.drained();
        for worker in &mut workers {
            worker.terminate();
            worker.wait(DEADLINE);
        }
        drop(donor);
        let lines = history::read(&stand.folder).unwrap();
        let finding = check(&lines, &stand.truth(database), &TERMS);
        assert_eq!(finding.published, JOBS);
        let mut breaches = finding.breaches.iter().map(|breach| format!("{breach:?}")).collect();
        stand.check_kind(database, &mut breaches);
        breaches
    }

    /// Its name, with which the ids of its events begin: all cells share one table.
    pub(crate) fn name(self) -> String {
        let name = format!("{}-{:?}", self.point.name(), self.action);
        match self.kind {
            Kind::Plain => name,
            kind => format!("{name}-{kind:?}"),
        }
    }

    fn needs_a_stop(self) -> bool {
        matches!(self.point, FailPoint::ReleaseBefore | FailPoint::ShutdownMidDrain)
    }

    /// What the victim is told: at which of its passings of the point to do what.
    fn order(self) -> String {
        let nth = match self.point {
            FailPoint::SpawnBefore
            | FailPoint::HandlerBefore
            | FailPoint::HandlerAfterOk
            | FailPoint::GuardAfterInsert
            | FailPoint::GuardBeforeCommit
            | FailPoint::GuardAfterCommit => 3,
            _ => 1,
        };
        format!("{}:{}:{nth}", self.point.name(), self.action.order())
    }
}

/// What one cell stands on.
struct Stand {
    cell: Cell,
    server: RedisServer,
    redis: FaultProxy,
    postgres: FaultProxy,
    database_url: String,
    control: TcpListener,
    folder: PathBuf,
    history: Writer,
}

impl Stand {
    fn new(cell: Cell, database: &Database) -> Self {
        let server = RedisServer::start().unwrap();
        let (redis, postgres) =
            (FaultProxy::start(&server).unwrap(), FaultProxy::start(database).unwrap());
        let folder = server.dir().join("histories");
        std::fs::create_dir(&folder).unwrap();
        let history = Writer::open(&folder).unwrap();
        let control = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        control.set_nonblocking(true).unwrap();
        let database_url = database.run_url();
        Self { cell, server, redis, postgres, database_url, control, folder, history }
    }

    fn publish(&self, database: &Database) {
        let ids = (0..JOBS).map(|number| EventId::new(format!("{}-{number}", self.cell.name())));
        let ids = ids.map(Result::unwrap).collect::<Vec<_>>();
        executor().block_on(async {
            if self.cell.kind == Kind::Members {
                open_batch(database, &self.cell.name(), &ids).await;
            }
            let client = Client::connect(&self.server.url()).await.unwrap();
            for (number, id) in ids.into_iter().enumerate() {
                let job = id.to_string();
                let mut order = Order::new(&job);
                order.failures = u32::from(number % 7 == 3);
                order.rejected = self.cell.kind.rejects(number);
                order.takes = if self.cell.needs_a_stop() { 400 } else { 1 };
                self.history.write(Deed::Tried { job: job.clone(), fate: order.fate() });
                match self.cell.kind.key(number) {
                    Some(key) => self.publish_with_key(&order, &job, &key),
                    None => drop(client.publish_with_id(&order, id).await.unwrap()),
                }
                self.history.write(Deed::Published { job });
            }
        });
    }

    /// Its event has no key: another client gives it one.
    fn publish_with_key(&self, order: &Order, job: &str, key: &str) {
        let data = serde_json::to_string(order).unwrap();
        let fields = ["type", "order.placed", "data", &data, "sj-id", job, "sj-key", key];
        self.server.command(&[&["XADD", "orders", "*"], &fields[..]].concat());
    }

    fn worker(&self, url: &str, database_url: &str, order: Option<&str>) -> Worker {
        let mut builder = Worker::builder(env!("CARGO_BIN_EXE_proof_worker"))
            .env("PROOF_URL", url)
            .env("PROOF_DATABASE_URL", database_url)
            .env("PROOF_HISTORY", &self.folder)
            .env("PROOF_CONTROL", self.control.local_addr().unwrap().to_string())
            .env("PROOF_LEASE_MS", TERMS.lease.as_millis().to_string())
            .env("PROOF_SLOTS", TERMS.slots.to_string())
            .env("PROOF_GRACE_MS", if self.cell.needs_a_stop() { "50" } else { "5000" });
        if let Some(order) = order {
            builder = builder.env("PROOF_FAIL", order);
        }
        if let Some(kind) = self.cell.kind.word() {
            builder = builder.env("PROOF_KIND", kind);
        }
        builder.start().unwrap()
    }

    /// The process to which something happens. It reaches both servers through proxies.
    fn victim(&self, order: String) -> Worker {
        self.worker(self.redis.url(), self.postgres.url(), Some(&order))
    }

    fn heir(&self) -> Worker {
        self.worker(&self.server.url(), &self.database_url, None)
    }

    /// A process that has taken jobs in and is killed before it runs any.
    fn dead_donor(&self) -> Worker {
        let order = format!("{}:ask:1", FailPoint::HandlerBefore.name());
        let mut donor = self.worker(&self.server.url(), &self.database_url, Some(&order));
        let _asking = self.asked();
        self.broken(DONOR, Disturbance::Kill { pid: donor.pid() });
        donor.kill();
        donor
    }

    /// Waits until a process stands at its fail point and asks.
    fn asked(&self) -> TcpStream {
        let asking = poll(DEADLINE, || self.control.accept().ok());
        let (mut asking, _) = asking.expect("the process reaches the fail point");
        asking.set_nonblocking(false).unwrap();
        asking.read_exact(&mut [0]).unwrap();
        asking
    }

    fn broken(&self, fault: u64, what: Disturbance) {
        self.history.write(Deed::Broken { fault, what });
    }

    fn has_started(&self) -> bool {
        let lines = history::read(&self.folder).unwrap();
        lines.iter().any(|line| matches!(line.deed, Deed::Started(_)))
    }

    /// Lets it happen: the process, if it lives on.
    fn act(&self, action: Action, mut victim: Worker) -> Option<Worker> {
        let pid = victim.pid();
        match action {
            Action::Abort => {
                victim.wait(DEADLINE);
                return None;
            }
            Action::Panic => {}
            Action::Kill => {
                let _asking = self.asked();
                self.broken(ACTED, Disturbance::Kill { pid });
                victim.kill();
                return None;
            }
            Action::Freeze => {
                let mut asking = self.asked();
                self.broken(ACTED, Disturbance::Freeze { pid });
                victim.freeze();
                asking.write_all(b"!").unwrap();
                let thawed = Instant::now() + TERMS.lease * 2;
                eventually(DEADLINE, "two leases have passed", || Instant::now() >= thawed);
                victim.thaw();
            }
            Action::Cut => {
                let mut asking = self.asked();
                self.broken(ACTED, Disturbance::Link { pid });
                self.redis.sever();
                self.postgres.sever();
                asking.write_all(b"!").unwrap();
            }
        }
        // One that was told to stop ends by itself, well or not.
        if self.cell.needs_a_stop() {
            victim.wait(DEADLINE);
            return None;
        }
        Some(victim)
    }

    fn drained(&self) {
        eventually(DEADLINE, "everything is settled", || self.unfinished() == 0);
        eventually(DEADLINE, "nothing is left of the limit", || self.limit_keys() == 0);
    }

    /// How many keys of the group's limit there are.
    fn limit_keys(&self) -> usize {
        let keys = ["holds", "busy", "lines", "line-records", "turns", "shares"];
        let keys = keys.map(|key| format!("{{orders}}:{key}:guarded"));
        let command = ["EXISTS"].into_iter().chain(keys.iter().map(String::as_str));
        self.server.query(&command.collect::<Vec<_>>())
    }

    /// What holds for jobs of this kind alone.
    fn check_kind(&self, database: &Database, breaches: &mut Vec<String>) {
        match self.cell.kind {
            Kind::Plain | Kind::Fair => {}
            Kind::Ordered => breaches.extend(disorder(&self.folder, JOBS)),
            Kind::Members => {
                let name = self.cell.name();
                breaches.extend(executor().block_on(unended(database, &name, JOBS)));
            }
        }
    }

    fn unfinished(&self) -> usize {
        proof::unfinished(&self.server, "orders", "guarded").unwrap()
    }

    fn truth(&self, database: &Database) -> Truth {
        let own = format!("{}-", self.cell.name());
        Truth {
            unfinished: self.unfinished(),
            letters: proof::letters(&self.server, "orders", "guarded"),
            effects: Some(executor().block_on(proof::effects(database, &own))),
            lost_by_server: Vec::new(),
        }
    }
}

fn executor() -> Executor {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const STOP: u64 = 1;
const DONOR: u64 = 2;
const ACTED: u64 = 3;
