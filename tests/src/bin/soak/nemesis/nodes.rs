//! What happens to the nodes of a cluster, while other things happen to processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use streamjobs_tests::eventually::eventually;
use streamjobs_tests::history::{Disturbance, now};
use streamjobs_tests::server::{RedisCluster, RedisServer};

use super::{Kind, draw, pause};
use crate::cluster::{Cluster, NODE_TIMEOUT};
use crate::options::Options;
use crate::stand::Stand;

/// How often each kind comes before all begin again in another order.
const DECK: &[(Kind, usize)] = &[
    (Kind::Reshard, 12),
    (Kind::ReshardAtOnce, 2),
    (Kind::FailoverByHand, 3),
    (Kind::MasterKilled, 2),
    (Kind::MasterKilledAhead, 2),
    (Kind::MasterFrozen, 3),
];

/// The longest pause between two steps of moving a slot.
const STEP_MAX: Duration = Duration::from_millis(400);

/// How much a replica that takes over may lack.
const AHEAD_MAX: Duration = Duration::from_millis(400);

/// How long nodes that have changed places are left alone. If they change places sooner, Redis may take
/// the votes of the last election for those of the next:
/// `findings/redis-cluster-failover-with-old-votes.sh`.
const REST: Duration = NODE_TIMEOUT.saturating_mul(4);

/// How long it may take until a replica has taken over from a master that died.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// Moves slots and changes masters.
pub(crate) struct Shaker<'a> {
    stand: &'a Stand,
    cluster: &'a Cluster,
    rng: Rng,
    deck: Vec<Kind>,
    /// Which master has which partitions, as far as this struct knows.
    known: BTreeMap<u16, Vec<String>>,
    /// When nodes last changed places, by their ports.
    changed: HashMap<u16, Instant>,
    /// How often each kind was done.
    pub(crate) done: BTreeMap<Kind, usize>,
}

impl<'a> Shaker<'a> {
    /// Creates one for the cluster, if there is one.
    pub(crate) fn new(stand: &'a Stand, options: &Options) -> Option<Self> {
        let cluster = stand.cluster()?;
        // Another order than the one of the processes.
        let rng = Rng::with_seed(!options.seed);
        let known = cluster.by_master();
        let (deck, changed, done) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Some(Self { stand, cluster, rng, deck, known, changed, done })
    }

    /// Runs for this long, then waits until all nodes work.
    pub(crate) fn run(&mut self, long: Duration) {
        let end = Instant::now() + long;
        loop {
            let until = Instant::now() + self.between(0.5, 3.0);
            pause(until.min(end).saturating_duration_since(Instant::now()));
            if until >= end {
                break;
            }
            self.note_replaced();
            let kind = draw(&mut self.deck, DECK, &mut self.rng);
            self.act(kind);
            // A node that comes back believes that it is still what it was.
            self.cluster.await_whole();
            self.known = self.cluster.by_master();
        }
        self.cluster.await_whole();
        self.note_replaced();
    }

    fn act(&mut self, kind: Kind) {
        let done = match kind {
            Kind::Reshard | Kind::ReshardAtOnce => Some(self.reshard(kind)),
            Kind::FailoverByHand => self.fail_over(),
            Kind::MasterKilled | Kind::MasterKilledAhead => self.kill(kind),
            Kind::MasterFrozen => self.freeze(),
            other => panic!("{other:?} is not of a cluster"),
        };
        // If no master has rested, slots move instead.
        let done = done.unwrap_or_else(|| self.reshard(Kind::Reshard));
        *self.done.entry(done).or_default() += 1;
    }

    /// Moves a partition to another master. Returns how it was moved.
    fn reshard(&mut self, wanted: Kind) -> Kind {
        let cluster = self.cluster;
        let stream = self.rng.choice(&cluster.partitions).expect("there are some");
        let (slot, from) = (RedisCluster::slot(stream), cluster.master_of(stream).port());
        let others = cluster.masters().filter(|node| node.port() != from).collect::<Vec<_>>();
        let to = self.rng.choice(others).expect("there are three");
        let pauses = [(); 2].map(|()| STEP_MAX.mul_f64(self.rng.f64()));
        let fault = self.stand.broken(&Disturbance::Move { stream: stream.clone() });
        let at_once = wanted == Kind::ReshardAtOnce
            && cluster.nodes.migrate_atomically(slot..=slot, to).is_some();
        if !at_once {
            cluster.nodes.begin_migration(slot, to);
            pause(pauses[0]);
            cluster.nodes.move_keys(slot, to);
            pause(pauses[1]);
            cluster.nodes.end_migration(slot, to);
        }
        self.stand.mended(fault);
        if at_once { wanted } else { Kind::Reshard }
    }

    /// Makes a replica take over the way an operator does it, which loses nothing.
    fn fail_over(&mut self) -> Option<Kind> {
        let (master, replica) = self.rested()?;
        let fault = self.broken("failover by hand", master, false);
        self.cluster.nodes.fail_over(replica);
        self.stand.mended(fault);
        self.have_changed(master, replica);
        Some(Kind::FailoverByHand)
    }

    /// Kills a master. It comes back as a replica of the one that took over.
    fn kill(&mut self, kind: Kind) -> Option<Kind> {
        let (master, replica) = self.rested()?;
        self.cluster.away.store(master.port(), Ordering::SeqCst);
        let streams = self.known[&master.port()].clone();
        let fault = self.broken("killed", master, true);
        if kind == Kind::MasterKilledAhead {
            // With a password that its master does not accept, it cannot reconnect after this.
            replica.command(&["CONFIG", "SET", "masterauth", "none"]);
            replica.command(&["CLIENT", "KILL", "TYPE", "master"]);
            pause(AHEAD_MAX.mul_f64(self.rng.f64()));
        }
        master.kill();
        let until = now() / 1_000_000;
        replica.command(&["CONFIG", "SET", "masterauth", ""]);
        eventually(TAKEN_OVER, "the replica has taken over", || {
            let is_master = |stream| self.cluster.master_of(stream).port() == replica.port();
            streams.iter().all(|stream| is_master(stream.as_str()))
                && replica.info("role").as_deref() == Some("master")
        });
        self.cluster.note_takeover(streams, until);
        self.stand.mended(fault);
        pause(self.between(0.0, 4.0));
        master.restart().unwrap();
        self.cluster.away.store(0, Ordering::SeqCst);
        self.have_changed(master, replica);
        Some(kind)
    }

    /// Stops a master for less time than the others need to consider it dead.
    fn freeze(&mut self) -> Option<Kind> {
        let (master, _) = self.rested()?;
        let fault = self.broken("frozen", master, false);
        self.cluster.away.store(master.port(), Ordering::SeqCst);
        master.freeze();
        // At most longer than a lease.
        pause(NODE_TIMEOUT.mul_f64(0.5_f64.mul_add(self.rng.f64(), 0.1)));
        master.thaw();
        self.cluster.await_whole();
        self.cluster.away.store(0, Ordering::SeqCst);
        self.stand.mended(fault);
        Some(Kind::MasterFrozen)
    }

    /// A master of some partitions and its replica, if neither has changed places for a while.
    fn rested(&mut self) -> Option<(&'a RedisServer, &'a RedisServer)> {
        let rested = |port: &u16| self.changed.get(port).is_none_or(|at| at.elapsed() > REST);
        let masters = self.known.keys().filter(|port| rested(port)).copied().collect::<Vec<_>>();
        let port = self.rng.choice(masters)?;
        let mut nodes = self.cluster.nodes.nodes().iter();
        let master = nodes.find(|node| node.port() == port).expect("it is of this cluster");
        let replica = self.cluster.replica_of(master)?;
        let changed = self.changed.get(&replica.port());
        changed.is_none_or(|at| at.elapsed() > REST).then_some((master, replica))
    }

    /// Notes masters that were replaced although nothing was done to them.
    fn note_replaced(&mut self) {
        let now = self.cluster.by_master();
        for (port, streams) in self.known.iter().filter(|(port, _)| !now.contains_key(port)) {
            println!("soak: the master on port {port} was replaced, though it was well");
            let (what, streams) = ("replaced".to_owned(), streams.clone());
            let fault = Disturbance::Master { what, streams, loses: true };
            self.stand.mended(self.stand.broken(&fault));
            *self.done.entry(Kind::MasterReplaced).or_default() += 1;
        }
        self.known = now;
    }

    fn broken(&self, what: &str, master: &RedisServer, loses: bool) -> u64 {
        let (what, streams) = (what.to_owned(), self.known[&master.port()].clone());
        self.stand.broken(&Disturbance::Master { what, streams, loses })
    }

    fn have_changed(&mut self, one: &RedisServer, other: &RedisServer) {
        self.changed.extend([one, other].map(|node| (node.port(), Instant::now())));
    }

    /// A few seconds, at random.
    fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64((most - least).mul_add(self.rng.f64(), least))
    }
}
