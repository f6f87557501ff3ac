//! Sends signals to processes, and tells the state of a process.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::eventually::eventually;

/// How long a signal may take to show an effect: the kernel delivers it at the target's next turn.
const DELIVERY: Duration = Duration::from_secs(5);

/// Sends `signal` (`TERM`, `STOP`, ...) to process `pid`.
///
/// It asks the shell, whose `kill` is built in: `unsafe` is forbidden here, a crate for one call
/// is too much, and slim images have no `/bin/kill`.
pub fn send(pid: u32, signal: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("/bin/sh runs");
    assert!(status.success(), "process {pid} took no signal {signal}: it has ended");
}

/// Sends `signal` to all of `pids` that have not ended.
pub fn send_all(pids: &[u32], signal: &str) {
    // With its standard error closed, it does not report which processes are gone.
    let _ = Command::new("/bin/sh")
        .args([
            "-c",
            "signal=$1; shift; for pid; do kill -s \"$signal\" \"$pid\"; done",
            "sh",
            signal,
        ])
        .args(pids.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("/bin/sh runs");
}

/// Freezes process `pid` and returns once it stands still.
pub fn freeze(pid: u32) {
    send(pid, "STOP");
    // The signal arrives after `kill` returns: without this wait, the process might still answer.
    eventually(DELIVERY, "the process is frozen", || state(pid) == Some('T'));
}

/// Lets process `pid` continue.
pub fn thaw(pid: u32) {
    send(pid, "CONT");
}

/// Whether process `pid` exists and has not ended. A process that ended counts as ended even if its
/// parent has not waited for it.
///
/// A process with a thread that has not ended counts as running: its sockets are open, and a
/// blocked read still takes what is published.
pub fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' || has_other_threads(pid))
}

/// Whether process `pid` stands still after [`freeze`].
pub fn is_frozen(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The direct children of process `pid` that have not ended.
pub fn children(pid: u32) -> Vec<u32> {
    let is_child = |child: &u32| parent(*child) == Some(pid) && is_running(*child);
    processes().into_iter().filter(is_child).collect()
}

/// The state letter of process `pid`, as `ps` prints it first.
#[cfg(target_os = "linux")]
fn state(pid: u32) -> Option<char> {
    stat(pid)?.chars().next()
}

#[cfg(target_os = "linux")]
fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

/// What the kernel says about process `pid`, from its state on.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain spaces and
    // parentheses.
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

/// Whether process `pid` has more threads than its first one.
#[cfg(target_os = "linux")]
fn has_other_threads(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// All processes there are.
#[cfg(target_os = "linux")]
fn processes() -> Vec<u32> {
    let items = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    items.filter_map(|item| item.file_name().to_str()?.parse().ok()).collect()
}

/// The state letter of process `pid`, as `ps` prints it first.
#[cfg(not(target_os = "linux"))]
fn state(pid: u32) -> Option<char> {
    ps(&["-o", "stat=", "-p", &pid.to_string()]).trim_start().chars().next()
}

#[cfg(not(target_os = "linux"))]
fn parent(pid: u32) -> Option<u32> {
    ps(&["-o", "ppid=", "-p", &pid.to_string()]).trim().parse().ok()
}

/// There, a process shows as ended once all its threads have ended.
#[cfg(not(target_os = "linux"))]
fn has_other_threads(_pid: u32) -> bool {
    false
}

/// All processes there are.
#[cfg(not(target_os = "linux"))]
fn processes() -> Vec<u32> {
    ps(&["-A", "-o", "pid="]).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(not(target_os = "linux"))]
fn ps(words: &[&str]) -> String {
    let output = Command::new("ps").args(words).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
