//! Prometheus' own check of rules and of the alerts that they fire.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs};

use crate::machine::{
    Missing, ServerError, can_download, download, folder, is_ours, is_program, libraries, which,
};

static PROMTOOL: Missing = Missing {
    program: "promtool",
    variable: "STREAMJOBS_PROMTOOL",
    advice: "run `sudo apt-get install prometheus` (Debian, Ubuntu) or `brew install prometheus` \
        (macOS), or set STREAMJOBS_PROMTOOL to the program's path",
    outcome: Mutex::new(None),
};

/// The program `promtool`, installed or downloaded.
#[derive(Debug)]
pub struct Promtool {
    path: PathBuf,
    libraries: OsString,
}

impl Promtool {
    /// The program that `STREAMJOBS_PROMTOOL` names, or else an installed one, or else Debian's,
    /// downloaded into a private folder.
    ///
    /// # Errors
    ///
    /// If it is not on the machine and cannot be downloaded.
    pub fn find_or_download() -> Result<Self, ServerError> {
        let variable = PROMTOOL.variable;
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let path = std::path::absolute(path)?;
            return match is_program(&path) {
                true => Ok(Self { path, libraries: OsString::new() }),
                false => Err(ServerError::NotAProgram { variable, path, wanted: "program" }),
            };
        }
        let installed = || Some(Self { path: which("promtool")?, libraries: OsString::new() });
        PROMTOOL.find_or_install(|| installed().or_else(Self::fetched), fetch)
    }

    /// The program that an earlier call of any process downloaded, if it runs.
    fn fetched() -> Option<Self> {
        let folder = folder("promtool").ok()?;
        is_ours(&folder)?.then_some(())?;
        let program = Self { path: folder.join("usr/bin/promtool"), libraries: libraries(&folder) };
        let runs = program.command().arg("--version").output();
        runs.is_ok_and(|output| output.status.success()).then_some(program)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if !self.libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        }
        command
    }

    /// Runs it with these arguments and one file. Returns what it printed.
    ///
    /// # Panics
    ///
    /// If it refuses the file. The message has what it printed.
    #[track_caller]
    pub fn accepts(&self, words: &[&str], file: &Path) -> String {
        let output = self.command().args(words).arg(file).output().expect("promtool runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "promtool refuses {}: {text}", file.display());
        text
    }
}

/// Downloads Debian's package of Prometheus, and keeps only `promtool`.
fn fetch() -> Result<(), ServerError> {
    if !can_download() {
        return Err(PROMTOOL.not_found());
    }
    let folder = folder("promtool")?;
    PROMTOOL.announce(&format!("downloading Debian's into {}", folder.display()));
    download(&PROMTOOL, ["prometheus", "libjs-* fonts-* node-*"], &folder)?;
    // The server is five times as large, and not needed.
    let _ = fs::remove_file(folder.join("usr/bin/prometheus"));
    Ok(())
}
