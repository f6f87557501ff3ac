//! Finds a server program, and installs one if it is missing.

use std::env;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::machine::{Missing, ServerError, apt, is_program, which};

/// The texts about a missing server.
static REDIS: Missing = Missing {
    program: "redis-server",
    variable: "STREAMJOBS_REDIS_SERVER",
    advice: "run `sudo apt-get install redis-tools` (Debian, Ubuntu), `brew install redis` \
        (macOS), `sudo dnf install valkey` (Fedora), `sudo apk add redis` (Alpine) or \
        `sudo pacman -S valkey` (Arch), or set STREAMJOBS_REDIS_SERVER to the program's path",
    outcome: Mutex::new(None),
};

/// The names of server programs, in the order in which they are tried. The last two are Debian's
/// names for the same program in its tools packages.
const NAMES: [&str; 4] = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"];

/// The server program: the one that the environment names, or else an installed one, or else one
/// that is installed now.
pub(super) fn find_or_install() -> Result<PathBuf, ServerError> {
    let variable = REDIS.variable;
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = std::path::absolute(path)?;
        let wrong = |path| ServerError::NotAProgram { variable, path, wanted: "program" };
        return if is_program(&path) { Ok(path) } else { Err(wrong(path)) };
    }
    REDIS.find_or_install(|| NAMES.iter().find_map(|name| which(name)), install)
}

/// Installs a server through the system's package manager.
fn install() -> Result<(), ServerError> {
    if let Some(apt) = apt() {
        // The tools package contains the server's program without a service. The server's own
        // package would start a service on port 6379, now and at each boot, and only a policy for
        // the whole system could prevent that.
        REDIS.announce("installing redis-tools with apt-get");
        return REDIS.install_with(&apt, "redis-tools");
    }
    if which("brew").is_some() {
        REDIS.announce("installing redis with brew");
        return REDIS.run(&["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "redis"]);
    }
    Err(REDIS.not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_installation_says_what_was_run_and_printed() {
        let words = ["sh", "-c", "echo no space left >&2; exit 1"];
        let error = REDIS.run(&words).unwrap_err().to_string();
        assert!(error.contains("exit 1` failed"), "{error}");
        assert!(error.contains("no space left"), "{error}");
        assert!(error.contains("brew install redis"), "{error}");
    }
}
