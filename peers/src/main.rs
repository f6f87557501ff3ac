//! Jobs per second of streamjobs and of other job libraries on Redis.
//!
//! `cargo run --release --manifest-path peers/Cargo.toml`. `-- sea` selects the peers whose name
//! begins with "sea"; `-- --rounds 1 --events 10000` runs fewer rounds and jobs. The peers
//! alternate, each measurement on a private server. The table has median, minimum and maximum.

mod job;
mod measure;
mod peers;
mod server;
mod table;
mod versions;

use std::process::ExitCode;
use std::time::Instant;

use self::peers::{Failure, Peer, Work};
use self::server::Server;
use self::table::{Cell, Table};

const SCENARIOS: [(&str, Work); 3] = [
    ("publish", Work::Publish),
    ("drain, 100 at once", Work::Drain(100)),
    ("drain, 1,000 at once", Work::Drain(1_000)),
];

/// The arguments of the command line.
struct Settings {
    only: Option<String>,
    rounds: usize,
    jobs: usize,
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let mut settings = Self { only: None, rounds: 3, jobs: 50_000 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || -> Result<usize, Failure> {
                let number = words.next().and_then(|text| text.parse().ok());
                number.filter(|number| *number > 0).ok_or(format!("{word} takes a number").into())
            };
            match word.as_str() {
                "--rounds" => settings.rounds = number()?,
                "--events" => settings.jobs = number()?,
                _ if word.starts_with('-') => return Err(format!("unknown option {word}").into()),
                _ => settings.only = Some(word),
            }
        }
        Ok(settings)
    }

    fn wants(&self, peer: Peer) -> bool {
        self.only.as_ref().is_none_or(|only| peer.about().name.starts_with(only.as_str()))
    }
}

fn main() -> Result<ExitCode, Failure> {
    let settings = Settings::read()?;
    let wanted = Peer::ALL.into_iter().filter(|peer| settings.wants(*peer)).collect::<Vec<_>>();
    if wanted.is_empty() {
        println!("no peer has a name that begins with {:?}", settings.only.unwrap_or_default());
        return Ok(ExitCode::from(2));
    }
    let began = Instant::now();
    let server = Server::start()?.version().to_owned();
    println!("{}, {server}, load before {}", versions::machine(), versions::load());
    println!("{} jobs of about 150 bytes, {} rounds", settings.jobs, settings.rounds);
    let table = measure_all(&settings, &wanted);
    println!("\n{}", table.text(versions::version));
    println!("\nfinished in {} s, load after {}", began.elapsed().as_secs(), versions::load());
    Ok(ExitCode::SUCCESS)
}

/// Measures every scenario with all peers in turn. Each round starts with the next peer. A peer that
/// fails is left out of the rest of the scenario.
fn measure_all(settings: &Settings, wanted: &[Peer]) -> Table {
    let cells = || SCENARIOS.iter().map(|_| Cell::default()).collect();
    let rows = wanted.iter().map(|peer| (*peer, cells())).collect::<Vec<_>>();
    let mut table = Table { scenarios: SCENARIOS.map(|(name, _)| name).to_vec(), rows };
    for (column, (name, work)) in SCENARIOS.into_iter().enumerate() {
        // A small round warms up and is not counted.
        for peer in wanted.iter().filter(|peer| peer.takes_part(work)) {
            let _warm = measure::rate(*peer, work, settings.jobs.div_ceil(10));
        }
        for round in 0..settings.rounds {
            let first = round % table.rows.len();
            let (late, early) = table.rows.split_at_mut(first);
            for (peer, cells) in early.iter_mut().chain(late) {
                let Some(cell) = cells.get_mut(column) else { continue };
                if cell.failed() || !peer.takes_part(work) {
                    continue;
                }
                let rate = measure::rate(*peer, work, settings.jobs);
                eprintln!("{name}, round {}: {}: {rate:?}", round + 1, peer.about().name);
                cell.add(rate);
            }
        }
    }
    table
}
