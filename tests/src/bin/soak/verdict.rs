//! The result of the histories, and how it is reported.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::json;
use streamjobs_tests::check::{Breach, Cause, check};
use streamjobs_tests::history::{self, Deed, Fate, Line};

use crate::crew::Crew;
use crate::nemesis::{Kind, Nemesis};
use crate::options::{Group, Options, TERMS};
use crate::stand::{Servers, Stand};

/// How many breaches are reported in full.
const TOLD: usize = 20;

/// How long nearly every recovery may take, in addition to a lease and a claim interval.
const SLACK: Duration = Duration::from_secs(1);

/// The result of the whole soak.
#[derive(Default)]
pub(crate) struct Verdict {
    jobs: usize,
    unconfirmed_done: usize,
    runs: usize,
    letters_expected: usize,
    /// How many of the dead letters belong to jobs that died with five processes in a row.
    died_out: usize,
    letters_stored: usize,
    effects: usize,
    extra: BTreeMap<Cause, usize>,
    recoveries: Vec<Duration>,
    breaches: Vec<Breach>,
    /// Jobs that a failover lost, each with its entry and its partition.
    taken: Vec<String>,
    /// How much is left in the partitions.
    left: usize,
    partitions: Option<u16>,
    /// The jobs of the first breaches, and what was broken around them.
    stories: Vec<String>,
    done: BTreeMap<Kind, usize>,
    kills: usize,
    seed: u64,
    minutes: f64,
}

impl Verdict {
    /// Reads all histories and compares them with what the servers hold.
    pub(crate) fn reach(
        stand: &Stand,
        nemesis: &Nemesis<'_>,
        crew: &Crew,
        options: &Options,
    ) -> Self {
        let mut verdict = Self {
            done: nemesis.done.clone(),
            kills: nemesis.kills,
            seed: options.seed,
            minutes: options.minutes,
            partitions: options.partitions,
            ..Self::default()
        };
        for group in stand.groups {
            verdict.add(stand, group);
        }
        verdict.recoveries.sort_unstable();
        let most = TERMS.lease + TERMS.lease * 2 / 5 + SLACK;
        if verdict.recovery(99) > most {
            let text = format!("of 100 recoveries more than one took longer than {most:?}");
            verdict.breaches.push(Breach { invariant: "recovery", text });
        }
        for deserter in &crew.deserters {
            let text = format!("ended by itself: {deserter}");
            verdict.breaches.push(Breach { invariant: "deserted", text });
        }
        verdict
    }

    fn add(&mut self, stand: &Stand, group: &Group) {
        let lines = history::read(&stand.folder_of(group)).unwrap();
        let truth = stand.truth(group, &lines);
        let finding = check(&lines, &truth, &group.terms());
        self.jobs += finding.published;
        self.unconfirmed_done += finding.recovered;
        self.runs += finding.runs;
        self.letters_expected += rejected(&lines, &finding.declared) + finding.died_out;
        self.died_out += finding.died_out;
        let letters = truth.letters.iter().map(|(job, _)| job.as_str()).collect::<HashSet<_>>();
        self.letters_stored += letters.len();
        self.effects += truth.effects.as_ref().map_or(0, |effects| effects.len());
        for (cause, count) in finding.extra {
            *self.extra.entry(cause).or_default() += count;
        }
        self.recoveries.extend(finding.recoveries);
        self.left += truth.unfinished;
        let taken = lines.iter().filter_map(|line| match &line.deed {
            Deed::Stored { job, stream, entry } if finding.declared.contains(job) => {
                Some(format!("{job}, which was entry {entry} of {stream}"))
            }
            _ => None,
        });
        self.taken.extend(taken);
        let left = TOLD.saturating_sub(self.stories.len());
        self.stories.extend(finding.breaches.iter().take(left).map(|b| story(b, group, &lines)));
        self.breaches.extend(finding.breaches);
    }

    /// Whether everything was as promised.
    pub(crate) fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }

    /// The time within which this many of a hundred recoveries were done.
    fn recovery(&self, hundredths: usize) -> Duration {
        let rank = (self.recoveries.len() * hundredths).div_ceil(100);
        self.recoveries.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn broken(&self, invariant: &str) -> usize {
        self.breaches.iter().filter(|breach| breach.invariant == invariant).count()
    }

    fn times(&self, kind: Kind) -> usize {
        self.done.get(&kind).copied().unwrap_or_default()
    }

    /// Prints the breaches and their jobs, one line of JSON, and one sentence.
    pub(crate) fn print(&self, stand: &Stand) {
        for breach in self.breaches.iter().take(TOLD) {
            println!("breach: {}: {}", breach.invariant, breach.text);
        }
        for story in &self.stories {
            println!("{story}");
        }
        for taken in self.taken.iter().take(TOLD) {
            println!("lost by a failover: {taken}");
        }
        let (redis, postgres) = versions(stand);
        let named =
            |(cause, count): (&Cause, &usize)| (format!("{cause:?}").to_lowercase(), *count);
        let extra = self.extra.iter().map(named).collect::<BTreeMap<_, _>>();
        let faults = self.done.iter().map(|(kind, count)| (format!("{kind:?}"), *count));
        let mut line = json!({
            "jobs": self.jobs,
            "runs": self.runs,
            "unconfirmed_done": self.unconfirmed_done,
            "kills": self.kills,
            "redis_restarts": self.times(Kind::RedisRestart),
            "failovers": self.times(Kind::Failover),
            "faults": faults.collect::<BTreeMap<_, _>>(),
            "lost": self.broken("lost"),
            "unexpected": self.broken("unexpected"),
            "effects": self.effects,
            "effects_not_one": self.broken("effects"),
            "dead_letters_expected": self.letters_expected,
            "dead_letters_of_crashes": self.died_out,
            "dead_letters_stored": self.letters_stored,
            "stolen": self.broken("stolen"),
            "extra_runs": extra,
            "recoveries": self.recoveries.len(),
            "recovery_p50_ms": milliseconds(self.recovery(50)),
            "recovery_p99_ms": milliseconds(self.recovery(99)),
            "recovery_max_ms": milliseconds(self.recovery(100)),
            "breaches": self.breaches.len(),
            "minutes": self.minutes,
            "seed": self.seed,
            "streamjobs": env!("CARGO_PKG_VERSION"),
            "redis": redis,
            "postgres": postgres,
        });
        if let Some(partitions) = self.partitions {
            line["partitions"] = json!(partitions);
            line["reshards"] = json!(self.reshards());
            line["failovers"] = json!(self.times(Kind::FailoverByHand));
            line["masters_killed"] = json!(self.masters_killed());
            line["masters_frozen"] = json!(self.times(Kind::MasterFrozen));
            line["lost_by_failover"] = json!(self.taken.len());
            line["masters_slow"] = json!(self.times(Kind::MasterSlow));
            line["left"] = json!(self.left);
        }
        println!("{line}");
        println!("{}", self.sentence());
    }

    fn reshards(&self) -> usize {
        self.times(Kind::Reshard) + self.times(Kind::ReshardAtOnce)
    }

    fn masters_killed(&self) -> usize {
        self.times(Kind::MasterKilled) + self.times(Kind::MasterKilledAhead)
    }

    fn sentence(&self) -> String {
        let Self { jobs, kills, seed, .. } = self;
        let what = match self.partitions {
            Some(partitions) => format!(
                "{jobs} jobs in {partitions} partitions through {kills} kills of processes, {} of \
                 masters, {} failovers by hand and {} reshards, {} lost by failovers",
                self.masters_killed(),
                self.times(Kind::FailoverByHand),
                self.reshards(),
                self.taken.len(),
            ),
            None => format!(
                "{jobs} jobs through {kills} kills, {} Redis restarts and {} failovers",
                self.times(Kind::RedisRestart),
                self.times(Kind::Failover),
            ),
        };
        if !self.is_clean() {
            return format!("{what}: {} breaches (seed {seed}).", self.breaches.len());
        }
        let bound = 3.0 / *jobs as f64;
        let but = if self.taken.is_empty() { "" } else { " otherwise" };
        format!(
            "{what}: none lost{but}, none with other than one effect, no run unexplained; with 95 % \
             confidence the rate of loss is below 3/n = {bound:.1e} (seed {seed})."
        )
    }
}

/// Confirmed jobs that were meant to be rejected, without those that a failover lost.
fn rejected(lines: &[Line], taken: &[String]) -> usize {
    let mut wanted = HashSet::new();
    let mut confirmed = HashSet::new();
    for line in lines {
        match &line.deed {
            Deed::Tried { job, fate: Fate::Rejected } => {
                wanted.insert(job);
            }
            Deed::Published { job } | Deed::Stored { job, .. } if wanted.contains(job) => {
                confirmed.insert(job);
            }
            _ => {}
        }
    }
    confirmed.len() - taken.iter().filter(|job| confirmed.contains(job)).count()
}

/// Everything that was written about the jobs of a breach, and what was broken within two leases of
/// it.
fn story(breach: &Breach, group: &Group, lines: &[Line]) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let words = breach.text.split(|letter| !is_word(letter));
    let jobs = words.filter(|word| is_job(word, group)).collect::<HashSet<_>>();
    let about = |line: &&Line| job_of(&line.deed).is_some_and(|job| jobs.contains(job));
    let own = lines.iter().filter(about).collect::<Vec<_>>();
    let (Some(first), Some(last)) = (own.first(), own.last()) else { return String::new() };
    let around = u64::try_from(2 * TERMS.lease.as_nanos()).unwrap_or(u64::MAX);
    let (from, to) = (first.at.saturating_sub(around), last.at.saturating_add(around));
    let told = lines.iter().filter(|line| {
        let fault = matches!(
            line.deed,
            Deed::Broken { .. } | Deed::Mended { .. } | Deed::Ready { .. } | Deed::Stopped { .. }
        );
        (fault && (from..=to).contains(&line.at)) || about(line)
    });
    let told = told.map(|line| {
        let at = Duration::from_nanos(line.at.saturating_sub(first.at)).as_millis();
        let before = Duration::from_nanos(first.at.saturating_sub(line.at)).as_millis();
        format!("\n  {at:>6} ms -{before} {} {:?}", line.pid, line.deed)
    });
    format!("story of {}: {}", breach.invariant, told.collect::<String>())
}

fn is_job(word: &str, group: &Group) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|one| one.is_ascii_digit());
    let parts = word.strip_prefix(group.letter).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(producer, number)| digits(producer) && digits(number))
}

fn job_of(deed: &Deed) -> Option<&str> {
    match deed {
        Deed::Tried { job, .. }
        | Deed::Published { job }
        | Deed::Stored { job, .. }
        | Deed::Unconfirmed { job }
        | Deed::Refused { job } => Some(job),
        Deed::Started(attempt) | Deed::Ended { attempt, .. } => Some(&attempt.job),
        _ => None,
    }
}

/// The versions of Redis and of Postgres, if there is one.
fn versions(stand: &Stand) -> (Option<String>, Option<String>) {
    let single = match &stand.servers {
        Servers::Single(single) => single,
        Servers::Cluster(cluster) => return (cluster.version(), None),
    };
    let redis = single.pair().primary.info("redis_version");
    let postgres = single.executor.block_on(async {
        let pool = single.database.admin_pool();
        sqlx::query_scalar::<_, String>("SHOW server_version").fetch_one(&pool).await.unwrap()
    });
    (redis, Some(postgres))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
