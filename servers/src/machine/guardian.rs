//! The shell between us and a server, which outlives us just long enough to clean up.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Account, ServerError};

/// Before: `$1` is the server's folder, `$2` and `$3` are what [`Ending`] says, the rest is the
/// server's command line. While its input is open, it obeys one order per line and answers each
/// with one line. After, when its input ends: the server has ended and the folder is gone, unless
/// it was told to keep both.
///
/// Its input is a pipe that only we hold. The kernel closes the pipe however we end, even by an
/// abort or `SIGKILL`; a drop or an exit hook would miss those. It ignores the signals that end us,
/// because it has to stay for the cleaning up.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
dir=$1 farewell=$2 afterwards=$3; shift 3
pid= keep=
# Once it is waited for, its number may be another process's: it must not be signalled again.
end() { if [ -n "$pid" ]; then eval "$1"; wait "$pid"; pid=; fi; }
while read -r order; do
  case $order in
    start) "$@" >>"$dir/log" 2>&1 & pid=$!; echo "$pid" ;;
    kill) end 'kill -9 "$pid"'; echo gone ;;
    # A shell may forget an ended child only when it lists its jobs; until then it seems alive.
    alive) jobs >/dev/null; if kill -0 "$pid"; then echo yes; else pid=; echo no; fi ;;
    keep) keep=yes; echo kept ;;
  esac
done
if [ -n "$keep" ]; then exit; fi
end "$farewell"
eval "$afterwards"
rm -rf -- "$dir"
"#;

/// How a server ends when its guardian does, as shell commands that see `$dir`, the server's
/// folder.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Ends the server with the process id `$pid`, which runs or is frozen.
    pub(crate) farewell: &'static str,
    /// Removes what a server leaves behind that was killed before. Runs in any case.
    pub(crate) afterwards: &'static str,
}

impl Ending {
    /// For servers that leave nothing but their folder.
    pub(crate) const KILL: Self = Self { farewell: "kill -9 \"$pid\"", afterwards: "" };
}

/// Keeps one server's process and folder; both end when this is dropped.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
    /// Taken on drop, which tells the shell to clean up.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    pid: u32,
}

impl Guardian {
    /// Creates a private folder and starts a server on it. `words` derives the command line from
    /// the folder's path. `account` runs the server; without one, we run it ourselves.
    pub(crate) fn start(
        account: Option<Account>,
        ending: &Ending,
        words: impl FnOnce(&Path) -> Result<Vec<OsString>, ServerError>,
    ) -> Result<Self, ServerError> {
        let dir = super::private_dir()?;
        let started = Self::start_in(&dir, account, ending, words);
        if started.is_err() {
            // The shell that would do this later did not start.
            let _ = fs::remove_dir_all(&dir);
        }
        started
    }

    fn start_in(
        dir: &Path,
        account: Option<Account>,
        ending: &Ending,
        words: impl FnOnce(&Path) -> Result<Vec<OsString>, ServerError>,
    ) -> Result<Self, ServerError> {
        let mut command = Command::new("/bin/sh");
        if let Some(account) = account {
            account.own(dir)?;
            // Our own folder may not be accessible to the account.
            command.current_dir(dir);
            account.run(&mut command);
        }
        // With an emptied `PATH` it would not find `rm`, and would leave the folder.
        command.env("PATH", super::search_path());
        command.args(["-c", SCRIPT, "guardian"]).arg(dir);
        command.args([ending.farewell, ending.afterwards]).args(words(dir)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A process group of its own, because Ctrl-C in the terminal would otherwise end the server
        // under a demo that drains.
        let mut shell = command.process_group(0).spawn()?;
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("it is piped"));
        let mut guardian = Self { shell, orders, answers, dir: dir.to_path_buf(), pid: 0 };
        guardian.start_again()?;
        Ok(guardian)
    }

    /// Starts the server again, with the same folder and settings. It must not be running.
    pub(crate) fn start_again(&mut self) -> io::Result<()> {
        self.pid = self.order("start")?.parse().map_err(io::Error::other)?;
        Ok(())
    }

    /// Ends the server with `SIGKILL` and returns when it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.order("kill").map(drop)
    }

    /// Makes server and folder stay when this is dropped and when this process ends.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        self.order("keep").map(drop)
    }

    /// Whether the server runs, frozen or not.
    pub(crate) fn alive(&mut self) -> bool {
        self.order("alive").is_ok_and(|answer| answer == "yes")
    }

    /// The server's own process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The server's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything the server has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read(self.dir.join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn order(&mut self, order: &str) -> io::Result<String> {
        let orders = self.orders.as_mut().expect("it is only taken on drop");
        writeln!(orders, "{order}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.orders.take();
        // Nothing can be done about a failure; after success the folder is certainly gone.
        let _ = self.shell.wait();
    }
}
