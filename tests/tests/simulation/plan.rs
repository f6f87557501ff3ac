//! What one seed decides before anything runs: settings, jobs, and what happens to them when.

use std::time::Duration;

use fastrand::Rng;

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing but what handlers do.
    Calm,
    /// Processes stop and die; the server and the ways to it are sound.
    Crashes,
    /// Everything.
    Storm,
}

/// What happens to the whole at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publishes the next job, this many times under one event id.
    Publish { copies: usize },
    /// A new process.
    Start,
    /// The oldest running process is asked to stop.
    Stop,
    /// A process dies at once.
    Kill,
    /// A process dies at its call after so many more.
    KillAtCall(u32),
    /// A process does not reach the server for so many tenths of a lease.
    Part { tenths: u32 },
    /// The server is not there.
    Outage { tenths: u32 },
    /// The server holds every call back, and goes on with them later.
    Freeze { tenths: u32 },
    /// The server's clock moves.
    StepClock { tenths: i32 },
    /// The first group is destroyed under everybody.
    DestroyGroup,
    /// Everything is deleted.
    Flush,
    /// The oldest entries go, done or not.
    Trim,
}

/// What a handler does with one run of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Fine,
    Error,
    Permanent,
    Later,
    Panic,
    /// Takes so many tenths of a lease.
    Slow(u32),
    /// Does not end by itself.
    Never,
    /// Goes on as if it had not been told to stop, for so many tenths of a lease.
    Deaf(u32),
}

/// What the groups ask of their jobs over all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// An order for each key, in which a retry keeps the others waiting.
    Block,
    /// An order for each key, in which a retry lets the others pass.
    Skip,
    /// So many jobs of a key at once.
    PerKey(u32),
    /// So many jobs at once.
    Total(u32),
    /// Fair shares of the keys.
    Fair,
}

/// Everything that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub weather: Weather,
    pub lease: Duration,
    pub concurrency: u32,
    pub attempts_max: u32,
    pub deliveries_max: u32,
    pub backoff: Duration,
    pub groups: usize,
    pub limits: Option<Limits>,
    /// Whether the groups of a process share as many slots as each would have otherwise.
    pub shares_slots: bool,
    /// Calls in ten thousand that meet a fault.
    pub faulty: u32,
    pub actions: Vec<(Duration, Action)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let weather = match rng.u32(0..10) {
            0..=1 => Weather::Calm,
            2..=3 => Weather::Crashes,
            _ => Weather::Storm,
        };
        let lease = Duration::from_millis([600, 1_000, 3_000, 10_000][rng.usize(0..4)]);
        let mut plan = Self {
            seed,
            weather,
            lease,
            concurrency: rng.u32(1..=4),
            attempts_max: rng.u32(1..=4),
            deliveries_max: rng.u32(3..=6),
            backoff: lease / 10 * rng.u32(0..=20),
            groups: rng.usize(1..=GROUPS.len()),
            limits: Limits::of(seed),
            // Drawn apart as well.
            shares_slots: Rng::with_seed(seed ^ 0x0073_6c6f_7473).u32(0..10) < 3,
            faulty: if weather == Weather::Storm { rng.u32(0..=300) } else { 0 },
            actions: Vec::new(),
        };
        for _ in 0..rng.u32(1..=3) {
            plan.actions.push((Duration::ZERO, Action::Start));
        }
        let span = lease * HORIZON;
        let mut at = |count: u32, action: &mut dyn FnMut(&mut Rng) -> Action| {
            for _ in 0..count {
                let when = span.mul_f64(rng.f64());
                let action = action(&mut rng);
                plan.actions.push((when, action));
            }
        };
        at(25, &mut |rng| Action::Publish { copies: if rng.u32(0..10) == 0 { 2 } else { 1 } });
        if weather != Weather::Calm {
            at(4, &mut |_| Action::Start);
            at(5, &mut process_fault);
        }
        if weather == Weather::Storm {
            at(4, &mut server_fault);
        }
        plan.actions.sort_by_key(|(when, _)| *when);
        plan
    }

    /// What the given run of a job does, the first being number zero.
    pub fn behaviour(&self, group: usize, event: u64, run: u64) -> Behaviour {
        let salt = (event << 20) ^ (run << 4) ^ group as u64;
        let mut rng = Rng::with_seed(self.seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match rng.u32(0..100) {
            0..=54 => Behaviour::Fine,
            55..=66 => Behaviour::Error,
            67..=69 => Behaviour::Permanent,
            70..=72 => Behaviour::Later,
            73..=76 => Behaviour::Panic,
            77..=88 => Behaviour::Slow(rng.u32(1..=8)),
            89..=93 => Behaviour::Slow(rng.u32(10..=25)),
            94..=96 => Behaviour::Never,
            _ => Behaviour::Deaf(rng.u32(5..=40)),
        }
    }

    /// How long a handler may run.
    pub fn timeout(&self) -> Duration {
        self.lease * 3
    }

    /// A number of tenths of a lease.
    pub fn tenths(&self, tenths: u32) -> Duration {
        self.lease / 10 * tenths
    }

    /// Whether jobs begin in the order in which they were published.
    pub fn is_ordered(&self) -> bool {
        let starts = self.actions.iter().filter(|(_, action)| *action == Action::Start);
        let calm = self.weather == Weather::Calm && self.limits.is_none();
        calm && self.concurrency == 1 && starts.count() == 1
    }
}

impl Limits {
    /// Four seeds in ten have none. Drawn apart, so that a seed decides the same about everything else.
    fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::with_seed(seed ^ 0x6c69_6d69_7473);
        match rng.u32(0..10) {
            0..=1 => Some(Self::Block),
            2 => Some(Self::Skip),
            3 => Some(Self::PerKey(rng.u32(1..=3))),
            4 => Some(Self::Total(rng.u32(1..=3))),
            5 => Some(Self::Fair),
            _ => None,
        }
    }
}

/// The key of a job.
pub fn key_of(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

fn process_fault(rng: &mut Rng) -> Action {
    match rng.u32(0..4) {
        0 => Action::Stop,
        1 => Action::Kill,
        _ => Action::KillAtCall(rng.u32(1..=60)),
    }
}

fn server_fault(rng: &mut Rng) -> Action {
    match rng.u32(0..20) {
        0..=4 => Action::Part { tenths: rng.u32(1..=30) },
        5..=8 => Action::Outage { tenths: rng.u32(1..=30) },
        9..=12 => Action::Freeze { tenths: rng.u32(1..=30) },
        13..=15 => Action::StepClock { tenths: rng.i32(-100..=100) },
        16 => Action::DestroyGroup,
        17 => Action::Flush,
        _ => Action::Trim,
    }
}

/// The groups, every one of which gets every job.
pub const GROUPS: [&str; 2] = ["work", "audit"];
pub const STREAM: &str = "orders";
const KEYS: u64 = 3;
/// For how many leases things happen.
const HORIZON: u32 = 12;
