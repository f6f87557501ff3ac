//! Breaks something every few seconds, in an order that the seed decides, and mends it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use streamjobs_tests::eventually::poll;
use streamjobs_tests::history::Disturbance;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::crew::Crew;
use crate::options::{Options, TERMS};
use crate::stand::Stand;

/// What the nemesis can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    KillTwo,
    Freeze,
    RollingRestart,
    /// A rolling restart with a version that knows one more event type, which is published from its
    /// begin on.
    Deploy,
    ConsumerDeleted,
    Link,
    ProducerLink,
    RedisRestart,
    RedisFreeze,
    ConnectionsKilled,
    ScriptsFlushed,
    DatabaseRestart,
    DatabaseConnectionsKilled,
    Failover,
}

/// So often each comes before all begin again in another order.
const DECK: [(Kind, usize); 15] = [
    (Kind::Kill, 5),
    (Kind::KillTwo, 5),
    (Kind::Freeze, 2),
    (Kind::RollingRestart, 1),
    (Kind::Deploy, 1),
    (Kind::ConsumerDeleted, 2),
    (Kind::Link, 3),
    (Kind::ProducerLink, 1),
    (Kind::RedisRestart, 3),
    (Kind::RedisFreeze, 1),
    (Kind::ConnectionsKilled, 1),
    (Kind::ScriptsFlushed, 1),
    (Kind::DatabaseRestart, 1),
    (Kind::DatabaseConnectionsKilled, 1),
    (Kind::Failover, 2),
];

/// How many versions of the program there are.
const VERSIONS: u64 = 3;

/// How often the crew is looked after while nothing happens.
const INTERVAL: Duration = Duration::from_millis(100);

/// Something of a place that is to be mended.
struct Heal {
    due: Instant,
    place: usize,
    fault: u64,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Thaw,
    Pass,
    /// Nothing is broken; the jobs of a deleted consumer need their time.
    Wait,
    /// Links that have lost something are of no use any more: no network does that.
    PassAnew,
}

/// The one who breaks things.
pub(crate) struct Nemesis<'a> {
    stand: &'a Stand,
    rng: Rng,
    deck: Vec<Kind>,
    heals: Vec<Heal>,
    /// What was done how often. Processes that were killed count one by one.
    pub(crate) done: BTreeMap<Kind, usize>,
    pub(crate) kills: usize,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(stand: &'a Stand, options: &Options) -> Self {
        let rng = Rng::with_seed(options.seed);
        let (deck, heals, done) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { stand, rng, deck, heals, done, kills: 0 }
    }

    /// Goes on for so long, then mends all.
    pub(crate) fn run(&mut self, crew: &mut Crew, long: Duration) {
        let end = Instant::now() + long;
        loop {
            // From 2 to 10 s, and more often less.
            let pause = Duration::from_secs_f64(8.0_f64.mul_add(self.rng.f64().powi(3), 2.0));
            let until = Instant::now() + pause;
            self.attend(crew, until.min(end));
            if until >= end {
                break;
            }
            let kind = self.draw();
            self.act(kind, crew);
        }
        self.heal(crew, true);
    }

    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            let all = DECK.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
            self.deck = all.collect();
            self.rng.shuffle(&mut self.deck);
        }
        self.deck.pop().expect("it was filled")
    }

    /// Watches all processes until a moment.
    fn attend(&mut self, crew: &mut Crew, until: Instant) {
        while Instant::now() < until {
            self.heal(crew, false);
            crew.tend(self.stand);
            self.stand.sample();
            pause(INTERVAL.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Mends what is due, or all.
    fn heal(&mut self, crew: &mut Crew, all: bool) {
        let now = Instant::now();
        let (due, later) =
            self.heals.drain(..).partition::<Vec<_>, _>(|heal| all || heal.due <= now);
        self.heals = later;
        for heal in due {
            let place = &mut crew.places[heal.place];
            match heal.how {
                How::Thaw => place.worker.thaw(),
                How::Wait => {}
                How::Pass => place.pass(),
                How::PassAnew => {
                    place.pass();
                    place.proxy.sever();
                }
            }
            place.busy = false;
            if heal.how != How::Wait {
                self.stand.mended(heal.fault);
            }
        }
    }

    fn act(&mut self, kind: Kind, crew: &mut Crew) {
        *self.done.entry(kind).or_default() += 1;
        match kind {
            Kind::Kill => self.kill(crew),
            Kind::KillTwo => {
                self.kill(crew);
                self.kill(crew);
            }
            Kind::Freeze => self.freeze(crew),
            Kind::RollingRestart => self.roll(crew),
            Kind::Deploy => {
                let version = &self.stand.version;
                let newer = (version.load(Ordering::SeqCst) + 1).min(VERSIONS);
                version.store(newer, Ordering::SeqCst);
                self.roll(crew);
            }
            Kind::ConsumerDeleted => self.delete_consumer(crew),
            Kind::Link => self.link(crew),
            Kind::ProducerLink => self.producer_link(),
            Kind::RedisRestart => self.redis_restart(),
            Kind::RedisFreeze => self.redis_freeze(),
            Kind::ConnectionsKilled => self.server("connections killed", |stand| {
                stand.pair().primary.command(&["CLIENT", "KILL", "TYPE", "normal"]);
            }),
            // It breaks nothing, and so is no excuse.
            Kind::ScriptsFlushed => {
                self.stand.pair().primary.command(&["SCRIPT", "FLUSH", "SYNC"]);
            }
            Kind::DatabaseRestart => self.database_restart(),
            Kind::DatabaseConnectionsKilled => self.database_connections(),
            Kind::Failover => self.failover(crew),
        }
    }

    /// A place at which nothing is broken.
    fn choose(&mut self, crew: &Crew) -> Option<usize> {
        let idle = (0..crew.places.len()).filter(|place| !crew.places[*place].busy);
        let idle = idle.collect::<Vec<_>>();
        self.rng.choice(idle)
    }

    fn leases(&mut self, least: f64, most: f64) -> Duration {
        TERMS.lease.mul_f64((most - least).mul_add(self.rng.f64(), least))
    }

    fn kill(&mut self, crew: &mut Crew) {
        if let Some(place) = self.choose(crew) {
            crew.kill(self.stand, place);
            self.kills += 1;
        }
    }

    fn roll(&self, crew: &mut Crew) {
        for place in 0..crew.places.len() {
            if !crew.places[place].busy {
                crew.roll(self.stand, place);
            }
        }
    }

    /// Deletes the consumer of a process that works, as a careless hand does, and leaves the process
    /// alone until what runs there has ended: what dies with it after that is lost, and only that. It
    /// breaks nothing, and so is no excuse. Entries that the process has given up after an outage,
    /// and that wait to be claimed, would be lost with the consumer: no memory has them. With such
    /// entries, no consumer is deleted.
    fn delete_consumer(&mut self, crew: &mut Crew) {
        let Some(place) = self.choose(crew) else { return };
        let (group, consumer) = (crew.places[place].group, crew.places[place].consumer());
        let Some(consumer) = consumer else { return };
        let keys = [group.stream.to_owned(), format!("{{{}}}:lane:{}", group.stream, group.name)];
        // What is in flight is renewed more often.
        let given_up = (TERMS.lease / 2).as_millis().to_string();
        let is_careless = |key: &String| {
            let query = ["XPENDING", key, group.name, "IDLE", &given_up, "-", "+", "1", &consumer];
            let rows = self.stand.pair().primary.try_query::<Vec<redis::Value>>(&query);
            // Without a group there is nothing to lose.
            rows.map_or(true, |rows| rows.is_empty())
        };
        if !keys.iter().all(is_careless) {
            // Another time.
            self.deck.insert(0, Kind::ConsumerDeleted);
            self.done.entry(Kind::ConsumerDeleted).and_modify(|done| *done -= 1);
            return;
        }
        println!("soak: deletes the consumer {consumer} of {}", group.name);
        for key in keys {
            let delete = ["XGROUP", "DELCONSUMER", &key, group.name, &consumer];
            let _none_there = self.stand.pair().primary.try_query::<i64>(&delete).is_err();
        }
        let due = Instant::now() + TERMS.lease * 3;
        self.later(crew, Heal { due, place, fault: 0, how: How::Wait });
    }

    fn freeze(&mut self, crew: &mut Crew) {
        let Some(place) = self.choose(crew) else { return };
        let due = Instant::now() + self.leases(0.5, 3.0);
        let worker = &crew.places[place].worker;
        let fault = self.stand.broken(&Disturbance::Freeze { pid: worker.pid() });
        worker.freeze();
        self.later(crew, Heal { due, place, fault, how: How::Thaw });
    }

    fn link(&mut self, crew: &mut Crew) {
        let Some(place) = self.choose(crew) else { return };
        let pid = crew.places[place].worker.pid();
        let fault = self.stand.broken(&Disturbance::Link { pid });
        let due = Instant::now() + self.leases(0.5, 2.0);
        let proxy = &crew.places[place].proxy;
        let how = match self.rng.u8(..4) {
            0 => {
                proxy.sever();
                How::Pass
            }
            1 => {
                proxy.set(Mode::BlackHole);
                How::Pass
            }
            2 => {
                proxy.set(Mode::DropReplies);
                How::PassAnew
            }
            _ => {
                proxy.set(Mode::LoseReply);
                How::Pass
            }
        };
        self.later(crew, Heal { due, place, fault, how });
    }

    fn later(&mut self, crew: &mut Crew, heal: Heal) {
        crew.places[heal.place].busy = true;
        self.heals.push(heal);
    }

    /// Producers are left in the dark. That is no fault of any process that works.
    fn producer_link(&mut self) {
        let entrance = &self.stand.entrance;
        if self.rng.bool() { entrance.sever() } else { entrance.set(Mode::LoseReply) }
    }

    /// Does something to the server, which is mended when it returns.
    fn server(&self, what: &str, act: impl FnOnce(&Stand)) {
        let fault = self.stand.broken(&Disturbance::Server { what: what.to_owned() });
        act(self.stand);
        self.stand.mended(fault);
    }

    fn redis_restart(&mut self) {
        let down = self.leases(0.0, 0.75);
        self.server("restart", |stand| {
            stand.pair().primary.kill();
            pause(down);
            stand.pair().primary.restart().unwrap();
        });
    }

    fn redis_freeze(&mut self) {
        let long = self.leases(0.25, 2.0);
        self.server("freeze", |stand| {
            stand.pair().primary.freeze();
            pause(long);
            stand.pair().primary.thaw();
        });
    }

    fn database_restart(&mut self) {
        let (down, at_once) = (self.leases(0.0, 1.0), self.rng.bool());
        let postgres = &self.stand.postgres;
        let fault = self.stand.broken(&Disturbance::Database);
        if at_once {
            postgres.kill()
        } else {
            postgres.stop()
        }
        pause(down);
        postgres.restart().unwrap();
        self.stand.mended(fault);
    }

    fn database_connections(&self) {
        let fault = self.stand.broken(&Disturbance::Database);
        self.stand.executor.block_on(async {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE usename = 'streamjobs_run'";
            // A pool whose connections went down with the server opens others.
            let pool = self.stand.database.admin_pool();
            sqlx::query(end).execute(&pool).await.unwrap();
        });
        self.stand.mended(fault);
    }

    /// Promotes the replica. All links are cut first, then the replica is waited for, so that it
    /// has all that was ever confirmed; then the old primary is killed.
    fn failover(&mut self, crew: &mut Crew) {
        let stand = self.stand;
        stand.in_step();
        let all = || crew.proxies().chain([(&stand.entrance, &Mode::Pass)]);
        // Places that have a broken link of their own have it no more.
        self.heal_links(crew);
        self.server("failover", |stand| {
            all().for_each(|(proxy, _)| cut(proxy));
            assert!(stand.replicated().unwrap(), "the replica is not there in time");
            stand.pair().primary.kill();
            stand.promote();
            let pair = stand.pair();
            all().for_each(|(proxy, usual)| {
                proxy.aim(&pair.primary);
                proxy.set(usual.clone());
            });
        });
        stand.attach();
    }

    fn heal_links(&mut self, crew: &Crew) {
        let now = Instant::now();
        for heal in &mut self.heals {
            if matches!(heal.how, How::Pass | How::PassAnew) {
                heal.due = now;
                crew.places[heal.place].pass();
            }
        }
    }
}

fn cut(proxy: &FaultProxy) {
    proxy.set(Mode::Refuse);
    proxy.sever();
}

/// Lets time pass: what is broken stays so.
fn pause(long: Duration) {
    poll(long, || None::<()>);
}
