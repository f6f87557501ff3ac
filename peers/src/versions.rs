//! The conditions of a run: versions of crates from the lock file, and the machine.

use std::fs;

use chrono::Utc;

const LOCK: &str = include_str!("../Cargo.lock");

/// The version of a crate that this was built with. Where there are several, it is the newest, which
/// is the one that this crate uses.
pub(crate) fn version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"");
    let packages = LOCK.split("[[package]]");
    let entry = packages.filter(|entry| entry.lines().any(|line| line == name)).last();
    let version = |line: &'static str| line.strip_prefix("version = \"")?.strip_suffix('"');
    entry.and_then(|entry| entry.lines().find_map(version)).unwrap_or("unknown")
}

/// The date and the machine.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    format!("{}, {cores} cores ({model})", Utc::now().format("%Y-%m-%d"))
}

/// The load average of the machine over 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
