//! Downloads or installs Postgres if it is missing, with few changes to the machine.

use std::path::Path;

use super::program::{POSTGRES, Programs, newest};
use crate::machine::{ServerError, apt, can_download, download, folder, is_ours, libraries, which};

/// Packages for query compilation, Perl and other languages, which are half of the download.
const LEFT_OUT: &str = "libllvm* libz3* libperl* perl* locales*";

/// A file of the time zone database. Debian's Postgres reads only the system's, and clients set the
/// time zone UTC by its name.
const ZONES: &str = "/usr/share/zoneinfo/UTC";

/// The programs that an earlier call of any process downloaded, if they are complete and run.
pub(super) fn fetched() -> Option<Programs> {
    let folder = folder("postgres").ok()?;
    let ours = is_ours(&folder)?;
    let programs = newest(&folder.join("usr/lib/postgresql"), "", "bin").filter(|_| ours)?;
    let programs = programs.with_libraries(libraries(&folder));
    programs.version().is_ok().then_some(programs)
}

/// Downloads Postgres, or installs it if a download is not possible.
pub(super) fn install() -> Result<(), ServerError> {
    if can_download() {
        let folder = folder("postgres")?;
        POSTGRES.announce(&format!("downloading Debian's into {}", folder.display()));
        let downloaded = download(&POSTGRES, ["postgresql", LEFT_OUT], &folder);
        return downloaded.and_then(|()| ensure_zones());
    }
    if which("brew").is_some() {
        POSTGRES.announce("installing postgresql@17 with brew");
        let brew = ["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "postgresql@17"];
        return POSTGRES.run(&brew);
    }
    Err(POSTGRES.not_found())
}

/// Installs the time zone database if a slim image lacks it: it is read only from its system path.
fn ensure_zones() -> Result<(), ServerError> {
    match apt() {
        Some(apt) if !Path::new(ZONES).exists() => {
            POSTGRES.announce("installing tzdata with apt-get for it");
            POSTGRES.install_with(&apt, "tzdata")
        }
        _ => Ok(()),
    }
}
