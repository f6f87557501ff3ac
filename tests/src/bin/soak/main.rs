//! The soak: work for minutes, something broken every few seconds, and a check of the whole history.
//!
//! `cargo soak --minutes 10` from the root of the workspace; `docs/soak.md` says what it does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test program reports by its output and its end"
)]

mod cluster;
mod crew;
mod nemesis;
mod options;
mod producers;
mod single;
mod stand;
mod verdict;
mod watch;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{env, thread};

use streamjobs_tests::eventually::poll;

use self::crew::Crew;
use self::nemesis::nodes::Shaker;
use self::nemesis::{Kind, Nemesis};
use self::options::{Options, TERMS};
use self::stand::Stand;

/// How often the backlog of a cluster is sampled.
const SAMPLED: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            println!("{wrong}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    println!("soak: {} minutes, seed {}", options.minutes, options.seed);
    let stand = Stand::new(worker_program(), &options);
    println!("soak: histories in {}", stand.folder().display());
    let begun = Instant::now();
    let mut crew = Crew::start(&stand);
    let mut nemesis = Nemesis::new(&stand, &options);
    let mut shaker = Shaker::new(&stand, &options);
    thread::scope(|scope| {
        // However this ends, producers learn of it.
        let _stop = stand.stop_at_the_end();
        producers::start(scope, &stand, &options);
        let shaking = shaker.as_mut().map(|shaker| {
            scope.spawn(|| stand.sample_until_stopped());
            if let Some(cluster) = stand.cluster() {
                for node in cluster.nodes.nodes() {
                    scope.spawn(|| stand.watch_until_stopped(cluster, node));
                }
            }
            scope.spawn(|| shaker.run(options.duration()))
        });
        nemesis.run(&mut crew, options.duration());
        shaking.into_iter().for_each(|shaking| shaking.join().expect("the cluster obeys"));
    });
    nemesis.done.extend(shaker.map(|shaker| shaker.done).unwrap_or_default());
    if let Some(cluster) = stand.cluster() {
        nemesis.done.insert(Kind::MasterSlow, cluster.slow.load(Ordering::SeqCst));
    }
    let published = begun.elapsed();
    let backlog = stand.backlog();
    let drained = poll(drain_deadline(backlog), || {
        crew.tend(&stand);
        (stand.unfinished() == 0).then_some(())
    });
    if drained.is_none() {
        println!("soak: not drained, {} jobs are unfinished", stand.unfinished());
        for (cluster, group) in stand.cluster().iter().zip(stand.groups) {
            println!("soak: left in partitions: {:?}", cluster.left(group));
        }
    }
    crew.stop();
    println!("soak: published for {published:?}, drained after {:?}", begun.elapsed());
    let verdict = verdict::Verdict::reach(&stand, &nemesis, &crew, &options);
    verdict.print(&stand);
    if verdict.is_clean() {
        stand.forget_histories();
        return ExitCode::SUCCESS;
    }
    println!("soak: histories are kept in {}", stand.folder().display());
    ExitCode::FAILURE
}

/// Three times as long as the jobs of a dead process take to run again, and time for the jobs that
/// wait.
fn drain_deadline(backlog: usize) -> Duration {
    let recovery = TERMS.lease * 7 / 5;
    recovery * 3 + Duration::from_millis(u64::try_from(backlog).unwrap_or(u64::MAX) * 2)
}

/// The worker's program. It is built here, because `cargo run` builds only one program.
fn worker_program() -> PathBuf {
    if let Some(cargo) = env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "streamjobs-tests", "--bin", "proof_worker"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the worker does not build");
    }
    env::current_exe().unwrap().with_file_name("proof_worker")
}

impl Stand {
    fn stop_at_the_end(&self) -> impl Drop + '_ {
        struct Stop<'a>(&'a Stand);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.stopping.store(true, Ordering::SeqCst);
            }
        }
        Stop(self)
    }

    /// Samples how much waits, on a thread of its own if that takes longer than processes may be
    /// left alone.
    fn sample_until_stopped(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            self.sample();
            poll(SAMPLED, || None::<()>);
        }
    }

    fn unfinished(&self) -> usize {
        self.groups.iter().map(|group| self.unfinished_of(group)).sum()
    }
}
