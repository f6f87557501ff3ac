//! The options on the soak's command line, and its own settings.

use std::time::Duration;

use streamjobs_tests::check::Terms;

/// How it is called.
pub(crate) const USAGE: &str = "usage: cargo soak [--minutes n] [--seed n] [--rate jobs-a-second] \
                                [--cluster] [--partitions n]";

/// The settings of the groups; the slots are those of the group without a database.
pub(crate) const TERMS: Terms = Terms {
    lease: Duration::from_secs(2),
    slots: 200,
    max_attempts: 5,
    max_deliveries: 5,
    // The servers, six processes and the producers share the machine. The verdict compares what
    // nearly all recoveries take with one second.
    slack: Duration::from_secs(5),
};

/// A group, the stream that only it reads, and the processes that work for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) stream: &'static str,
    /// The letter with which the ids of its events begin.
    pub(crate) letter: char,
    /// How many processes work for it.
    pub(crate) workers: usize,
    /// The slots of each process.
    pub(crate) slots: usize,
    /// How many of 10,000 jobs take up to two leases.
    pub(crate) long: u32,
    /// How many threads publish for it.
    pub(crate) producers: u32,
    /// How many jobs are published at once at most.
    pub(crate) batch: usize,
    /// Its share of all jobs, in percent.
    pub(crate) share: u32,
}

/// Jobs a second on one server.
const RATE: u32 = 2_200;

/// Jobs a second on a cluster, whose six nodes share the machine with all others.
const CLUSTER_RATE: u32 = 1_000;

/// How many partitions a stream on a cluster has.
const PARTITIONS: u16 = 48;

/// Bytes a second on the link of the first process, in each direction.
pub(crate) const SLOW_LINK: u32 = 2_500_000;

impl Group {
    /// The settings of its processes.
    pub(crate) fn terms(&self) -> Terms {
        Terms { slots: self.slots, ..TERMS }
    }

    /// Whether it writes its effects to the database.
    pub(crate) fn is_guarded(&self) -> bool {
        self.name == "guarded"
    }
}

/// A group without a database for most of the jobs, and a group whose effects can be counted.
pub(crate) static GROUPS: [Group; 2] = [
    Group {
        name: "plain",
        stream: "orders",
        letter: 'p',
        workers: 4,
        slots: TERMS.slots,
        long: 1_500,
        producers: 2,
        batch: 100,
        share: 94,
    },
    Group {
        name: "guarded",
        stream: "payments",
        letter: 'g',
        workers: 2,
        // Its jobs hold connections to the database while they run.
        slots: 32,
        long: 15,
        producers: 2,
        batch: 1,
        share: 6,
    },
];

/// The group on a cluster, which reads all partitions of its stream.
pub(crate) static CLUSTER_GROUPS: [Group; 1] = [Group {
    name: "plain",
    stream: "orders",
    letter: 'c',
    workers: 4,
    slots: TERMS.slots,
    long: 1_500,
    producers: 2,
    batch: 100,
    share: 100,
}];

/// What the user can choose.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) minutes: f64,
    pub(crate) seed: u64,
    /// How many jobs are published per second.
    pub(crate) rate: u32,
    /// Over how many partitions of a cluster the stream is spread; `None` without a cluster.
    pub(crate) partitions: Option<u16>,
}

impl Options {
    /// Reads the command line; an error says what is wrong with it.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut rate, mut cluster, mut partitions) = (None, false, None);
        let seed = fastrand::u64(..1_000_000);
        let mut options = Self { minutes: 1.0, seed, rate: RATE, partitions: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--minutes" => options.minutes = number(&word, &value()?)?,
                "--seed" => options.seed = number(&word, &value()?)?,
                "--rate" => rate = Some(number(&word, &value()?)?),
                "--cluster" => cluster = true,
                "--partitions" => partitions = Some(number(&word, &value()?)?),
                _ => return Err(format!("there is no {word}")),
            }
        }
        if partitions.is_some() && !cluster {
            return Err("partitions are those of a --cluster".to_owned());
        }
        options.partitions = cluster.then(|| partitions.unwrap_or(PARTITIONS));
        options.rate = rate.unwrap_or(if cluster { CLUSTER_RATE } else { RATE });
        let sane = options.minutes > 0.0 && options.minutes <= 24.0 * 60.0;
        if sane { Ok(options) } else { Err("minutes are between 0 and a day".to_owned()) }
    }

    /// For how long things are broken.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

fn number<T: std::str::FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{word} {value} is no number"))
}
