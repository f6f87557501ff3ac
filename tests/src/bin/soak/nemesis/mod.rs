//! Breaks something every few seconds, in an order that the seed decides, and repairs it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use streamjobs_tests::eventually::poll;
use streamjobs_tests::history::Disturbance;
use streamjobs_tests::proxy::FaultProxy;

use crate::crew::Crew;
use crate::options::{Options, TERMS};
use crate::stand::Stand;

pub(crate) mod nodes;
mod single;

/// What a nemesis can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    KillTwo,
    Freeze,
    RollingRestart,
    /// A rolling restart with a version that knows one more event type. This type is published from
    /// the start of the restart.
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
    Reshard,
    /// A slot is moved in one step, if the server can do that.
    ReshardAtOnce,
    FailoverByHand,
    MasterKilled,
    /// A master is killed after its replica has lost the link to it.
    MasterKilledAhead,
    MasterFrozen,
    /// A master was replaced although nothing was done to it: it was too slow for the others.
    MasterReplaced,
    /// A master did not answer for a long time although nothing was done to it.
    MasterSlow,
}

/// How often each kind comes before all begin again in another order.
const DECK: &[(Kind, usize)] = &[
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

/// The same for a cluster, to which other things happen meanwhile.
const CLUSTER_DECK: &[(Kind, usize)] = &[
    (Kind::Kill, 5),
    (Kind::KillTwo, 3),
    (Kind::Freeze, 2),
    (Kind::RollingRestart, 1),
    (Kind::Deploy, 1),
    (Kind::ConnectionsKilled, 1),
    (Kind::ScriptsFlushed, 1),
];

/// How many versions of the program there are.
const VERSIONS: u64 = 3;

/// How often the crew is checked while nothing happens.
const INTERVAL: Duration = Duration::from_millis(100);

/// Something in a place that has to be repaired.
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
    /// Nothing is broken, but the jobs of a deleted consumer need time.
    Wait,
    /// Links that have lost bytes must not be used any more: no network continues after that.
    PassAnew,
}

/// Breaks processes, and a single server.
pub(crate) struct Nemesis<'a> {
    stand: &'a Stand,
    rng: Rng,
    deck: Vec<Kind>,
    heals: Vec<Heal>,
    /// How often each kind was done. Processes that were killed count one by one.
    pub(crate) done: BTreeMap<Kind, usize>,
    pub(crate) kills: usize,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(stand: &'a Stand, options: &Options) -> Self {
        let rng = Rng::with_seed(options.seed);
        let (deck, heals, done) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { stand, rng, deck, heals, done, kills: 0 }
    }

    /// Runs for this long, then repairs everything.
    pub(crate) fn run(&mut self, crew: &mut Crew, long: Duration) {
        let end = Instant::now() + long;
        loop {
            // From 2 to 10 s, more often short than long.
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
        let deck = if self.stand.cluster().is_some() { CLUSTER_DECK } else { DECK };
        draw(&mut self.deck, deck, &mut self.rng)
    }

    /// Watches all processes until a moment.
    fn attend(&mut self, crew: &mut Crew, until: Instant) {
        while Instant::now() < until {
            self.heal(crew, false);
            crew.tend(self.stand);
            if self.stand.cluster().is_none() {
                self.stand.sample();
            }
            pause(INTERVAL.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Repairs what is due, or everything.
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
                    place.proxy.iter().for_each(FaultProxy::sever);
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
            Kind::ConnectionsKilled => self.server("connections killed", |stand| {
                stand.on_each(&["CLIENT", "KILL", "TYPE", "normal"]);
            }),
            // This breaks nothing, and so excuses nothing.
            Kind::ScriptsFlushed => self.stand.on_each(&["SCRIPT", "FLUSH", "SYNC"]),
            other => self.act_on_single(other, crew),
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

    fn freeze(&mut self, crew: &mut Crew) {
        let Some(place) = self.choose(crew) else { return };
        let due = Instant::now() + self.leases(0.5, 3.0);
        let worker = &crew.places[place].worker;
        let fault = self.stand.broken(&Disturbance::Freeze { pid: worker.pid() });
        worker.freeze();
        self.later(crew, Heal { due, place, fault, how: How::Thaw });
    }

    fn later(&mut self, crew: &mut Crew, heal: Heal) {
        crew.places[heal.place].busy = true;
        self.heals.push(heal);
    }

    /// Does something to the server, which is repaired when this returns.
    fn server(&self, what: &str, act: impl FnOnce(&Stand)) {
        let fault = self.stand.broken(&Disturbance::Server { what: what.to_owned() });
        act(self.stand);
        self.stand.mended(fault);
    }
}

/// The next kind of a deck. When the deck is empty, it is filled again in another order.
fn draw(deck: &mut Vec<Kind>, full: &[(Kind, usize)], rng: &mut Rng) -> Kind {
    if deck.is_empty() {
        deck.extend(full.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)));
        rng.shuffle(deck);
    }
    deck.pop().expect("it was filled")
}

/// Lets time pass: what is broken stays broken.
fn pause(long: Duration) {
    poll(long, || None::<()>);
}
