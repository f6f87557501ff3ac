//! Finds programs, and runs programs that install others.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::ServerError;

/// Folders in which programs are installed even if `PATH` does not contain them.
const WELL_KNOWN: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
    /opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin";

/// How many of the last bytes of a failed program's output are kept.
const OUTPUT_MAX: usize = 2000;

/// A server that may be missing from this machine, and what to say about that.
#[derive(Debug)]
pub(crate) struct Missing {
    /// What is looked for.
    pub(crate) program: &'static str,
    /// The environment variable that names it, which takes precedence.
    pub(crate) variable: &'static str,
    /// What to do on a machine on which it cannot be installed from here.
    pub(crate) advice: &'static str,
    /// How its installation ended, if this process tried it. An installation that failed would fail
    /// again after half a minute of retries, for each test in this process.
    pub(crate) outcome: Mutex<Option<Result<(), ServerError>>>,
}

impl Missing {
    /// What `find` finds, after an installation by `install` if necessary.
    ///
    /// Any number of processes may call this at the same time; one installs and the others wait for
    /// it.
    pub(crate) fn find_or_install<T>(
        &self,
        find: impl Fn() -> Option<T>,
        install: impl FnOnce() -> Result<(), ServerError>,
    ) -> Result<T, ServerError> {
        if let Some(found) = find() {
            return Ok(found);
        }
        locked(|| {
            // The process that held the lock before us may have installed it.
            if let Some(found) = find() {
                return Ok(found);
            }
            let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.get_or_insert_with(install).clone()?;
            find().ok_or_else(|| self.not_found())
        })
    }

    /// Announces what is about to happen to the machine, bypassing the test runner's capture.
    pub(crate) fn announce(&self, what: &str) {
        let Self { program, variable, .. } = self;
        // Without a standard error the line is lost, and the installation continues.
        let line = format!("no {program} was found: {what} ({variable} overrides)");
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Installs a package with apt-get, which `apt` calls.
    pub(crate) fn install_with(&self, apt: &[&str], package: &str) -> Result<(), ServerError> {
        let install = [apt, &["install", "-y", "--no-install-recommends", package]].concat();
        self.run(&install).or_else(|_| {
            // The package lists are missing, as in a container image, or too old for the mirror.
            self.run(&[apt, &["update"]].concat())?;
            self.run(&install)
        })
    }

    /// Runs a command that installs something.
    pub(crate) fn run(&self, words: &[&str]) -> Result<(), ServerError> {
        run(words)?.map_err(|output| self.not_installed(&words.join(" "), output))
    }

    pub(crate) fn not_installed(&self, command: &str, output: String) -> ServerError {
        let (program, advice) = (self.program, self.advice);
        ServerError::NotInstalled { program, advice, command: command.to_owned(), output }
    }

    pub(crate) fn not_found(&self) -> ServerError {
        ServerError::NotFound { program: self.program, advice: self.advice }
    }
}

/// Does `work` while no other process or thread on this machine installs or prepares anything.
pub(crate) fn locked<T>(work: impl FnOnce() -> Result<T, ServerError>) -> Result<T, ServerError> {
    let lock = open_lock(&super::temp_dir()?.join("streamjobs-install.lock"))?;
    lock.lock()?;
    // Dropping the file unlocks it.
    work()
}

/// Opens the file that installations lock. Another user may own it: locking takes no write access.
fn open_lock(path: &Path) -> io::Result<File> {
    let made = File::options().read(true).write(true).create(true).truncate(false).open(path);
    made.or_else(|_| File::open(path))
}

/// The program called `name`, in the `PATH` or in the usual folders.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|dir| dir.join(name)).find(|path| is_program(path))
}

/// The `PATH` and well-known folders after it.
pub(crate) fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(WELL_KNOWN);
    path
}

/// Whether there is an executable file at `path`.
pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The command that calls apt-get to change the machine, if it may: without questions, and after
/// other processes that hold its lock.
pub(crate) fn apt() -> Option<Vec<&'static str>> {
    which("apt-get")?;
    let sudo: &[&str] = match super::uid().is_ok_and(|uid| uid == 0) {
        true => &[],
        false => which("sudo").map(|_| &["sudo", "-n"])?,
    };
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"];
    Some([sudo, &apt].concat())
}

/// Runs a command to its end; an inner error is the end of its output before it failed.
fn run(words: &[&str]) -> io::Result<Result<(), String>> {
    let program = which(words[0]).unwrap_or_else(|| words[0].into());
    let mut command = Command::new(program);
    // Package managers call helpers of their own, which an emptied `PATH` would hide from them.
    command.args(&words[1..]).env("PATH", search_path());
    complete(&mut command)
}

/// Like [`run`], for a command that is built already.
pub(crate) fn complete(command: &mut Command) -> io::Result<Result<(), String>> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let printed = [output.stdout, output.stderr].concat();
    let tail = &printed[printed.len().saturating_sub(OUTPUT_MAX)..];
    Ok(Err(String::from_utf8_lossy(tail).trim().to_owned()))
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
}
