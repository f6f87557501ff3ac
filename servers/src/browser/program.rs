//! Finds a browser and its driver, and installs them where they are missing.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::machine::{Missing, ServerError, apt, is_program, which};

/// The texts about a missing browser.
static CHROMIUM: Missing = Missing {
    program: "chromium with chromedriver",
    variable: "STREAMJOBS_CHROMIUM and STREAMJOBS_CHROMEDRIVER",
    advice: "run `sudo apt-get install chromium chromium-driver` (Debian), `brew install --cask chromium \
        chromedriver` (macOS), `sudo dnf install chromium chromedriver` (Fedora) or `sudo pacman -S \
        chromium` (Arch), or set STREAMJOBS_CHROMIUM and STREAMJOBS_CHROMEDRIVER to their paths",
    outcome: Mutex::new(None),
};

const BROWSERS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The browser and its driver: those that the environment names, or else installed ones, or else
/// ones that are installed now.
pub(super) fn find_or_install() -> Result<(PathBuf, PathBuf), ServerError> {
    let of = |variable| named(variable, env::var_os(variable));
    let named = (of("STREAMJOBS_CHROMIUM")?, of("STREAMJOBS_CHROMEDRIVER")?);
    if let (Some(chromium), Some(driver)) = named {
        return Ok((chromium, driver));
    }
    let find = || {
        let chromium = BROWSERS.iter().find_map(|name| which(name));
        Some((named.0.clone().or(chromium)?, named.1.clone().or_else(|| which("chromedriver"))?))
    };
    CHROMIUM.find_or_install(find, install)
}

fn named(variable: &'static str, value: Option<OsString>) -> Result<Option<PathBuf>, ServerError> {
    let Some(path) = value.filter(|path| !path.is_empty()) else { return Ok(None) };
    let path = std::path::absolute(path)?;
    if is_program(&path) {
        return Ok(Some(path));
    }
    Err(ServerError::NotAProgram { variable, path, wanted: "program" })
}

fn install() -> Result<(), ServerError> {
    let Some(apt) = apt() else { return Err(CHROMIUM.not_found()) };
    CHROMIUM.announce("installing chromium and chromium-driver with apt-get");
    CHROMIUM.install_with(&apt, "chromium")?;
    CHROMIUM.install_with(&apt, "chromium-driver")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_named_is_taken_or_refused_by_its_variable() {
        assert!(named("X", None).is_ok_and(|path| path.is_none()));
        assert!(named("X", Some("".into())).is_ok_and(|path| path.is_none()));
        assert!(
            named("X", Some("/bin/sh".into())).is_ok_and(|path| path == Some("/bin/sh".into()))
        );
        let refused =
            named("STREAMJOBS_CHROMIUM", Some("/etc/passwd".into())).unwrap_err().to_string();
        assert!(
            refused.contains("STREAMJOBS_CHROMIUM") && refused.contains("/etc/passwd"),
            "{refused}"
        );
    }

    #[test]
    fn a_browser_that_cannot_be_had_is_said_with_what_helps() {
        let error = CHROMIUM.not_found().to_string();
        for words in ["chromium with chromedriver", "apt-get install", "STREAMJOBS_CHROMIUM"] {
            assert!(error.contains(words), "{error}");
        }
    }
}
