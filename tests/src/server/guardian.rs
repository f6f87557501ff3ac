//! The shell that stands between us and a server, and outlives us just long enough to clean up.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Before: `$1` is the server's folder, the rest its command line.
/// While its input is open it obeys one order a line and answers each with one line.
/// After, when its input ends: the server is killed and the folder gone.
///
/// Its input is a pipe that only we hold, which the kernel closes however we end, an abort or
/// `SIGKILL` included; a drop or an exit hook would miss those. It ignores the signals that end
/// us, since it has to stay for the cleaning up.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
dir=$1; shift
pid=
# Once it is waited for, its number may be another process's: it must not be signalled again.
end() { if [ -n "$pid" ]; then kill -9 "$pid"; wait "$pid"; pid=; fi; }
while read -r order; do
  case $order in
    start) "$@" >>"$dir/log" 2>&1 & pid=$!; echo "$pid" ;;
    kill) end; echo gone ;;
    # A shell may forget an ended child only when it lists its jobs; until then it seems alive.
    alive) jobs >/dev/null; if kill -0 "$pid"; then echo yes; else pid=; echo no; fi ;;
  esac
done
end
rm -rf -- "$dir"
"#;

/// Keeps one server's process and folder; both go when it does.
#[derive(Debug)]
pub(super) struct Guardian {
    shell: Child,
    /// Taken on drop, which is what tells the shell to clean up.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    pid: u32,
}

impl Guardian {
    /// Makes a private folder and starts `program` on it, with the settings that `settings`
    /// derives from the folder's path.
    pub(super) fn start(
        program: &Path,
        settings: impl FnOnce(&Path) -> Vec<String>,
    ) -> io::Result<Self> {
        let dir = private_dir()?;
        let program = named_as_server(program, &dir)?;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guardian"])
            .args([&dir, &program])
            .args(settings(&dir))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Out of the terminal's reach: Ctrl-C would end the server under a demo that drains.
            .process_group(0)
            .spawn()?;
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("it is piped"));
        let mut guardian = Self { shell, orders, answers, dir, pid: 0 };
        guardian.start_again()?;
        Ok(guardian)
    }

    /// Starts the server anew, with the same folder and settings. It must not be running.
    pub(super) fn start_again(&mut self) -> io::Result<()> {
        self.pid = self.order("start")?.parse().map_err(io::Error::other)?;
        Ok(())
    }

    /// Ends the server with `SIGKILL` and returns when it is gone.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.order("kill").map(drop)
    }

    /// Whether the server runs, frozen or not.
    pub(super) fn alive(&mut self) -> bool {
        self.order("alive").is_ok_and(|answer| answer == "yes")
    }

    /// The server's own process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The server's folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All the server has logged so far.
    pub(super) fn log(&self) -> String {
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
        // Nothing to do about a failure; after success the folder is gone for certain.
        let _ = self.shell.wait();
    }
}

/// A name by which `program` acts as a server.
///
/// Debian's tools package ships the server as `redis-check-rdb`: the program is one and the same
/// and goes by the name it is called with. Others keep their own path, which a script may need.
fn named_as_server(program: &Path, dir: &Path) -> io::Result<PathBuf> {
    if !program.to_string_lossy().ends_with("-check-rdb") {
        return Ok(program.to_path_buf());
    }
    let alias = dir.join("redis-server");
    symlink(program, &alias)?;
    Ok(alias)
}

/// Makes a folder that nobody else has or can read.
fn private_dir() -> io::Result<PathBuf> {
    let root = std::path::absolute(std::env::temp_dir())?;
    loop {
        let dir = root.join(format!("streamjobs-{:016x}", super::random()));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|()| dir),
        }
    }
}
