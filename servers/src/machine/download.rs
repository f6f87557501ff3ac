//! Downloads Debian's packages and unpacks them into a folder, without installing them.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::{Missing, ServerError, complete, private_dir, search_path, temp_dir, uid, which};

/// Before: `$1` is an empty private folder, `$2` a package, `$3` patterns of packages to leave out.
/// After: `$1/unpacked` has the package's files and the libraries that this machine lacks.
///
/// Installing a server's package would start it on its usual port, now and at each boot. Downloading
/// and unpacking needs no privileges, since apt's lists are in the private folder too, and creates
/// only files.
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
set -f
patterns=$3
set +f
for package in cache/archives/*.deb; do
  wanted=yes
  set -f
  for pattern in $patterns; do
    case ${package##*/} in $pattern) wanted= ;; esac
  done
  set +f
  if [ -n "$wanted" ]; then dpkg-deb -x "$package" unpacked; fi
done
"#;

/// Whether this machine has the programs that a download needs.
pub(crate) fn can_download() -> bool {
    which("apt-get").is_some() && which("dpkg-deb").is_some()
}

/// Downloads a package into a private folder, and moves the result into place in one step.
pub(crate) fn download(
    missing: &Missing,
    [package, left_out]: [&str; 2],
    folder: &Path,
) -> Result<(), ServerError> {
    let dir = private_dir()?;
    let downloaded = download_in(missing, [package, left_out], &dir, folder);
    let _ = fs::remove_dir_all(&dir);
    downloaded
}

fn download_in(
    missing: &Missing,
    packages: [&str; 2],
    dir: &Path,
    folder: &Path,
) -> Result<(), ServerError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", DOWNLOAD, "download"]).arg(dir).args(packages);
    let done = complete(command.env("PATH", search_path()))?;
    done.map_err(|output| missing.not_installed("apt-get install --download-only", output))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(dir.join("unpacked"), folder)?;
    Ok(())
}

/// The folder for downloaded programs of a name, one per user. Root's is also readable by the
/// account that runs a server for root.
pub(crate) fn folder(name: &str) -> Result<PathBuf, ServerError> {
    Ok(temp_dir()?.join(format!("streamjobs-{name}-bin-{}", uid()?)))
}

/// Whether a folder belongs to us: a folder of that name that another user created may contain
/// anything.
pub(crate) fn is_ours(folder: &Path) -> Option<bool> {
    Some(fs::symlink_metadata(folder).ok()?.uid() == uid().ok()?)
}

/// The library folders below `root` for the loader: Debian has one for each processor architecture.
pub(crate) fn libraries(root: &Path) -> OsString {
    let folders = ["usr/lib", "lib"].iter().filter_map(|lib| fs::read_dir(root.join(lib)).ok());
    let names = folders.flatten().filter_map(Result::ok).map(|item| item.path());
    let of_processor = |path: &PathBuf| path.to_string_lossy().contains("-linux-");
    env::join_paths(names.filter(of_processor)).unwrap_or_default()
}
