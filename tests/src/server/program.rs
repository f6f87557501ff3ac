//! Finds a server program, and installs one where there is none.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::ServerError;

/// Names the server program to use, before all others.
pub(super) const VARIABLE: &str = "STREAMJOBS_REDIS_SERVER";

/// What to tell someone whose machine we cannot prepare.
pub(super) const ADVICE: &str = "run `sudo apt-get install redis-tools` (Debian, Ubuntu), \
    `brew install redis` (macOS), `sudo dnf install valkey` (Fedora), `sudo apk add redis` \
    (Alpine) or `sudo pacman -S valkey` (Arch), or set STREAMJOBS_REDIS_SERVER to the program's \
    path";

/// The programs that serve, the plainest first. The last two are what Debian's tools packages
/// call the same program.
const NAMES: [&str; 4] = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"];

/// Where programs are even when `PATH` does not say so.
const WELL_KNOWN: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
    /opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin";

/// How many of its last bytes are kept of what a failed installation printed.
const OUTPUT_MAX: usize = 2000;

/// The server program: the one the environment names, else one that is installed, else one that
/// is installed now.
///
/// Any number of processes may call this at once; one installs and the others wait for it.
pub(super) fn find_or_install() -> Result<PathBuf, ServerError> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = std::path::absolute(path)?;
        return if is_program(&path) { Ok(path) } else { Err(ServerError::NotAProgram { path }) };
    }
    if let Some(found) = installed() {
        return Ok(found);
    }
    let lock = open_lock(&env::temp_dir().join("streamjobs-install.lock"))?;
    lock.lock()?;
    // Whoever held the lock before us may have installed it.
    if let Some(found) = installed() {
        return Ok(found);
    }
    // What failed once fails again after half a minute of retries, for each test in this process.
    static OUTCOME: OnceLock<Result<(), ServerError>> = OnceLock::new();
    OUTCOME.get_or_init(install).clone()?;
    installed().ok_or(ServerError::NotFound)
}

fn installed() -> Option<PathBuf> {
    NAMES.iter().find_map(|name| which(name))
}

fn which(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn search_path() -> std::ffi::OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(WELL_KNOWN);
    path
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Opens the file that installations lock. Another user may own it: locking takes no write access.
fn open_lock(path: &Path) -> io::Result<File> {
    let made = File::options().read(true).write(true).create(true).truncate(false).open(path);
    made.or_else(|_| File::open(path))
}

/// Installs a server through the system's package manager.
fn install() -> Result<(), ServerError> {
    // Root's own folder belongs to root: the caller's user, told without a system call of ours.
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    if which("apt-get").is_some() && (root || which("sudo").is_some()) {
        // The tools package holds the server's program without a service. The server's own package
        // would start one on port 6379, now and at each boot, and nothing short of a policy for
        // the whole system prevents that.
        let apt = apt(root);
        let install = [&apt[..], &["install", "-y", "--no-install-recommends", "redis-tools"]];
        announce("redis-tools with apt-get");
        return run(&install.concat()).or_else(|_| {
            // The package lists are missing, as in an image, or too old for the mirror.
            run(&[&apt[..], &["update"]].concat())?;
            run(&install.concat())
        });
    }
    if which("brew").is_some() {
        announce("redis with brew");
        return run(&["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "redis"]);
    }
    Err(ServerError::NotFound)
}

/// How apt-get is called: without questions, and after others that hold its lock.
fn apt(root: bool) -> Vec<&'static str> {
    let sudo: &[&str] = if root { &[] } else { &["sudo", "-n"] };
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"];
    [sudo, &apt].concat()
}

/// Says what is about to happen to the machine, past the test runner's capture.
fn announce(what: &str) {
    let line = format!("no redis-server was found: installing {what} ({VARIABLE} overrides)");
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

fn run(words: &[&str]) -> Result<(), ServerError> {
    let program = which(words[0]).unwrap_or_else(|| words[0].into());
    let mut command = Command::new(program);
    // Package managers call helpers of their own, which an emptied `PATH` would hide from them.
    command.args(&words[1..]).env("PATH", search_path()).stdin(Stdio::null());
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    let tail = &printed[printed.len().saturating_sub(OUTPUT_MAX)..];
    let output = String::from_utf8_lossy(tail).trim().to_owned();
    Err(ServerError::NotInstalled { command: words.join(" "), output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_beyond_the_path() {
        assert_eq!(which("sh").map(|path| path.file_name() == Some("sh".as_ref())), Some(true));
        assert_eq!(which("no-such-program"), None);
        assert!(!is_program(Path::new("/etc/passwd")));
        assert!(!is_program(Path::new("/")));
    }

    #[test]
    fn a_failed_installation_says_what_was_run_and_printed() {
        let error = run(&["sh", "-c", "echo no space left >&2; exit 1"]).unwrap_err().to_string();
        assert!(error.contains("exit 1` failed"), "{error}");
        assert!(error.contains("no space left"), "{error}");
        assert!(error.contains("brew install redis"), "{error}");
    }
}
