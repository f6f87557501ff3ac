//! The files of a new server: made once on each machine, copied for each server.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::Programs;
use crate::machine::{Account, ServerError, complete, locked, private_dir, temp_dir, uid};

/// Which form of [`MAKE`] a cluster is of. To be raised with each change of it, so that what an
/// older form made is left alone.
const FORM: u32 = 2;

/// Files by whose presence one knows that the others are there too, from the top and from below.
const KEPT: [&str; 3] = ["PG_VERSION", "pg_hba.conf", "global/pg_control"];

/// Before: `$1` is the folder of the programs, `$2` the one to be made.
/// After: a cluster that is small to copy and that nobody can enter from elsewhere, with the three
/// roles. What the owner makes in the schema `public`, where tests keep tables of their own, the
/// run role may read and write; the schema itself is the owner's alone, on versions before 15 too.
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

/// The files of a server that has never run, and what runs on copies of them.
#[derive(Debug)]
pub(super) struct Cluster {
    programs: Programs,
    /// Who owns the files and runs the server, if not we.
    account: Option<Account>,
    /// The number of whoever owns the files.
    owner: u32,
    template: PathBuf,
}

impl Cluster {
    /// The one that was made by an earlier call, by another process too, else a new one.
    pub(super) fn find_or_make() -> Result<Self, ServerError> {
        let programs = Programs::find_or_install()?;
        let account = Account::instead_of_root()?;
        // Whoever runs the server has to own its files.
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

    /// How the server's command line begins.
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

    /// Who runs the server, if not we.
    pub(super) fn account(&self) -> Option<Account> {
        self.account
    }

    /// Copies the files to `data`, which must not exist.
    pub(super) fn copy_to(&self, data: &Path) -> Result<(), ServerError> {
        self.complete(Command::new("cp").arg("-Rp").args([&self.template, data]))
    }

    /// Whether all files are there. Some systems remove what nobody has read for days.
    fn is_made(&self) -> io::Result<bool> {
        let owner = match fs::symlink_metadata(&self.template) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?.uid(),
        };
        if owner != self.owner {
            let what = format!("{} belongs to somebody else", self.template.display());
            return Err(io::Error::other(what));
        }
        Ok(KEPT.iter().all(|file| self.template.join(file).exists()))
    }

    /// Makes the files where nobody looks and then puts them in their place in one step, so that
    /// who finds them finds all of them, even if we are killed in between.
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
