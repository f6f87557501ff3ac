//! Another process, for tests of what a crash leaves behind.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use streamjobs_servers::{eventually, signal};

/// The most lines of standard error that are kept for a failure's message.
const COMPLAINTS_MAX: usize = 40;

/// A process started from one of our programs. It is killed when this is dropped.
///
/// Its standard output is read line by line into a history, so that a test can wait for the line
/// that says that something has happened. Its standard input stays open until this is dropped or
/// the test ends, however the test ends: a program that calls [`end_with_parent`] never outlives
/// its test.
///
/// ```
/// use std::time::Duration;
/// use streamjobs_tests::process::Worker;
///
/// let mut worker = Worker::builder("/bin/sh").arg("-c").arg("echo ready; cat").start()?;
/// worker.wait_for(|line| line == "ready", Duration::from_secs(5));
/// worker.kill();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Worker {
    child: Child,
    output: Arc<Output>,
}

impl Worker {
    /// A builder for a process of the program at `program`, such as `env!("CARGO_BIN_EXE_worker")`.
    pub fn builder(program: impl Into<PathBuf>) -> WorkerBuilder {
        WorkerBuilder { command: Command::new(program.into()) }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.locked().lines.clone()
    }

    /// The first line printed so far that `matches`.
    ///
    /// Async tests that must not block ask this through
    /// [`eventually_async`](crate::eventually::eventually_async).
    pub fn find(&self, matches: impl FnMut(&str) -> bool) -> Option<String> {
        self.output.locked().find(matches)
    }

    /// Blocks until it has printed, since its start, a line that `matches`, and returns that line.
    ///
    /// # Panics
    ///
    /// If there is no such line after `deadline` or when its output ends. The message has
    /// everything it printed.
    #[track_caller]
    pub fn wait_for(&self, mut matches: impl FnMut(&str) -> bool, deadline: Duration) -> String {
        let end = Instant::now() + deadline;
        let mut history = self.output.locked();
        loop {
            if let Some(line) = history.find(&mut matches) {
                return line;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!history.ended, "process {} ended without the line: {history}", self.pid());
            assert!(!left.is_zero(), "process {} did not print it: {history}", self.pid());
            let waited = self.output.grown.wait_timeout(history, left);
            history = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends it at once (`SIGKILL`), frozen or not, and returns when it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Freezes it (`SIGSTOP`): its connections stay open and nothing answers.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn freeze(&self) {
        signal::freeze(self.pid());
    }

    /// Lets it continue after [`freeze`](Self::freeze).
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn thaw(&self) {
        signal::thaw(self.pid());
    }

    /// Asks it to end (`SIGTERM`), as a deploy does.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn terminate(&self) {
        signal::send(self.pid(), "TERM");
    }

    /// Interrupts it (`SIGINT`), as Ctrl-C does.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn interrupt(&self) {
        signal::send(self.pid(), "INT");
    }

    /// Blocks until it has ended by itself.
    ///
    /// # Panics
    ///
    /// If it still runs after `deadline`. The message has everything it printed.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let ended = eventually::poll(deadline, || self.child.try_wait().expect("it is our child"));
        ended.unwrap_or_else(|| panic!("still running after {deadline:?}: {self:?}"))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {}", self.pid(), self.output.locked())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The settings with which a [`Worker`] is started.
#[must_use]
pub struct WorkerBuilder {
    command: Command,
}

impl WorkerBuilder {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Sets one environment variable, on top of those of this process.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// If the program cannot be run.
    pub fn start(mut self) -> io::Result<Worker> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn()?;
        let output = Arc::new(Output::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (lines, complaints) = (Arc::clone(&output), Arc::clone(&output));
        // Both threads end with the process, which then closes its ends of the pipes.
        thread::spawn(move || lines.gather(stdout.expect("it is piped")));
        thread::spawn(move || complaints.gather_complaints(stderr.expect("it is piped")));
        Ok(Worker { child, output })
    }
}

impl fmt::Debug for WorkerBuilder {
    /// Leaves out arguments and environment, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.command.get_program();
        f.debug_struct("WorkerBuilder").field("program", &program).finish_non_exhaustive()
    }
}

/// Whether this process runs only the test that asks. If not, starts a process that does, and
/// waits for it.
///
/// For tests of something that a process has only once, such as its metrics recorder. `module` is
/// the test's `module_path!()`, `test` its name.
///
/// # Panics
///
/// If the test fails in its own process. The message has everything it printed.
#[track_caller]
pub fn runs_alone(module: &str, test: &str) -> bool {
    /// Names the test that a process has been started for.
    const ALONE: &str = "STREAMJOBS_TEST_ALONE";
    let test = match module.split_once("::") {
        Some((_, module)) => format!("{module}::{test}"),
        None => test.to_owned(),
    };
    if env::var(ALONE).is_ok_and(|alone| alone == test) {
        return true;
    }
    let mut command = Command::new(env::current_exe().expect("this process has a program"));
    command.args([&test, "--exact", "--nocapture"]).env(ALONE, &test).stdin(Stdio::null());
    let output = command.output().expect("a test's program runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // A name that has no test would pass.
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Makes this process end when its parent ends, even if the parent is killed.
///
/// For programs that a [`Worker`] starts. A worker that its test can no longer kill would keep
/// running against a server that is gone. This reads standard input, which the parent keeps open.
pub fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::abort();
    });
}

/// Whether process `pid` exists and has not ended.
pub fn is_running(pid: u32) -> bool {
    signal::is_running(pid)
}

/// What a process has printed, shared with the threads that read it.
#[derive(Default)]
struct Output {
    history: Mutex<History>,
    grown: Condvar,
}

impl Output {
    fn locked(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gather(&self, stdout: impl Read) {
        for line in lines(stdout) {
            self.locked().lines.push(line);
            self.grown.notify_all();
        }
        self.locked().ended = true;
        self.grown.notify_all();
    }

    fn gather_complaints(&self, stderr: impl Read) {
        for line in lines(stderr) {
            let mut history = self.locked();
            if history.complaints.len() == COMPLAINTS_MAX {
                history.complaints.pop_front();
            }
            history.complaints.push_back(line);
        }
    }
}

/// The lines of a stream until it ends or breaks, which means the same if a process is killed.
fn lines(stream: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[derive(Default)]
struct History {
    lines: Vec<String>,
    complaints: VecDeque<String>,
    ended: bool,
}

impl History {
    fn find(&self, mut matches: impl FnMut(&str) -> bool) -> Option<String> {
        self.lines.iter().find(|line| matches(line)).cloned()
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it printed {:#?}, complained {:#?}", self.lines, self.complaints)
    }
}
