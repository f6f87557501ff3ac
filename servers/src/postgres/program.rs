//! Finds the programs of a Postgres.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::install;
use crate::machine::{Missing, ServerError, is_program, search_path};

/// What to say of a server that is not there.
pub(super) static POSTGRES: Missing = Missing {
    program: "Postgres",
    variable: "STREAMJOBS_POSTGRES_BIN",
    advice: "run `sudo apt-get install postgresql` (Debian, Ubuntu), `brew install postgresql` \
        (macOS), `sudo dnf install postgresql-server` (Fedora), `sudo apk add postgresql` (Alpine) \
        or `sudo pacman -S postgresql` (Arch), or set STREAMJOBS_POSTGRES_BIN to the folder that \
        has `initdb` and `postgres`",
    outcome: Mutex::new(None),
};

/// Where systems keep the programs of each version of Postgres, out of the `PATH`: a folder, how
/// the names in it begin that end with a version, and where the programs are below.
const BY_VERSION: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
];

/// The programs of one version of Postgres.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    bin: PathBuf,
    /// Where the loader finds libraries that this machine does not have where it looks.
    libraries: OsString,
}

impl Programs {
    /// The ones in the folder that the environment names, else those that are installed, else those
    /// that are fetched now.
    pub(super) fn find_or_install() -> Result<Self, ServerError> {
        let variable = POSTGRES.variable;
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let wanted = "folder that has `initdb` and `postgres`";
            let path = std::path::absolute(path)?;
            return Self::of(&path).ok_or(ServerError::NotAProgram { variable, path, wanted });
        }
        POSTGRES.find_or_install(|| installed().or_else(install::fetched), install::install)
    }

    /// The programs that a folder has or links to. They have to be in one folder in the end, since
    /// they look for each other and for their libraries from where they are.
    fn of(folder: &Path) -> Option<Self> {
        let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
        let bin = initdb.parent()?.to_path_buf();
        let complete = ["initdb", "postgres"].iter().all(|name| is_program(&bin.join(name)));
        complete.then_some(Self { bin, libraries: OsString::new() })
    }

    /// The same ones, which find libraries in these folders too.
    pub(super) fn with_libraries(self, libraries: OsString) -> Self {
        Self { libraries, ..self }
    }

    /// The folder they are in.
    pub(super) fn bin(&self) -> &Path {
        &self.bin
    }

    /// What has to be in the environment of a command that runs one of them.
    pub(super) fn environment(&self) -> Option<(&'static str, &OsStr)> {
        (!self.libraries.is_empty()).then_some(("LD_LIBRARY_PATH", &self.libraries))
    }

    /// Their version, such as `15.18`.
    pub(super) fn version(&self) -> io::Result<String> {
        let mut command = Command::new(self.bin.join("postgres"));
        let output = command.arg("--version").envs(self.environment()).output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = printed.split_whitespace().nth(2).map(str::to_owned);
        version.filter(|_| output.status.success()).ok_or_else(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!("postgres --version printed {printed}{complaint}"))
        })
    }
}

/// What is installed: where the `PATH` says so, else the newest one where systems keep several.
fn installed() -> Option<Programs> {
    let on_path = env::split_paths(&search_path()).find_map(|folder| Programs::of(&folder));
    on_path.or_else(|| {
        BY_VERSION.iter().find_map(|(folder, begin, rest)| newest(Path::new(folder), begin, rest))
    })
}

/// The newest version of those in `folder`.
pub(super) fn newest(folder: &Path, begin: &str, rest: &str) -> Option<Programs> {
    let version = |name: OsString| {
        let version: u32 = name.to_str()?.strip_prefix(begin)?.parse().ok()?;
        Some((version, Programs::of(&folder.join(&name).join(rest))?))
    };
    let found = fs::read_dir(folder).ok()?.filter_map(|item| version(item.ok()?.file_name()));
    found.max_by_key(|(version, _)| *version).map(|(_, programs)| programs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::machine::private_dir;

    fn install(bin: &Path) {
        fs::create_dir_all(bin).unwrap();
        for name in ["initdb", "postgres"] {
            fs::write(bin.join(name), "").unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn the_newest_version_is_taken_by_number_and_only_if_complete() {
        let folder = private_dir().unwrap();
        install(&folder.join("9/bin"));
        install(&folder.join("15/bin"));
        fs::create_dir_all(folder.join("17/bin")).unwrap();
        fs::create_dir_all(folder.join("other/bin")).unwrap();
        let found = newest(&folder, "", "bin").unwrap();
        assert_eq!(found.bin, fs::canonicalize(folder.join("15/bin")).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn programs_are_taken_from_where_their_links_lead() {
        let folder = private_dir().unwrap();
        install(&folder.join("real"));
        fs::create_dir(folder.join("links")).unwrap();
        symlink(folder.join("real/initdb"), folder.join("links/initdb")).unwrap();
        let found = Programs::of(&folder.join("links")).unwrap();
        assert_eq!(found.bin, fs::canonicalize(folder.join("real")).unwrap());
        assert!(Programs::of(&folder).is_none());
        fs::remove_dir_all(folder).unwrap();
    }
}
