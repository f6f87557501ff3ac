//! The processes that work, each behind a proxy of its own, and the processes that replace them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use streamjobs_tests::history::Disturbance;
use streamjobs_tests::process::{Worker, is_running};
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::options::{Group, SLOW_LINK, TERMS};
use crate::stand::{Servers, Stand};

/// How long a process may take until it works, on a machine that is busy with other things.
const READY: Duration = Duration::from_secs(30);

/// How long a stop may take. Its own grace is 5 s.
const STOPPED: Duration = Duration::from_secs(40);

/// How often a process looks for due retries in each partition, in milliseconds.
const PROMOTE_MS: &str = "500";

/// What a process prints before the name of its consumer.
const CONSUMER: &str = "consumer ";

/// One place, in which one process works at a time.
pub(crate) struct Place {
    pub(crate) group: &'static Group,
    /// The proxy between the place and a single server.
    pub(crate) proxy: Option<FaultProxy>,
    /// What its proxy does when nothing is broken.
    pub(crate) usual: Mode,
    pub(crate) worker: Worker,
    /// Whether the nemesis is at work here and has something to heal.
    pub(crate) busy: bool,
}

/// All processes that work, and those that are leaving.
pub(crate) struct Crew {
    pub(crate) places: Vec<Place>,
    leaving: Vec<Worker>,
    /// What processes printed that ended by themselves.
    pub(crate) deserters: Vec<String>,
}

impl Crew {
    /// Fills all places.
    pub(crate) fn start(stand: &Stand) -> Self {
        let mut places = Vec::new();
        for group in stand.groups {
            for _ in 0..group.workers {
                let proxy = proxy(stand);
                let usual = if places.is_empty() { Mode::Limit(SLOW_LINK) } else { Mode::Pass };
                if let Some(proxy) = &proxy {
                    proxy.set(usual.clone());
                }
                let worker = hire(stand, group, proxy.as_ref());
                places.push(Place { group, proxy, usual, worker, busy: false });
            }
        }
        let crew = Self { places, leaving: Vec::new(), deserters: Vec::new() };
        for place in &crew.places {
            place.worker.wait_for(|line| line == "ready", READY);
        }
        crew
    }

    /// Ends the process in a place at once and starts another one there.
    pub(crate) fn kill(&mut self, stand: &Stand, at: usize) {
        let place = &mut self.places[at];
        stand.broken(&Disturbance::Kill { pid: place.worker.pid() });
        place.worker.kill();
        place.replace(stand);
    }

    /// Asks the process in a place to stop, and starts another one there meanwhile.
    pub(crate) fn roll(&mut self, stand: &Stand, at: usize) {
        let place = &mut self.places[at];
        stand.broken(&Disturbance::Stop { pid: place.worker.pid() });
        place.worker.terminate();
        let old = place.replace(stand);
        self.leaving.push(old);
    }

    /// Notes processes that ended by themselves, fills their places, and forgets processes that
    /// have left.
    pub(crate) fn tend(&mut self, stand: &Stand) {
        self.leaving.retain(|worker| is_running(worker.pid()));
        for place in &mut self.places {
            if !is_running(place.worker.pid()) {
                self.deserters.push(format!("{}: {:?}", place.group.name, place.worker));
                stand.broken(&Disturbance::Kill { pid: place.worker.pid() });
                place.replace(stand);
            }
        }
    }

    /// All proxies of workers, with what they do when nothing is broken.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = (&FaultProxy, &Mode)> {
        self.places.iter().filter_map(|place| Some((place.proxy.as_ref()?, &place.usual)))
    }

    /// Asks all to stop and waits until they have.
    pub(crate) fn stop(&mut self) {
        for place in &self.places {
            place.worker.terminate();
        }
        let working = self.places.iter_mut().map(|place| &mut place.worker);
        for worker in working.chain(&mut self.leaving) {
            worker.wait(STOPPED);
        }
    }
}

impl Place {
    /// Makes its link work as usual.
    pub(crate) fn pass(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.set(self.usual.clone());
        }
    }

    /// The consumer of its process.
    pub(crate) fn consumer(&self) -> Option<String> {
        self.worker
            .find(|line| line.starts_with(CONSUMER))?
            .strip_prefix(CONSUMER)
            .map(str::to_owned)
    }

    /// Starts another process here and waits until it works. Returns the former one.
    fn replace(&mut self, stand: &Stand) -> Worker {
        self.pass();
        let new = hire(stand, self.group, self.proxy.as_ref());
        new.wait_for(|line| line == "ready", READY);
        std::mem::replace(&mut self.worker, new)
    }
}

/// A proxy for one process, unless there are many servers.
fn proxy(stand: &Stand) -> Option<FaultProxy> {
    match &stand.servers {
        Servers::Single(single) => Some(FaultProxy::start(&single.pair().primary).unwrap()),
        Servers::Cluster(_) => None,
    }
}

fn hire(stand: &Stand, group: &Group, proxy: Option<&FaultProxy>) -> Worker {
    let mut builder = Worker::builder(&stand.program)
        .env("PROOF_HISTORY", stand.folder_of(group))
        .env("PROOF_LEASE_MS", TERMS.lease.as_millis().to_string())
        .env("PROOF_VERSION", stand.version.load(Ordering::SeqCst).to_string())
        .env("PROOF_SLOTS", group.slots.to_string());
    if let Some(proxy) = proxy {
        builder = builder.env("PROOF_URL", proxy.url()).env("PROOF_KEY", group.stream);
    }
    if let Some(cluster) = stand.cluster() {
        builder = builder
            .env("PROOF_URL", cluster.url())
            .env("PROOF_PARTITIONS", cluster.partitions.len().to_string())
            .env("PROOF_PROMOTE_MS", PROMOTE_MS);
    }
    if group.is_guarded() {
        builder = builder.env("PROOF_DATABASE_URL", stand.single().database.run_url());
    }
    builder.start().unwrap()
}
