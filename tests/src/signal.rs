//! Signals to processes, and what state a process is in.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::eventually::eventually;

/// How long a signal may take to show: the kernel delivers it at the target's next turn.
const DELIVERY: Duration = Duration::from_secs(5);

/// Sends `signal` (`TERM`, `STOP`, ...) to process `pid`.
///
/// It asks the shell, whose `kill` is built in: `unsafe` is forbidden here, a crate for one call
/// is dear, and slim images carry no `/bin/kill`.
pub(crate) fn send(pid: u32, signal: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("/bin/sh runs");
    assert!(status.success(), "process {pid} took no signal {signal}: it has ended");
}

/// Stops process `pid` in its tracks and returns once it stands still.
pub(crate) fn freeze(pid: u32) {
    send(pid, "STOP");
    // The signal arrives after `kill` returns: without this wait the process might answer still.
    eventually(DELIVERY, "the process is frozen", || state(pid) == Some('T'));
}

/// Lets process `pid` go on.
pub(crate) fn thaw(pid: u32) {
    send(pid, "CONT");
}

/// Whether process `pid` exists and has not ended; one that ended but was not waited for has.
pub(crate) fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// The state letter of process `pid`, as `ps` prints it first.
#[cfg(target_os = "linux")]
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, which may hold spaces and brackets.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The state letter of process `pid`, as `ps` prints it first.
#[cfg(not(target_os = "linux"))]
fn state(pid: u32) -> Option<char> {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim_start().chars().next()
}
