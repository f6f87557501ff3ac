//! The data directory of a new server: created once per machine, copied for each server.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::program::Programs;
use crate::machine::{Account, ServerError, complete, locked, private_dir, temp_dir, uid};

/// The version of [`MAKE`]. Increase it with each change, so that templates of an older version are
/// not used.
const FORM: u32 = 2;

/// Files that exist only in a complete template.
const KEPT: [&str; 3] = ["PG_VERSION", "pg_hba.conf", "global/pg_control"];

/// Before: `$1` is the folder of the programs, `$2` the folder to create. After: `$2` is a small
/// cluster with the three roles that accepts only local connections. The run role may read and
/// write what the owner creates in the schema `public`, where tests have tables of their own. Only
/// the owner may create in that schema, also on versions before 15.
const MAKE: &str = r#"
set -e
"$1/initdb" -D "$2" -U streamjobs_admin -A trust -E UTF8 --locale=C --wal-segsize=4 --no-sync
printf '%s\n' 'local all all trust' 'host all all 127.0.0.1/32 trust' >"$2/pg_hba.conf"
"$1/postgres" --single -D "$2" -c exit_on_error=on -c fsync=off template1 <<'SQL'
CREATE ROLE streamjobs_migrate LOGIN
CREATE ROLE streamjobs_run LOGIN
ALTER SCHEMA public OWNER TO streamjobs_migrate
REVOKE CREATE ON SCHEMA public FROM PUBLIC
ALTER DEFAULT PRIVILEGES FOR ROLE streamjobs_migrate IN SCHEMA public \
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO streamjobs_run
ALTER DEFAULT PRIVILEGES FOR ROLE streamjobs_migrate IN SCHEMA public \
GRANT USAGE ON SEQUENCES TO streamjobs_run
SQL
"#;

/// The template of a data directory, and the programs that run on copies of it.
#[derive(Debug)]
pub(super) struct Cluster {
    programs: Programs,
    /// The account that owns the files and runs the server, if it is not the current one.
    account: Option<Account>,
    /// The user id of the owner of the files.
    owner: u32,
    template: PathBuf,
}

impl Cluster {
    /// The template that an earlier call of any process created, or else a new one.
    pub(super) fn find_or_make() -> Result<Self, ServerError> {
        let programs = Programs::find_or_install()?;
        let account = Account::instead_of_root()?;
        // The account that runs the server must own its files.
        let owner = account.map_or_else(uid, |account| Ok(account.uid()))?;
        let version = programs.version()?;
        let name = format!("streamjobs-postgres-{version}-{owner}-{FORM}");
        let template = temp_dir()?.join(name);
        let cluster = Self { programs, account, owner, template };
        if !cluster.is_made()? {
            locked(|| if cluster.is_made()? { Ok(()) } else { cluster.make() })?;
        }
        Ok(cluster)
    }

    /// The first words of the server's command line.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words = vec!["/usr/bin/env".into()];
        words.extend(self.programs.environment().map(|(name, value)| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        }));
        words.push(self.programs.bin().join("postgres").into_os_string());
        words
    }

    /// The account that runs the server, if it is not the current one.
    pub(super) fn account(&self) -> Option<Account> {
        self.account
    }

    /// Copies the files to `data`, which must not exist.
    pub(super) fn copy_to(&self, data: &Path) -> Result<(), ServerError> {
        self.complete(Command::new("cp").arg("-Rp").args([&self.template, data]))
    }

    /// Whether the template is complete. Some systems delete files that were not read for days.
    fn is_made(&self) -> io::Result<bool> {
        let owner = match fs::symlink_metadata(&self.template) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?.uid(),
        };
        if owner != self.owner {
            let what = format!("{} belongs to another user", self.template.display());
            return Err(io::Error::other(what));
        }
        Ok(KEPT.iter().all(|file| self.template.join(file).exists()))
    }

    /// Creates the files in a private folder and then moves them into place in one step, so that
    /// the template is complete whenever it exists, even if this process is killed.
    fn make(&self) -> Result<(), ServerError> {
        let dir = private_dir()?;
        let made = self.make_in(&dir);
        let _ = fs::remove_dir_all(&dir);
        made
    }

    fn make_in(&self, dir: &Path) -> Result<(), ServerError> {
        if let Some(account) = self.account {
            account.own(dir)?;
        }
        let data = dir.join("data");
        let mut command = Command::new("/bin/sh");
        command.current_dir(dir).args(["-c", MAKE, "make"]).args([self.programs.bin(), &data]);
        self.complete(command.envs(self.programs.environment()))?;
        if self.template.exists() {
            fs::remove_dir_all(&self.template)?;
        }
        fs::rename(data, &self.template)?;
        Ok(())
    }

    /// Runs a command to its end, as the account that owns the files.
    fn complete(&self, command: &mut Command) -> Result<(), ServerError> {
        if let Some(account) = self.account {
            account.run(command);
        }
        complete(command)?.map_err(|output| ServerError::NotPrepared { output })
    }
}
