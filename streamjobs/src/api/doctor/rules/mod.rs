//! What the facts mean for jobs: facts in, findings out.

use std::time::Duration;

use super::{Check, Finding, Severity, rights};
use crate::model::cause::shown;
use crate::model::version::{FAULTS, Product, Reach, Release, Security, Version, security};
use crate::store::server_info::{ClockOffset, ServerFacts, ServerSettings, ServerState};

/// Everything that is to be said of a server, in the order of the checks.
pub(super) fn examine(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (unknown, unset) = (ServerState::default(), ServerSettings::default());
    let state = facts.state.as_ref().unwrap_or(&unknown);
    let settings = facts.settings.as_ref().unwrap_or(&unset);
    findings.extend(role(state));
    findings.extend(match &facts.rights {
        Ok(found) => rights::examine(&facts.user, found),
        Err(why) => vec![scripts_refused(why)],
    });
    findings.extend(eviction(state));
    findings.extend(persistence(state, settings));
    findings.extend(disk_writes(state, settings));
    findings.extend(replicas(state, settings));
    findings.extend(cluster(state));
    findings.extend(nearly_used(state));
    if let Some(release) = &state.release {
        findings.extend(version(release));
        findings.extend(known_faults(release, state.replicas.unwrap_or(0)));
        findings.extend(security_fixes(release));
    }
    findings.extend(idle_timeout(settings));
    findings.extend(facts.clock.as_ref().ok().and_then(clock));
    findings.extend(unchecked(facts));
    findings
}

pub(super) fn critical(
    check: Check,
    what: impl Into<String>,
    meaning: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    let (what, meaning, advice) = (what.into(), meaning.into(), Some(advice.into()));
    Finding { severity: Severity::Critical, check, what, meaning, advice }
}

pub(super) fn warning(
    check: Check,
    what: impl Into<String>,
    meaning: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding { severity: Severity::Warning, ..critical(check, what, meaning, advice) }
}

pub(super) fn info(
    check: Check,
    what: impl Into<String>,
    meaning: impl Into<String>,
    advice: Option<String>,
) -> Finding {
    let (what, meaning) = (what.into(), meaning.into());
    Finding { severity: Severity::Info, check, what, meaning, advice }
}

fn role(state: &ServerState) -> Option<Finding> {
    state.replica.filter(|replica| *replica).map(|_| {
        critical(
            Check::Role,
            "the server is a replica",
            "it refuses to publish and to hand out jobs, since both are writes",
            "connect to the primary",
        )
    })
}

fn scripts_refused(why: &str) -> Finding {
    critical(
        Check::Rights,
        format!("scripts cannot be run, so that no other right could be checked: {why}"),
        "every step on a job that is held is a script: nothing is retried, renewed or buried",
        "allow EVALSHA and SCRIPT|LOAD, and ask again",
    )
}

fn eviction(state: &ServerState) -> Option<Finding> {
    let policy = state.eviction.as_deref()?;
    let advice = "set maxmemory-policy to noeviction";
    if policy == "noeviction" {
        return None;
    }
    if policy.starts_with("volatile-") {
        return Some(info(
            Check::Eviction,
            format!("maxmemory-policy is {policy}"),
            "only keys with an expiry are evicted, and streamjobs sets none: jobs are safe as long \
             as nobody else sets one on their keys",
            Some(advice.to_owned()),
        ));
    }
    let what = format!("maxmemory-policy is {policy}");
    if state.memory_max == Some(0) {
        return Some(warning(
            Check::Eviction,
            what,
            "as soon as maxmemory is set, whole streams can be evicted with every job in them",
            advice,
        ));
    }
    Some(critical(
        Check::Eviction,
        what,
        "when the memory is full, whole streams are evicted with every job and every group in them",
        advice,
    ))
}

fn persistence(state: &ServerState, settings: &ServerSettings) -> Option<Finding> {
    let advice = "set appendonly to yes";
    match (state.append_only?, settings.snapshots) {
        (true, _) => fsync(settings.fsync.as_deref()?),
        (false, Some(false)) => Some(critical(
            Check::Persistence,
            "nothing is written to disk: appendonly is off and there are no save points",
            "a restart of the server loses every job and every group",
            advice,
        )),
        (false, Some(true)) => Some(warning(
            Check::Persistence,
            "appendonly is off; only snapshots are written",
            "a crash of the server loses what was published since the last snapshot, and jobs that \
             were done since then run again",
            advice,
        )),
        (false, None) => Some(warning(
            Check::Persistence,
            "appendonly is off, and whether there are snapshots could not be learnt",
            "a crash of the server loses what was published since the last snapshot, or everything",
            advice,
        )),
    }
}

fn fsync(policy: &str) -> Option<Finding> {
    match policy {
        "always" => None,
        "no" => Some(warning(
            Check::Persistence,
            "appendfsync is no",
            "a crash of the machine loses what the operating system had not written yet, half a \
             minute as a rule",
            "set appendfsync to everysec, or to always",
        )),
        _ => Some(info(
            Check::Persistence,
            format!("appendfsync is {policy}"),
            "a crash of the machine can lose the last second of what was published",
            None,
        )),
    }
}

fn disk_writes(state: &ServerState, settings: &ServerSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if state.append_only == Some(true) && state.append_ok == Some(false) {
        findings.push(critical(
            Check::DiskWrites,
            "the last write to the append-only file failed",
            "the server refuses to publish and to hand out jobs until it succeeds",
            "look at the server's log and at its disk",
        ));
    }
    // Without save points, a failed snapshot was somebody's own request, and stops no writes.
    if state.snapshot_ok == Some(false) && settings.snapshots != Some(false) {
        findings.push(critical(
            Check::DiskWrites,
            "the last snapshot failed",
            "the server refuses to publish and to hand out jobs until one succeeds, unless \
             stop-writes-on-bgsave-error is off",
            "look at the server's log and at its disk",
        ));
    }
    if state.append_only == Some(true) && state.rewrite_ok == Some(false) {
        findings.push(warning(
            Check::DiskWrites,
            "the append-only file could not be rewritten",
            "it grows with every job until the disk is full",
            "look at the server's log and at its disk and memory",
        ));
    }
    findings
}

fn replicas(state: &ServerState, settings: &ServerSettings) -> Option<Finding> {
    let needed = settings.replicas_to_write.filter(|needed| *needed > 0)?;
    let following = state.replicas?;
    (following < needed).then(|| {
        critical(
            Check::Replicas,
            format!("min-replicas-to-write is {needed}, and {following} follow"),
            "the server refuses to publish and to hand out jobs",
            "bring the replicas back, or lower min-replicas-to-write",
        )
    })
}

fn cluster(state: &ServerState) -> Option<Finding> {
    state.cluster.filter(|cluster| *cluster).map(|_| {
        warning(
            Check::Cluster,
            "the server is a node of a cluster",
            "only streams whose slot this node serves can be used through this address; they move \
             away when the slot does",
            "keep streams of jobs on a server that is no cluster",
        )
    })
}

fn nearly_used(state: &ServerState) -> Vec<Finding> {
    let memory = share(state.memory, state.memory_max).map(|(severity, percent)| {
        let meaning = "when it is full, publishing is refused; jobs that are stored are still done";
        let what = format!("{percent} % of maxmemory is used");
        let advice = "raise maxmemory, or keep less history";
        Finding { severity, ..warning(Check::Memory, what, meaning, advice) }
    });
    let connections = share(state.connections, state.connections_max).map(|(severity, percent)| {
        let meaning = "when none is left, new processes cannot connect, nor can this one again \
                       after it lost a connection";
        let what = format!("{percent} % of maxclients are connected");
        let advice = "raise maxclients, or find out who connects so often";
        Finding { severity, ..warning(Check::Connections, what, meaning, advice) }
    });
    memory.into_iter().chain(connections).collect()
}

/// How much of it is used, in per cent, if that is much.
fn share(used: Option<u64>, most: Option<u64>) -> Option<(Severity, u64)> {
    let most = most.filter(|most| *most > 0)?;
    let percent = u128::from(used?) * 100 / u128::from(most);
    let severity = match percent {
        ..MUCH => return None,
        MUCH..NEARLY_ALL => Severity::Warning,
        _ => Severity::Critical,
    };
    Some((severity, u64::try_from(percent).unwrap_or(u64::MAX)))
}

fn version(release: &Release) -> Option<Finding> {
    match release.product {
        Product::Redis if release.version < VERSION_MIN => Some(critical(
            Check::Version,
            format!("the server is {release}, and {VERSION_MIN} or newer is needed"),
            "claims of entries whose payload is gone do not do what the scripts rest on",
            "update the server",
        )),
        Product::Other(_) => Some(info(
            Check::Version,
            format!("the server calls itself {release}"),
            "streamjobs is tested on Redis and on Valkey; faults of others are not known here",
            None,
        )),
        Product::Redis | Product::Valkey | Product::Memory => None,
    }
}

fn known_faults(release: &Release, replicas: u64) -> Vec<Finding> {
    let found = FAULTS.iter().filter_map(|fault| {
        let fixed = fault.fixed_in(release)?;
        let severity = match fault.reach {
            Reach::Used => Severity::Warning,
            Reach::Failover if replicas > 0 => Severity::Warning,
            Reach::Failover | Reach::Unused => Severity::Info,
        };
        let what = format!("{release}: {}", fault.what);
        let advice = Some(format!("update to {fixed} or later"));
        Some(Finding { severity, ..info(Check::KnownFault, what, fault.meaning, advice) })
    });
    found.collect()
}

fn security_fixes(release: &Release) -> Option<Finding> {
    match security(release) {
        Security::Fixed => None,
        Security::Behind(secure) => Some(warning(
            Check::Security,
            format!("{release} lacks security fixes that {secure} has"),
            "whoever may send commands may be able to read other keys or to run code on the server",
            format!("update to {secure} or later"),
        )),
        Security::LineLeftBehind => Some(info(
            Check::Security,
            format!(
                "no release in the line of {release} is known to have the security fixes of August 2026"
            ),
            "whoever may send commands may be able to read other keys or to run code on the server, \
             unless your distribution has put the fixes in without changing the version",
            Some("ask your distribution, or update to a later line".to_owned()),
        )),
    }
}

fn idle_timeout(settings: &ServerSettings) -> Option<Finding> {
    let timeout = settings.idle_timeout.filter(|timeout| !timeout.is_zero())?;
    Some(info(
        Check::IdleTimeout,
        format!("connections that are silent for {} are closed", shown(timeout)),
        "readers that wait for jobs are spared; a client that publishes seldom connects anew each \
         time, and an event that it sends in that moment can be unconfirmed",
        Some("set timeout to 0".to_owned()),
    ))
}

fn clock(offset: &ClockOffset) -> Option<Finding> {
    let apart = offset.apart.saturating_sub(offset.error);
    let way = if offset.ahead { "ahead of" } else { "behind" };
    (apart > CLOCKS_APART_MAX).then(|| {
        info(
            Check::Clock,
            format!("the server's clock is about {} {way} ours", shown(whole(offset.apart))),
            "leases, back-offs and retention by age go by the server's clock and are right; dates \
             that people compare with their own clock are not",
            Some("synchronise both clocks".to_owned()),
        )
    })
}

fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// What the server did not tell: a finding each for what it refused, one for all that it left out.
fn unchecked(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.state {
        Err(why) => findings.push(Finding {
            severity: Severity::Warning,
            ..not_checked("version, eviction, persistence, role, memory and connections", why)
        }),
        Ok(state) => {
            let missing = left_out(state);
            if !missing.is_empty() {
                findings.push(not_checked(&missing.join(", "), "the server does not say"));
            }
        }
    }
    if let Err(why) = &facts.settings {
        let what = "save points, appendfsync, timeout and min-replicas-to-write";
        let mut finding = not_checked(what, why);
        finding.advice = Some("allow CONFIG|GET, or look at them by hand".to_owned());
        findings.push(finding);
    }
    if let Err(why) = &facts.clock {
        findings.push(not_checked("the clock", why));
    }
    findings
}

fn left_out(state: &ServerState) -> Vec<&'static str> {
    let said = [
        ("version", state.release.is_some()),
        ("role", state.replica.is_some()),
        ("eviction", state.eviction.is_some() && state.memory_max.is_some()),
        ("persistence", state.append_only.is_some()),
        ("memory", state.memory.is_some()),
        ("connections", state.connections.is_some() && state.connections_max.is_some()),
    ];
    said.into_iter().filter(|(_, said)| !said).map(|(name, _)| name).collect()
}

fn not_checked(what: &str, why: &str) -> Finding {
    info(
        Check::Unchecked,
        format!("{what} could not be checked: {why}"),
        "what is wrong there is not in this report",
        None,
    )
}

const VERSION_MIN: Version = Version(7, 0, 0);
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);
/// Per cent from which on a limit is worth a look.
const MUCH: u128 = 80;
const NEARLY_ALL: u128 = 95;

#[cfg(test)]
mod tests;
