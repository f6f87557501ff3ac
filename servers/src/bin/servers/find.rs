//! Servers that are on this machine, each asked for its version.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt};

/// The names of a server's program; Debian's tools packages install it under the last two.
const NAMES: [&str; 4] = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"];

/// Folders in which servers are installed even if `PATH` does not contain them.
const WELL_KNOWN: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/opt/redis/bin:\
    /opt/valkey/bin:/opt/redis-stack/bin:/opt/homebrew/bin:/home/linuxbrew/.linuxbrew/bin";

/// A server that runs on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    kind: String,
    version: Vec<u32>,
    pub(crate) program: PathBuf,
}

impl Server {
    /// Asks a program which server it is.
    pub(crate) fn ask(program: &Path) -> Result<Self, String> {
        let mut command = Command::new(program);
        if program.to_string_lossy().ends_with("-check-rdb") {
            // The same program acts by the name with which it is called.
            command.arg0("redis-server");
        }
        let output = command.arg("--version").output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let reason = || match String::from_utf8_lossy(&output.stderr).trim() {
            "" => format!("{} does not say its version", program.display()),
            error => error.to_owned(),
        };
        Self::read(&text, program).ok_or_else(reason)
    }

    /// Reads what a server reports about itself: `Redis server v=7.0.15 sha=…`.
    fn read(text: &str, program: &Path) -> Option<Self> {
        let (kind, rest) = text.split_once(" server v=")?;
        let version = rest.split_whitespace().next()?.split('.').map(str::parse);
        let version = version.collect::<Result<Vec<u32>, _>>().ok()?;
        let kind = kind.split_whitespace().last()?.to_owned();
        Some(Self { kind, version, program: program.to_owned() })
    }

    /// Whether this is what `wanted` names: `Redis 7.2`, or `Valkey` for any version.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        let mut words = wanted.split(' ');
        let parts =
            |version: &str| version.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>();
        words.next() == Some(&self.kind)
            && words.next().is_none_or(|version| {
                parts(version).is_ok_and(|version| self.version.starts_with(&version))
            })
    }

    /// What servers are sorted by. Two with the same value are the same server.
    pub(crate) fn order(&self) -> (&str, &[u32]) {
        (&self.kind, &self.version)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        f.pad(&format!("{} {version}", self.kind))
    }
}

/// Every server that the environment names or that is installed.
pub(crate) fn all() -> Vec<Server> {
    let listed = |name: &str| env::var_os(name).unwrap_or_default();
    let named = env::split_paths(&listed("STREAMJOBS_SERVERS"))
        .filter(|path| !path.as_os_str().is_empty())
        .collect::<Vec<_>>();
    let path = listed("PATH");
    let folders = env::split_paths(&path).chain(env::split_paths(WELL_KNOWN));
    let installed = folders.flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let mut servers = Vec::new();
    for program in named {
        match Server::ask(&program) {
            Ok(server) => servers.push(server),
            Err(reason) => println!("STREAMJOBS_SERVERS: {reason}"),
        }
    }
    servers.extend(
        installed
            .filter(|program| program.is_file())
            .filter_map(|program| Server::ask(&program).ok()),
    );
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_what_they_say_of_themselves() {
        let server = |text: &str| Server::read(text, Path::new("/x"));
        let redis = server("Redis server v=7.2.4 sha=00000000:0 malloc=libc bits=64").unwrap();
        assert!(redis.is("Redis 7.2") && redis.is("Redis 7.2.4") && redis.is("Redis"));
        assert!(!redis.is("Redis 7.4") && !redis.is("Valkey"));
        assert!(!server("Redis server v=8.10.2 x").unwrap().is("Redis 8.1"));
        let valkey = server("Valkey server v=9.1.2 sha=0").unwrap();
        assert!(valkey.is("Valkey") && !valkey.is("Redis"));
        assert_eq!(valkey.to_string(), "Valkey 9.1.2");
        assert!(server("something else").is_none() && server("Redis server v=x").is_none());
    }
}
