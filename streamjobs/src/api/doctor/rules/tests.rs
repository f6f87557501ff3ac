//! Facts of one kind at a time, and the findings about them.

use super::*;
use crate::store::server_info::Rights;

/// A server without findings.
fn healthy() -> ServerFacts {
    let state = ServerState {
        release: Some(Release { product: Product::Redis, version: Version(8, 10, 2) }),
        replica: Some(false),
        cluster: Some(false),
        replicas: Some(0),
        connections: Some(10),
        connections_max: Some(10_000),
        memory: Some(10),
        memory_max: Some(1_000),
        eviction: Some("noeviction".to_owned()),
        append_only: Some(true),
        append_ok: Some(true),
        rewrite_ok: Some(true),
        snapshot_ok: Some(true),
    };
    let settings = ServerSettings {
        snapshots: Some(true),
        fsync: Some("always".to_owned()),
        idle_timeout: Some(Duration::ZERO),
        replicas_to_write: Some(0),
        node_entries_max: Some(100),
        ..ServerSettings::default()
    };
    ServerFacts {
        address: "host:1".to_owned(),
        user: "bob".to_owned(),
        fails_over: false,
        cluster_ok: None,
        state: Ok(state),
        settings: Ok(settings),
        rights: Ok(Rights::default()),
        clock: Ok(ClockOffset { apart: Duration::ZERO, error: Duration::ZERO, ahead: false }),
    }
}

/// The findings after a change of the state or the settings.
fn found(change: impl FnOnce(&mut ServerState, &mut ServerSettings)) -> Vec<(Severity, Check)> {
    let mut facts = healthy();
    let (state, settings) = (facts.state.as_mut().unwrap(), facts.settings.as_mut().unwrap());
    change(state, settings);
    examine(&facts).into_iter().map(|finding| (finding.severity, finding.check)).collect()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

use Severity::{Critical, Info, Warning};

#[test]
fn a_healthy_server_has_no_findings() {
    assert_eq!(found(|_, _| ()), []);
}

#[test]
fn eviction_is_as_bad_as_what_can_be_evicted() {
    for (policy, memory_max, expected) in [
        ("noeviction", 1_000, None),
        ("allkeys-lru", 1_000, Some(Critical)),
        ("allkeys-random", 1_000, Some(Critical)),
        ("allkeys-lru", 0, Some(Warning)),
        ("volatile-ttl", 1_000, Some(Info)),
    ] {
        let findings = found(|state, _| {
            (state.eviction, state.memory_max) = (text(policy), Some(memory_max));
        });
        let expected = expected.map(|severity| (severity, Check::Eviction));
        assert_eq!(findings, Vec::from_iter(expected), "{policy} {memory_max}");
    }
}

#[test]
fn persistence_is_judged_by_what_a_crash_loses() {
    for (append_only, snapshots, fsync, expected) in [
        (true, Some(true), "always", None),
        (true, Some(false), "everysec", Some(Info)),
        (true, None, "no", Some(Warning)),
        (false, Some(true), "everysec", Some(Warning)),
        (false, None, "everysec", Some(Warning)),
        (false, Some(false), "everysec", Some(Critical)),
    ] {
        let findings = found(|state, settings| {
            state.append_only = Some(append_only);
            (settings.snapshots, settings.fsync) = (snapshots, text(fsync));
        });
        let expected = expected.map(|severity| (severity, Check::Persistence));
        assert_eq!(findings, Vec::from_iter(expected), "{append_only} {snapshots:?} {fsync}");
    }
}

#[test]
fn writes_that_fail_on_disk_are_found_where_the_server_needs_them() {
    assert_eq!(found(|state, _| state.append_ok = Some(false)), [(Critical, Check::DiskWrites)]);
    assert_eq!(found(|state, _| state.rewrite_ok = Some(false)), [(Warning, Check::DiskWrites)]);
    assert_eq!(found(|state, _| state.snapshot_ok = Some(false)), [(Critical, Check::DiskWrites)]);
    let unused = found(|state, settings| {
        (state.snapshot_ok, settings.snapshots) = (Some(false), Some(false));
    });
    assert_eq!(unused, []);
}

#[test]
fn a_server_that_takes_no_writes_is_critical() {
    assert_eq!(found(|state, _| state.replica = Some(true)), [(Critical, Check::Role)]);
    let lonely = found(|_, settings| settings.replicas_to_write = Some(1));
    assert_eq!(lonely, [(Critical, Check::Replicas)]);
    let followed = found(|state, settings| {
        (state.replicas, settings.replicas_to_write) = (Some(1), Some(1));
    });
    assert_eq!(followed, []);
}

#[test]
fn limits_are_found_before_they_are_reached() {
    for (used, expected) in
        [(79, None), (80, Some(Warning)), (94, Some(Warning)), (95, Some(Critical))]
    {
        let memory = found(|state, _| (state.memory, state.memory_max) = (Some(used), Some(100)));
        let one = |check| Vec::from_iter(expected.map(|severity| (severity, check)));
        assert_eq!(memory, one(Check::Memory), "{used}");
        let connections =
            found(|state, _| (state.connections, state.connections_max) = (Some(used), Some(100)));
        assert_eq!(connections, one(Check::Connections), "{used}");
    }
    let unlimited = found(|state, _| (state.memory, state.memory_max) = (Some(100), Some(0)));
    assert_eq!(unlimited, []);
    let huge = found(|state, _| (state.memory, state.memory_max) = (Some(u64::MAX), Some(1)));
    assert_eq!(huge, [(Critical, Check::Memory)]);
}

#[test]
fn a_fault_is_a_warning_only_where_jobs_meet_it() {
    let of = |version, replicas| {
        found(|state, _| {
            state.release = Some(Release { product: Product::Redis, version });
            state.replicas = Some(replicas);
        })
    };
    let (fault, security) = (Check::KnownFault, Check::Security);
    // Redis 7.0.15 as Debian has it.
    assert_eq!(of(Version(7, 0, 15), 0), [(Info, fault), (Info, fault), (Info, security)]);
    assert_eq!(of(Version(7, 0, 15), 1)[0], (Warning, fault), "replicas may be promoted");
    assert_eq!(of(Version(7, 2, 4), 0)[0], (Warning, fault), "blocking reads restart their wait");
    let early = of(Version(8, 2, 0), 0);
    assert_eq!(early.iter().filter(|found| **found == (Info, fault)).count(), 3, "{early:?}");
    assert_eq!(early.last(), Some(&(Warning, security)));
    assert_eq!(of(Version(8, 6, 6), 5), []);
    assert_eq!(of(Version(6, 2, 16), 0)[0], (Critical, Check::Version));
}

#[test]
fn a_fault_says_what_it_is_and_what_has_the_fix() {
    let mut facts = healthy();
    let release = Release { product: Product::Redis, version: Version(8, 2, 3) };
    facts.state.as_mut().unwrap().release = Some(release);
    let findings = examine(&facts);
    let acked = findings.iter().find(|finding| finding.what.contains("ACKED")).unwrap();
    assert!(acked.what.starts_with("Redis 8.2.3: approximate trimming"), "{acked}");
    assert!(acked.meaning.contains("never sends it"), "{acked}");
    assert_eq!(acked.advice.as_deref(), Some("update to 8.2.7 or later"));
    assert!(findings.iter().all(|finding| !finding.what.contains("XACKDEL")));
}

#[test]
fn products_that_are_not_tested_are_reported() {
    let other = found(|state, _| {
        let product = Product::Other("keydb".to_owned());
        state.release = Some(Release { product, version: Version(6, 3, 4) });
    });
    assert_eq!(other, [(Info, Check::Version)]);
}

#[test]
fn behind_sentinel_a_server_that_writes_without_a_replica_is_reported() {
    let of = |needed, following| {
        let mut facts = ServerFacts { fails_over: true, ..healthy() };
        facts.state.as_mut().unwrap().replicas = following;
        facts.settings.as_mut().unwrap().replicas_to_write = needed;
        examine(&facts)
    };
    let findings = of(Some(0), Some(1));
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.severity, finding.check), (Warning, Check::Replicas));
    assert!(finding.what.starts_with("min-replicas-to-write is 0"), "{finding}");
    let advice = finding.advice.as_deref().unwrap();
    assert!(advice.contains("min-replicas-to-write to 1"), "{advice}");
    assert_eq!(of(Some(1), Some(1)), []);
    // A value that the server does not report is a different finding.
    assert_eq!(of(None, Some(1)), []);
    let severities = |findings: Vec<Finding>| {
        findings.into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
    };
    assert_eq!(severities(of(Some(0), Some(0))), [Warning, Warning], "no replica to fail over to");
    assert_eq!(severities(of(Some(1), Some(0))), [Critical]);
}

#[test]
fn a_cluster_an_idle_timeout_and_a_clock_offset_are_reported() {
    let node = |replicas| {
        found(|state, settings| {
            (state.cluster, state.replicas) = (Some(true), Some(replicas));
            settings.replicas_to_write = Some(replicas);
        })
    };
    assert_eq!(node(0), [(Warning, Check::Cluster)]);
    assert_eq!(node(1), []);
    let timeout = found(|_, settings| settings.idle_timeout = Some(Duration::from_secs(30)));
    assert_eq!(timeout, [(Info, Check::IdleTimeout)]);
    let seconds = Duration::from_secs;
    for (apart, error, expected) in [(1, 0, false), (2, 0, true), (3, 2, false), (90, 1, true)] {
        let mut facts = healthy();
        facts.clock = Ok(ClockOffset { apart: seconds(apart), error: seconds(error), ahead: true });
        let findings = examine(&facts);
        assert_eq!(!findings.is_empty(), expected, "{apart} ± {error}");
        assert!(findings.iter().all(|finding| finding.what.contains("ahead of this host's")));
    }
}

#[test]
fn what_could_not_be_checked_is_a_finding_and_never_a_pass() {
    let refused = || Err("the server refused: NOPERM".to_owned());
    let silent = ServerFacts {
        state: Err("the server refused: NOPERM".to_owned()),
        settings: Err("the server refused: NOPERM".to_owned()),
        rights: refused(),
        clock: Err("the server refused: NOPERM".to_owned()),
        ..healthy()
    };
    let findings = examine(&silent);
    let seen = findings.iter().map(|finding| (finding.severity, finding.check));
    let unchecked = |severity| (severity, Check::Unchecked);
    let expected =
        [(Critical, Check::Rights), unchecked(Warning), unchecked(Info), unchecked(Info)];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert!(findings.iter().all(|finding| finding.what.contains("NOPERM")));
    let hidden = found(|state, _| (state.eviction, state.memory_max) = (None, None));
    assert_eq!(hidden, [unchecked(Info)]);
}
