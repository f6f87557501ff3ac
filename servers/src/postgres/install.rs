//! Fetches a Postgres where there is none, and changes as little of the machine as can be.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::{POSTGRES, Programs, newest};
use crate::machine::{ServerError, apt, complete, private_dir, search_path, temp_dir, uid, which};

/// Before: `$1` is an empty folder of ours.
/// After: `$1/unpacked` has Debian's Postgres and all it needs that this machine does not have.
///
/// To install the package would make a cluster on port 5432 and start it, now and at each boot. To
/// download and unpack it takes no rights at all, as long as apt keeps its lists in our folder too,
/// and leaves nothing but files. What is only for compiling queries, for Perl and for other
/// languages is half of it and is left packed.
const DOWNLOAD: &str = r#"
set -e
cd "$1"
mkdir -p state/lists/partial cache/archives/partial unpacked
fetch() {
  apt-get -q -o Dir::State="$1/state" -o Dir::State::status=/var/lib/dpkg/status \
    -o Dir::Cache="$1/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::Retries=2 $2
}
fetch "$1" update
fetch "$1" 'install -y --no-install-recommends --download-only postgresql'
for package in cache/archives/*.deb; do
  case ${package##*/} in libllvm*|libz3*|libperl*|perl*|locales*) continue ;; esac
  dpkg-deb -x "$package" unpacked
done
"#;

/// Where systems keep the names and rules of time zones. Debian's Postgres looks nowhere else, and
/// clients ask it for UTC by its name.
const ZONES: &str = "/usr/share/zoneinfo/UTC";

/// What an earlier call has fetched, by another process too, if it is complete and still runs.
pub(super) fn fetched() -> Option<Programs> {
    let folder = folder().ok()?;
    // Whoever else made a folder of that name may have put anything into it.
    let ours = fs::symlink_metadata(&folder).ok()?.uid() == uid().ok()?;
    let programs = newest(&folder.join("usr/lib/postgresql"), "", "bin").filter(|_| ours)?;
    let programs = programs.with_libraries(libraries(&folder));
    programs.version().is_ok().then_some(programs)
}

/// Fetches a Postgres, or installs one where that cannot be done without.
pub(super) fn install() -> Result<(), ServerError> {
    if which("apt-get").is_some() && which("dpkg-deb").is_some() {
        let folder = folder()?;
        POSTGRES.announce(&format!("downloading Debian's into {}", folder.display()));
        return download(&folder).and_then(|()| ensure_zones());
    }
    if which("brew").is_some() {
        POSTGRES.announce("installing postgresql@17 with brew");
        let brew = ["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "postgresql@17"];
        return POSTGRES.run(&brew);
    }
    Err(POSTGRES.not_found())
}

/// Where what was fetched is kept: everybody's own, but for the account that root runs a server as,
/// which has to reach it.
fn folder() -> Result<PathBuf, ServerError> {
    Ok(temp_dir()?.join(format!("streamjobs-postgres-bin-{}", uid()?)))
}

fn download(folder: &Path) -> Result<(), ServerError> {
    let dir = private_dir()?;
    let downloaded = download_in(&dir, folder);
    let _ = fs::remove_dir_all(&dir);
    downloaded
}

/// Downloads where nobody looks and puts all of it in its place in one step.
fn download_in(dir: &Path, folder: &Path) -> Result<(), ServerError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", DOWNLOAD, "download"]).arg(dir).env("PATH", search_path());
    let done = complete(&mut command)?;
    done.map_err(|output| POSTGRES.not_installed("apt-get install --download-only", output))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(dir.join("unpacked"), folder)?;
    Ok(())
}

/// Installs the one part that is of no use in a folder of ours, where a slim image lacks it.
fn ensure_zones() -> Result<(), ServerError> {
    match apt() {
        Some(apt) if !Path::new(ZONES).exists() => {
            POSTGRES.announce("installing tzdata with apt-get for it");
            POSTGRES.install_with(&apt, "tzdata")
        }
        _ => Ok(()),
    }
}

/// The folders of libraries below `root`, as the loader wants them: on Debian each processor's
/// libraries have their own.
fn libraries(root: &Path) -> OsString {
    let folders = ["usr/lib", "lib"].iter().filter_map(|lib| fs::read_dir(root.join(lib)).ok());
    let names = folders.flatten().filter_map(Result::ok).map(|item| item.path());
    let of_processor = |path: &PathBuf| path.to_string_lossy().contains("-linux-");
    env::join_paths(names.filter(of_processor)).unwrap_or_default()
}
