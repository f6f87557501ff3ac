//! What private servers of any kind need from this machine: a port, a folder, a program, a shell that
//! ends them, and an account as which they may run.

use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

mod account;
mod download;
mod error;
mod guardian;
mod program;

pub use self::error::ServerError;

pub(crate) use self::account::Account;
pub(crate) use self::download::{can_download, download, folder, is_ours, libraries};
pub(crate) use self::guardian::{Ending, Guardian};
pub(crate) use self::program::{Missing, apt, complete, is_program, locked, search_path, which};

/// How many ports to try before the cause must be something else.
pub(crate) const PORTS_TRIED: usize = 20;

/// The ports for servers: below those that systems use for outgoing connections (from 32768 on
/// Linux). In that range, a client's connection could take the port while the server restarts, and a
/// client that connects to it meanwhile may even be connected to itself.
const PORTS: std::ops::Range<u64> = 16_000..32_000;

/// A port that was free a moment ago. Another process may take it before the server does.
pub(crate) fn free_port() -> io::Result<u16> {
    let mut last = io::Error::other("no port was tried");
    for _ in 0..PORTS_TRIED {
        let port = u16::try_from(PORTS.start + random() % (PORTS.end - PORTS.start))
            .expect("all ports in the range are ports");
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Starts a server on a free port. Tries another port while the server's log says, with the words
/// `lost`, that another process has taken the port.
pub(crate) fn on_free_port<T>(
    lost: &str,
    start: impl Fn(u16) -> Result<T, ServerError>,
) -> Result<T, ServerError> {
    let mut last = ServerError::NoPort;
    for _ in 0..PORTS_TRIED {
        match start(free_port()?) {
            Err(ServerError::Ended { log }) if log.contains(lost) => {
                last = ServerError::Ended { log };
            }
            answer => return answer,
        }
    }
    Err(last)
}

/// The folder in which servers keep their files: the system's temporary folder, or the usual one if
/// we are root and the account that needs it cannot access the former, for example because it is in
/// root's home.
pub(crate) fn temp_dir() -> io::Result<PathBuf> {
    let own = std::path::absolute(std::env::temp_dir())?;
    let open_to_all = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 1 != 0);
    let usual = uid()? == 0 && !own.ancestors().all(open_to_all);
    Ok(if usual { "/tmp".into() } else { own })
}

/// Makes a new folder that only this user can read.
pub(crate) fn private_dir() -> io::Result<PathBuf> {
    make_in(&temp_dir()?)
}

fn make_in(root: &Path) -> io::Result<PathBuf> {
    loop {
        let dir = root.join(format!("streamjobs-{:016x}", random()));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|()| dir),
        }
    }
}

/// The id of the user who runs us, read from something that we own, without a system call.
pub(crate) fn uid() -> io::Result<u32> {
    if let Ok(process) = fs::metadata("/proc/self") {
        return Ok(process.uid());
    }
    let dir = make_in(&std::env::temp_dir())?;
    let owner = fs::metadata(&dir).map(|meta| meta.uid());
    fs::remove_dir(dir)?;
    owner
}

/// Numbers that differ between processes and calls: the standard library seeds each hasher
/// differently.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
