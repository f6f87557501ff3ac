//! The rules: which findings follow from the facts about a server.

use std::time::Duration;

use super::finding::{Check, Finding};
use super::{cluster, rights};
use crate::insight::condition::Condition;
use crate::insight::severity::Severity;
use crate::model::cause::shown;
use crate::model::entry::EntryId;
use crate::model::version::{KNOWN_FAULTS, Product, Reach, Release, Security, Version, security};
use crate::store::Queue;
use crate::store::server_info::{ClockOffset, ServerFacts, ServerSettings, ServerState};

/// All findings about a server, in the order of the checks.
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
    if facts.fails_over {
        findings.extend(failover(state, settings));
    }
    findings.extend(cluster::of_node(facts, state, settings));
    findings.extend(nearly_used(state));
    if let Some(release) = &state.release {
        findings.extend(version(release));
        findings.extend(known_faults(release, state.replicas.unwrap_or(0)));
        findings.extend(security_fixes(release));
    }
    findings.extend(idle_timeout(settings));
    findings.extend(nodes(settings));
    findings.extend(facts.clock.as_ref().ok().and_then(clock));
    findings.extend(unchecked(facts));
    findings
}

fn role(state: &ServerState) -> Option<Finding> {
    state.replica.filter(|replica| *replica).map(|_| {
        Finding::critical(
            Check::Role,
            "the server is a replica",
            "it refuses to publish and to deliver jobs, which are both writes",
            "connect to the primary",
        )
    })
}

fn scripts_refused(why: &str) -> Finding {
    Finding::critical(
        Check::Rights,
        format!("scripts cannot be run, so no other rights could be checked: {why}"),
        "every step on a job in flight is a script: no job is renewed, retried or dead-lettered",
        "allow EVALSHA and SCRIPT|LOAD, and run the check again",
    )
}

fn eviction(state: &ServerState) -> Option<Finding> {
    let policy = state.eviction.as_deref()?;
    let advice = "set maxmemory-policy to noeviction";
    if policy == "noeviction" {
        return None;
    }
    if policy.starts_with("volatile-") {
        return Some(Finding::info(
            Check::Eviction,
            format!("maxmemory-policy is {policy}"),
            "only keys with an expiry are evicted, and the keys of streams have none: jobs are safe \
             as long as no other client sets an expiry. The locks of unique events and the granted starts of \
             a rate have one: when the memory is full, such events can be published again too early, and a \
             burst can start too early",
            Some(advice.to_owned()),
        ));
    }
    let what = format!("maxmemory-policy is {policy}");
    if state.memory_max == Some(0) {
        return Some(Finding::warning(
            Check::Eviction,
            what,
            "if maxmemory is set later, whole streams can be evicted with every job in them",
            advice,
        ));
    }
    Some(Finding::critical(
        Check::Eviction,
        what,
        "when the memory is full, whole streams are evicted with every job and every group in them; so are \
         scheduled events, the granted starts of a rate, and the locks of unique events, which can then be \
         published again too early",
        advice,
    ))
}

fn persistence(state: &ServerState, settings: &ServerSettings) -> Option<Finding> {
    let advice = "set appendonly to yes";
    match (state.append_only?, settings.snapshots) {
        (true, _) => fsync(settings.fsync.as_deref()?),
        (false, Some(false)) => Some(Finding::critical(
            Check::Persistence,
            "nothing is written to disk: appendonly is off and there are no save points",
            "a restart of the server loses every job and every group",
            advice,
        )),
        (false, Some(true)) => Some(Finding::warning(
            Check::Persistence,
            "appendonly is off; only snapshots are written",
            "a crash of the server loses what was published since the last snapshot, and jobs that \
             were done since then run again",
            advice,
        )),
        (false, None) => Some(Finding::warning(
            Check::Persistence,
            "appendonly is off, and whether there are snapshots could not be checked",
            "a crash of the server loses what was published since the last snapshot, or everything",
            advice,
        )),
    }
}

fn fsync(policy: &str) -> Option<Finding> {
    match policy {
        "always" => None,
        "no" => Some(Finding::warning(
            Check::Persistence,
            "appendfsync is no",
            "a crash of the host loses what the operating system has not written yet, usually the \
             last 30 s",
            "set appendfsync to everysec, or to always",
        )),
        _ => Some(Finding::info(
            Check::Persistence,
            format!("appendfsync is {policy}"),
            "a crash of the host can lose the last second of what was published",
            None,
        )),
    }
}

fn disk_writes(state: &ServerState, settings: &ServerSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if state.append_only == Some(true) && state.append_ok == Some(false) {
        findings.push(Finding::critical(
            Check::DiskWrites,
            "the last write to the append-only file failed",
            "the server refuses to publish and to deliver jobs until a write succeeds",
            "check the server's log and its disk",
        ));
    }
    // Without save points, a failed snapshot was requested by hand, and does not stop writes.
    if state.snapshot_ok == Some(false) && settings.snapshots != Some(false) {
        findings.push(Finding::critical(
            Check::DiskWrites,
            "the last snapshot failed",
            "the server refuses to publish and to deliver jobs until a snapshot succeeds, unless \
             stop-writes-on-bgsave-error is off",
            "check the server's log and its disk",
        ));
    }
    if state.append_only == Some(true) && state.rewrite_ok == Some(false) {
        findings.push(Finding::warning(
            Check::DiskWrites,
            "the append-only file could not be rewritten",
            "it grows with every job until the disk is full",
            "check the server's log, its disk and its memory",
        ));
    }
    findings
}

fn replicas(state: &ServerState, settings: &ServerSettings) -> Option<Finding> {
    let needed = settings.replicas_to_write.filter(|needed| *needed > 0)?;
    let following = state.replicas?;
    (following < needed).then(|| {
        Finding::critical(
            Check::Replicas,
            format!("min-replicas-to-write is {needed}, and {following} replicas are connected"),
            "the server refuses to publish and to deliver jobs",
            "reconnect the replicas, or lower min-replicas-to-write",
        )
    })
}

/// What a failover by Sentinel loses. Too few replicas for the setting are a finding of their own.
fn failover(state: &ServerState, settings: &ServerSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.replicas_to_write != Some(0) {
        return findings;
    }
    findings.push(Finding::warning(
        Check::Replicas,
        "min-replicas-to-write is 0, and Sentinel can make a replica the primary",
        "a failover loses confirmed events: events that the replica did not have yet when the primary \
         crashed, and events that any client still sends to a former primary that has not been told, for \
         about 10 s after SENTINEL FAILOVER",
        "set min-replicas-to-write to 1 and min-replicas-max-lag to a few seconds on the primary and \
         on every replica; the primary then refuses to publish and to deliver jobs while it has no \
         replica",
    ));
    if state.replicas == Some(0) {
        findings.push(Finding::warning(
            Check::Replicas,
            "Sentinel has no replica that it could make the primary",
            "when the primary fails, jobs wait until it is back",
            "connect a replica",
        ));
    }
    findings
}

fn nearly_used(state: &ServerState) -> Vec<Finding> {
    let memory = share(state.memory, state.memory_max).map(|(severity, percent)| {
        let meaning = "when the memory is full, publishing is refused; stored jobs still run";
        let what = format!("{percent} % of maxmemory is used");
        let advice = "raise maxmemory, or keep less history";
        Finding { severity, ..Finding::warning(Check::Memory, what, meaning, advice) }
    });
    let connections = share(state.connections, state.connections_max).map(|(severity, percent)| {
        let meaning = "when no connection is left, new processes cannot connect, and this \
                       process cannot reconnect";
        let what = format!("{percent} % of maxclients are connected");
        let advice = "raise maxclients, or find the clients that hold many connections";
        Finding { severity, ..Finding::warning(Check::Connections, what, meaning, advice) }
    });
    memory.into_iter().chain(connections).collect()
}

/// The used share in percent, if it is high.
fn share(used: Option<u64>, most: Option<u64>) -> Option<(Severity, u64)> {
    let most = most.filter(|most| *most > 0)?;
    let percent = u128::from(used?) * 100 / u128::from(most);
    let severity = match percent {
        ..HIGH => return None,
        HIGH..NEARLY_ALL => Severity::Warning,
        _ => Severity::Critical,
    };
    Some((severity, u64::try_from(percent).unwrap_or(u64::MAX)))
}

fn version(release: &Release) -> Option<Finding> {
    match release.product {
        Product::Redis if release.version < VERSION_MIN => Some(Finding::critical(
            Check::Version,
            format!("the server is {release}, and {VERSION_MIN} or newer is needed"),
            "claims of entries whose payload was trimmed do not behave as the scripts require",
            "update the server",
        )),
        Product::Other(_) => Some(Finding::info(
            Check::Version,
            format!("the server reports itself as {release}"),
            "streamjobs is tested on Redis and Valkey; faults of other products are not known",
            None,
        )),
        Product::Redis | Product::Valkey | Product::Memory => None,
    }
}

fn known_faults(release: &Release, replicas: u64) -> Vec<Finding> {
    let found = KNOWN_FAULTS.iter().filter_map(|fault| {
        let fixed = fault.fixed_in(release)?;
        let severity = match fault.reach {
            Reach::Used => Severity::Warning,
            Reach::Failover if replicas > 0 => Severity::Warning,
            Reach::Failover | Reach::Unused => Severity::Info,
        };
        let what = format!("{release}: {}", fault.what);
        let advice = Some(format!("update to {fixed} or later"));
        Some(Finding { severity, ..Finding::info(Check::KnownFault, what, fault.meaning, advice) })
    });
    found.collect()
}

fn security_fixes(release: &Release) -> Option<Finding> {
    match security(release) {
        Security::Fixed => None,
        Security::Behind(secure) => Some(Finding::warning(
            Check::Security,
            format!("{release} lacks security fixes that {secure} has"),
            "a client that may send commands may be able to read other keys or run code on the server",
            format!("update to {secure} or later"),
        )),
        Security::LineLeftBehind => Some(Finding::info(
            Check::Security,
            format!(
                "no release in the line of {release} is known to have the security fixes of August 2026"
            ),
            "a client that may send commands may be able to read other keys or run code on the \
             server, unless your distribution has backported the fixes",
            Some("ask your distribution, or update to a later line".to_owned()),
        )),
    }
}

fn idle_timeout(settings: &ServerSettings) -> Option<Finding> {
    let timeout = settings.idle_timeout.filter(|timeout| !timeout.is_zero())?;
    Some(Finding::info(
        Check::IdleTimeout,
        format!("connections that are idle for {} are closed", shown(timeout)),
        "readers that wait for jobs are not affected; a client that publishes less often reconnects \
         each time, and an event that it sends at that moment can be unconfirmed",
        Some("set timeout to 0".to_owned()),
    ))
}

/// Approximate retention removes whole nodes, and only nodes that fit into the limit of one trim.
fn nodes(settings: &ServerSettings) -> Option<Finding> {
    (settings.node_entries_max == Some(0)).then(|| {
        Finding::warning(
            Check::Retention,
            "stream-node-max-entries is 0",
            "a node of a stream can hold any number of entries, and retention removes whole nodes: it \
             may remove nothing, so that streams grow until the memory is full",
            "set stream-node-max-entries to 100, which is the server's default",
        )
    })
}

/// A cursor beyond the stream's last id, which new entries do not reach either.
pub(super) fn cursor(queue: &Queue, cursor: EntryId, beyond: Option<EntryId>) -> Option<Finding> {
    let last = beyond?;
    let Queue { stream, group } = queue;
    Some(Finding::critical(
        Check::Cursor,
        format!("group {group} on stream {stream} reads after {cursor}, beyond the last id {last}"),
        "nothing is delivered to the group, now or later",
        Condition::CursorBeyond.advice(),
    ))
}

fn clock(offset: &ClockOffset) -> Option<Finding> {
    let apart = offset.apart.saturating_sub(offset.error);
    let way = if offset.ahead { "ahead of" } else { "behind" };
    (apart > CLOCKS_APART_MAX).then(|| {
        Finding::info(
            Check::Clock,
            format!("the server's clock is about {} {way} this host's", shown(whole(offset.apart))),
            "leases, back-offs and retention by age use the server's clock and are right; shown \
             times differ from this host's clock",
            Some("synchronise both clocks".to_owned()),
        )
    })
}

fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// What the server did not report: one finding for each refusal, and one for all missing values.
fn unchecked(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.state {
        Err(why) => findings.push(Finding {
            severity: Severity::Warning,
            ..not_checked("version, eviction, persistence, role, memory and connections", why)
        }),
        Ok(state) => {
            let missing = missing_values(state);
            if !missing.is_empty() {
                findings.push(not_checked(&missing.join(", "), "the server does not report it"));
            }
        }
    }
    if let Err(why) = &facts.settings {
        let mut what =
            "save points, appendfsync, timeout, min-replicas-to-write and stream-node-max-entries"
                .to_owned();
        if facts.cluster_ok.is_some() {
            what.push_str(", and the settings of the cluster");
        }
        let mut finding = not_checked(&what, why);
        finding.advice = Some("allow CONFIG|GET, or check them by hand".to_owned());
        findings.push(finding);
    }
    if let Err(why) = &facts.clock {
        findings.push(not_checked("the clock", why));
    }
    findings
}

fn missing_values(state: &ServerState) -> Vec<&'static str> {
    let reported = [
        ("version", state.release.is_some()),
        ("role", state.replica.is_some()),
        ("eviction", state.eviction.is_some() && state.memory_max.is_some()),
        ("persistence", state.append_only.is_some()),
        ("memory", state.memory.is_some()),
        ("connections", state.connections.is_some() && state.connections_max.is_some()),
    ];
    reported.into_iter().filter(|(_, reported)| !reported).map(|(name, _)| name).collect()
}

fn not_checked(what: &str, why: &str) -> Finding {
    Finding::info(
        Check::Unchecked,
        format!("{what} could not be checked: {why}"),
        "this report does not say whether there are problems",
        None,
    )
}

const VERSION_MIN: Version = Version(7, 0, 0);
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);
/// How much of a limit has to be used, in percent, before this is reported.
const HIGH: u128 = 80;
const NEARLY_ALL: u128 = 95;

#[cfg(test)]
mod tests;
