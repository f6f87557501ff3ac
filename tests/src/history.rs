//! What every process of a proof reports that it did: lines in files, which outlive a killed process.
//!
//! Each process appends to a file of its own, with one `write` for each line, so that everything it
//! reported before it died is there. All processes run on one machine and take the time from its clock,
//! which the faults leave alone: they change the clock of the server.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// One thing that a process did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named for what they are")]
pub enum Deed {
    /// A producer is about to publish.
    Tried { job: String, fate: Fate },
    /// The server has confirmed it.
    Published { job: String },
    /// A cluster has confirmed it, as this entry of this partition.
    Stored { job: String, stream: String, entry: String },
    /// It may or may not be stored.
    Unconfirmed { job: String },
    /// The server refused it.
    Refused { job: String },
    /// A handler starts.
    Started(Attempt),
    /// A handler has ended.
    Ended { attempt: Attempt, how: How },
    /// A process is ready to work.
    Ready { consumer: String },
    /// A process has stopped in stages, with the numbers from its report.
    Stopped { finished: u64, released: u64, abandoned: u64 },
    /// Something is broken, from now on until the fault with this number is repaired.
    Broken { fault: u64, what: Disturbance },
    /// The fault is repaired.
    Mended { fault: u64 },
}

/// What is meant to become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is done in the end.
    Done,
    /// Its handler rejects it: a dead letter.
    Rejected,
}

/// One run of a handler, identified by a token of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The event's id.
    pub job: String,
    /// The stream, or its partition.
    pub stream: String,
    /// The entry, in the stream or in the lane.
    pub entry: String,
    /// The consumer that has it.
    pub consumer: String,
    /// How often the entry has been delivered.
    pub count: u64,
    /// Its number among those whose failures are counted, from 1.
    pub number: u32,
    /// Whether the payload is what was published.
    pub intact: bool,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It returned `Ok`.
    Ok,
    /// It failed, and the job is to be tried again.
    Failed,
    /// It rejected the job for good.
    Rejected,
    /// It was dropped while it waited.
    Dropped,
}

/// What can be broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named for what they are")]
pub enum Disturbance {
    /// A process was ended at once.
    Kill { pid: u32 },
    /// A process stands still, or one of its threads does.
    Freeze { pid: u32 },
    /// A process was asked to stop.
    Stop { pid: u32 },
    /// A process cannot reach the server as it should.
    Link { pid: u32 },
    /// A step inside of a process panicked.
    Panic { pid: u32 },
    /// The server of the streams is down, frozen, replaced, or its clock was changed.
    Server { what: String },
    /// The master of these partitions is down, frozen or replaced. `loses` says whether the new master
    /// may lack what was confirmed.
    Master { what: String, streams: Vec<String>, loses: bool },
    /// A partition moves from one node to another. That delays its jobs, but repeats none unless it
    /// takes long.
    Move { stream: String },
    /// The database is down.
    Database,
}

/// A deed with its time and its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The process that did it.
    pub pid: u32,
    /// What was done.
    pub deed: Deed,
}

/// The file to which this process appends its deeds.
#[derive(Debug)]
pub struct Writer {
    file: Mutex<File>,
}

impl Writer {
    /// Opens the file of this process in a folder.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{}.history", process::id()));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Writes one deed down. When this returns, the deed survives the process.
    ///
    /// # Panics
    ///
    /// If the disk is full: a history with holes proves nothing.
    pub fn write(&self, deed: Deed) {
        let mut file = self.file.lock().expect("no thread panics while writing");
        let line = Line { at: now(), pid: process::id(), deed };
        let mut text = serde_json::to_vec(&line).expect("it is plain data");
        text.push(b'\n');
        file.write_all(&text).expect("the history is written");
    }
}

/// Nanoseconds since 1970.
///
/// # Panics
///
/// If the clock is before 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    u64::try_from(since.as_nanos()).expect("it is before 2554")
}

/// All deeds in the order of time. If a killed process did not finish its last line, that line is left
/// out.
///
/// # Errors
///
/// If a file cannot be read, or a line other than the last of a file is malformed.
pub fn read(folder: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        if path.extension().is_none_or(|extension| extension != "history") {
            continue;
        }
        let mut cut = None;
        for text in BufReader::new(File::open(path)?).split(b'\n') {
            if let Some(error) = cut.take() {
                return Err(error);
            }
            match serde_json::from_slice(&text?) {
                Ok(line) => lines.push(line),
                Err(error) => cut = Some(io::Error::other(error)),
            }
        }
    }
    lines.sort_by_key(|line: &Line| line.at);
    Ok(lines)
}
