//! A history, sorted by job.

use std::collections::HashMap;

use crate::history::{Attempt, Deed, Disturbance, Fate, How, Line};

/// What is known about one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Job {
    /// What was meant to become of it: `None` if it was not published.
    pub(super) fate: Option<Fate>,
    /// Whether the server confirmed it.
    pub(super) published: bool,
    /// The partition that has it, if the stream has several.
    pub(super) stream: Option<String>,
    /// How often a producer got no answer, and may have published it once more.
    pub(super) unconfirmed: usize,
    /// Whether the server refused it and never stored it.
    pub(super) refused: bool,
    /// Its runs, in the order in which they began.
    pub(super) runs: Vec<Run>,
}

impl Job {
    /// Whether a handler reported that it did the job.
    pub(super) fn is_done(&self) -> bool {
        self.runs.iter().any(|run| run.how() == Some(How::Ok))
    }

    /// Whether an entry of it was delivered as often as allowed, and no run of that entry came to
    /// its end. A run that was done and yet delivered again did not, because its end was not stored.
    /// The rule of extra runs asks why it was not.
    pub(super) fn died_out(&self, max_deliveries: u64) -> bool {
        let last = self.runs.iter().filter(|run| run.attempt.count >= max_deliveries);
        last.map(|run| &run.attempt.entry).any(|entry| {
            let mut of_entry = self.runs.iter().filter(|run| run.attempt.entry == *entry);
            let at_last = of_entry.next_back().and_then(Run::how);
            let open = |how| matches!(how, None | Some(How::Dropped));
            open(at_last) && of_entry.map(Run::how).all(|how| open(how) || how == Some(How::Ok))
        })
    }
}

/// One run of a handler.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What ran.
    pub(super) attempt: Attempt,
    /// The process in which it ran.
    pub(super) pid: u32,
    /// When it began.
    pub(super) began: u64,
    /// When and how it ended, if that was reported.
    pub(super) end: Option<(u64, How)>,
}

impl Run {
    /// How it ended, if that was reported.
    pub(super) fn how(&self) -> Option<How> {
        self.end.map(|(_, how)| how)
    }
}

/// Something that was broken for a while.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Its number.
    pub(super) number: u64,
    /// What it was.
    pub(super) what: Disturbance,
    /// When it began.
    pub(super) from: u64,
    /// When it was repaired: never, for a process that is gone.
    pub(super) to: u64,
}

impl Fault {
    /// Whether it lasted into a span of time.
    pub(super) fn touches(&self, from: u64, to: u64) -> bool {
        self.from <= to && from <= self.to
    }

    /// Whether it may cause the entry of a run to get a delivery count that it had before.
    pub(super) fn lowers_counts(&self, run: &Run) -> bool {
        match self.what {
            Disturbance::Stop { pid } => pid == run.pid,
            Disturbance::Server { .. } => true,
            Disturbance::Master { .. } => self.concerns(run),
            _ => false,
        }
    }

    /// Whether it may make a server forget that it delivered the entry of a run.
    pub(super) fn forgets(&self, run: &Run) -> bool {
        matches!(self.what, Disturbance::Master { loses: true, .. }) && self.concerns(run)
    }

    /// Whether a job can run once more because of it. The move of a slot can cause that only if it
    /// took longer than two thirds of the lease, in which no entry of the slot could be renewed.
    pub(super) fn repeats(&self, lease: u64) -> bool {
        let is_move = matches!(self.what, Disturbance::Move { .. });
        !is_move || self.to.saturating_sub(self.from) > lease / 3 * 2
    }

    /// Whether it is a fault of the process of a run, or of a server that has the run's job.
    pub(super) fn concerns(&self, run: &Run) -> bool {
        match &self.what {
            Disturbance::Master { streams, .. } => streams.contains(&run.attempt.stream),
            Disturbance::Move { stream } => *stream == run.attempt.stream,
            _ => self.pid().is_none_or(|pid| pid == run.pid),
        }
    }

    /// The process that it concerns, if it concerns only one.
    pub(super) fn pid(&self) -> Option<u32> {
        match self.what {
            Disturbance::Kill { pid }
            | Disturbance::Freeze { pid }
            | Disturbance::Stop { pid }
            | Disturbance::Link { pid }
            | Disturbance::Panic { pid } => Some(pid),
            Disturbance::Server { .. }
            | Disturbance::Master { .. }
            | Disturbance::Move { .. }
            | Disturbance::Database => None,
        }
    }
}

/// A history, by jobs and by faults.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// All jobs, by their event ids.
    pub(super) jobs: HashMap<String, Job>,
    /// When each process was ready.
    ready: HashMap<u32, u64>,
    /// All faults, in the order in which they began.
    pub(super) faults: Vec<Fault>,
}

impl Account {
    /// Sorts a history, whose lines are in the order of their times.
    pub(super) fn of(history: &[Line]) -> Self {
        let mut account = Self::default();
        let mut open = HashMap::new();
        for Line { at, pid, deed } in history {
            match deed {
                Deed::Tried { job, fate } => account.job(job).fate = Some(*fate),
                Deed::Published { job } => account.job(job).published = true,
                Deed::Stored { job, stream, .. } => {
                    account.job(job).published = true;
                    account.job(job).stream = Some(stream.clone());
                }
                Deed::Refused { job } => account.job(job).refused = true,
                Deed::Unconfirmed { job } => account.job(job).unconfirmed += 1,
                Deed::Stopped { .. } => {}
                Deed::Ready { .. } => {
                    account.ready.insert(*pid, *at);
                }
                Deed::Started(attempt) => {
                    let runs = &mut account.job(&attempt.job).runs;
                    open.insert((*pid, attempt.clone()), runs.len());
                    let attempt = attempt.clone();
                    runs.push(Run { attempt, pid: *pid, began: *at, end: None });
                }
                Deed::Ended { attempt, how } => {
                    let place = open.remove(&(*pid, attempt.clone()));
                    let runs = &mut account.job(&attempt.job).runs;
                    if let Some(run) = place.and_then(|place| runs.get_mut(place)) {
                        run.end = Some((*at, *how));
                    }
                }
                Deed::Broken { fault, what } => {
                    let (number, what) = (*fault, what.clone());
                    account.faults.push(Fault { number, what, from: *at, to: u64::MAX });
                }
                Deed::Mended { fault } => {
                    let of = |known: &&mut Fault| known.number == *fault;
                    if let Some(known) = account.faults.iter_mut().rev().find(of) {
                        known.to = *at;
                    }
                }
            }
        }
        account
    }

    fn job(&mut self, id: &str) -> &mut Job {
        self.jobs.entry(id.to_owned()).or_default()
    }

    /// Faults that lasted into a span of time.
    pub(super) fn touching(&self, from: u64, to: u64) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |fault| fault.touches(from, to))
    }

    /// How many steps inside of processes had panicked by then.
    pub(super) fn panics_before(&self, at: u64) -> usize {
        let panicked =
            |fault: &&Fault| matches!(fault.what, Disturbance::Panic { .. }) && fault.from <= at;
        self.faults.iter().filter(panicked).count()
    }

    /// When a process was ready.
    pub(super) fn ready(&self, pid: u32) -> u64 {
        self.ready.get(&pid).copied().unwrap_or_default()
    }

    /// Confirmed jobs.
    pub(super) fn published(&self) -> usize {
        self.jobs.values().filter(|job| job.published).count()
    }

    /// Unconfirmed jobs that were done all the same.
    pub(super) fn recovered(&self) -> usize {
        self.jobs.values().filter(|job| !job.published && !job.runs.is_empty()).count()
    }

    /// All runs of all jobs.
    pub(super) fn runs(&self) -> usize {
        self.jobs.values().map(|job| job.runs.len()).sum()
    }
}
