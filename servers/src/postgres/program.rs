//! Finds the programs of Postgres.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, io};

use super::install;
use crate::machine::{Missing, ServerError, is_program, search_path};

/// The texts about a missing server.
pub(super) static POSTGRES: Missing = Missing {
    program: "Postgres",
    variable: "STREAMJOBS_POSTGRES_BIN",
    advice: "run `sudo apt-get install postgresql` (Debian, Ubuntu), `brew install postgresql` \
        (macOS), `sudo dnf install postgresql-server` (Fedora), `sudo apk add postgresql` (Alpine) \
        or `sudo pacman -S postgresql` (Arch), or set STREAMJOBS_POSTGRES_BIN to the folder that \
        has `initdb` and `postgres`",
    outcome: Mutex::new(None),
};

/// Where systems install the programs of each version of Postgres outside of the `PATH`: a folder,
/// the prefix of the names in it that end with a version, and the folder of the programs below.
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
    /// Folders with libraries that the loader does not find by itself.
    libraries: OsString,
}

impl Programs {
    /// The programs in the folder that the environment names, or else installed ones, or else
    /// downloaded ones.
    pub(super) fn find_or_install() -> Result<Self, ServerError> {
        let variable = POSTGRES.variable;
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let wanted = "folder that has `initdb` and `postgres`";
            let path = std::path::absolute(path)?;
            return Self::of(&path).ok_or(ServerError::NotAProgram { variable, path, wanted });
        }
        POSTGRES.find_or_install(|| installed().or_else(install::fetched), install::install)
    }

    /// The programs that a folder contains or links to. After links are resolved they must be in
    /// one folder, since they find each other and their libraries relative to it.
    fn of(folder: &Path) -> Option<Self> {
        let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
        let bin = initdb.parent()?.to_path_buf();
        let complete = ["initdb", "postgres"].iter().all(|name| is_program(&bin.join(name)));
        complete.then_some(Self { bin, libraries: OsString::new() })
    }

    /// The same programs, with more folders of libraries.
    pub(super) fn with_libraries(self, libraries: OsString) -> Self {
        Self { libraries, ..self }
    }

    /// The folder of the programs.
    pub(super) fn bin(&self) -> &Path {
        &self.bin
    }

    /// The environment variable that a command needs to run one of them.
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

/// The installed programs: those in the `PATH`, or else the newest version elsewhere.
fn installed() -> Option<Programs> {
    let on_path = env::split_paths(&search_path()).find_map(|folder| Programs::of(&folder));
    on_path.or_else(|| {
        BY_VERSION.iter().find_map(|(folder, begin, rest)| newest(Path::new(folder), begin, rest))
    })
}

/// The newest version in `folder`.
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
    fn the_newest_complete_version_is_chosen_by_number() {
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
    fn links_to_programs_are_resolved() {
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
