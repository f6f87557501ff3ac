//! The account for servers that refuse to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

/// The users that can replace root, the one that is meant for it first.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// A user without rights of its own, with its own group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account that runs a server which refuses to run as root; `None` if we are not root and
    /// run it ourselves.
    ///
    /// # Errors
    ///
    /// If we are root and this machine has no such account.
    pub(crate) fn instead_of_root() -> io::Result<Option<Self>> {
        if super::uid()? != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let found = STAND_INS.iter().find_map(|name| named(&users, name));
        found.map(Some).ok_or_else(|| io::Error::other("there is no user to run a server but root"))
    }

    /// The user's id.
    pub(crate) fn uid(self) -> u32 {
        self.uid
    }

    /// Makes it the owner of the file at `path`.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// Makes `command` run as this account. The standard library removes root's other groups.
    pub(crate) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// The account of the user `name`, from the lines of `/etc/passwd`. An account that is root is not
/// returned.
fn named(users: &str, name: &str) -> Option<Account> {
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&name))?;
    let number = |place: usize| fields.get(place)?.parse::<u32>().ok().filter(|id| *id != 0);
    Some(Account { uid: number(2)?, gid: number(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_runs_as_root_under_another_name() {
        let users = "root:x:0:0::/:\npostgres:x:0:0::/:\nnobody:x:65534:65533:n:/:/bin/false\n";
        assert_eq!(named(users, "postgres"), None);
        assert_eq!(named(users, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(named(users, "no"), None);
    }
}
