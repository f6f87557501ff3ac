//! Downloads or installs Postgres and PgBouncer if they are missing, with few changes to the machine.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::program::{POSTGRES, Programs, newest};
use crate::machine::{
    Missing, ServerError, apt, complete, private_dir, search_path, temp_dir, uid, which,
};

/// Before: `$1` is an empty private folder, `$2` a package.
/// After: `$1/unpacked` has Debian's package and the libraries that this machine lacks.
///
/// Installing the package would create a cluster on port 5432 and start it, now and at each boot.
/// Downloading and unpacking needs no privileges, since apt's lists are in the private folder too,
/// and leaves only files. The packages for query compilation, Perl and other languages are half of
/// the download and are not unpacked.
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
fetch "$1" "install -y --no-install-recommends --download-only $2"
for package in cache/archives/*.deb; do
  case ${package##*/} in libllvm*|libz3*|libperl*|perl*|locales*) continue ;; esac
  dpkg-deb -x "$package" unpacked
done
"#;

/// A file of the time zone database. Debian's Postgres reads only the system's, and clients set the
/// time zone UTC by its name.
const ZONES: &str = "/usr/share/zoneinfo/UTC";

/// The programs that an earlier call of any process downloaded, if they are complete and run.
pub(super) fn fetched() -> Option<Programs> {
    let folder = fetched_folder(POSTGRES_BIN)?;
    let programs = newest(&folder.join("usr/lib/postgresql"), "", "bin")?;
    let programs = programs.with_libraries(libraries(&folder));
    programs.version().is_ok().then_some(programs)
}

/// Downloads Postgres, or installs it where a download is not possible.
pub(super) fn install() -> Result<(), ServerError> {
    if can_download() {
        return download(&POSTGRES, POSTGRES_BIN, "postgresql").and_then(|()| ensure_zones());
    }
    if which("brew").is_some() {
        POSTGRES.announce("installing postgresql@17 with brew");
        let brew = ["env", "HOMEBREW_NO_AUTO_UPDATE=1", "brew", "install", "postgresql@17"];
        return POSTGRES.run(&brew);
    }
    Err(POSTGRES.not_found())
}

/// Whether packages can be downloaded and unpacked.
pub(super) fn can_download() -> bool {
    which("apt-get").is_some() && which("dpkg-deb").is_some()
}

/// The folder that an earlier call of any process downloaded a package into.
pub(super) fn fetched_folder(name: &str) -> Option<PathBuf> {
    let folder = folder(name).ok()?;
    // A folder of that name that another user created may contain anything.
    let ours = fs::symlink_metadata(&folder).ok()?.uid() == uid().ok()?;
    ours.then_some(folder)
}

/// Downloads Debian's package with the missing program into the folder for it.
pub(super) fn download(missing: &Missing, name: &str, package: &str) -> Result<(), ServerError> {
    let folder = folder(name)?;
    missing.announce(&format!("downloading Debian's into {}", folder.display()));
    let dir = private_dir()?;
    let downloaded = download_in(&dir, missing, package, &folder);
    let _ = fs::remove_dir_all(&dir);
    downloaded
}

/// The folder for downloaded programs, one per user. Root's is also readable by the account that
/// runs the server for root.
fn folder(name: &str) -> Result<PathBuf, ServerError> {
    Ok(temp_dir()?.join(format!("streamjobs-{name}-{}", uid()?)))
}

/// Downloads into a private folder, and moves the result into place in one step.
fn download_in(
    dir: &Path,
    missing: &Missing,
    package: &str,
    folder: &Path,
) -> Result<(), ServerError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", DOWNLOAD, "download"]).arg(dir).arg(package).env("PATH", search_path());
    let done = complete(&mut command)?;
    done.map_err(|output| missing.not_installed("apt-get install --download-only", output))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(dir.join("unpacked"), folder)?;
    Ok(())
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

/// The library folders below `root` for the loader: Debian has one for each processor architecture.
pub(super) fn libraries(root: &Path) -> OsString {
    let folders = ["usr/lib", "lib"].iter().filter_map(|lib| fs::read_dir(root.join(lib)).ok());
    let names = folders.flatten().filter_map(Result::ok).map(|item| item.path());
    let of_processor = |path: &PathBuf| path.to_string_lossy().contains("-linux-");
    env::join_paths(names.filter(of_processor)).unwrap_or_default()
}

/// The name of the folder for a downloaded Postgres.
const POSTGRES_BIN: &str = "postgres-bin";
