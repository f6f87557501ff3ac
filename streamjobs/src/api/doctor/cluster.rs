//! The rules about a cluster: its nodes, its slots, and what a failover does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::{Check, Finding};
use crate::model::cause::{chain, shown};
use crate::store::StoreError;
use crate::store::server_info::{
    ClusterFacts, Facts, ServerFacts, ServerSettings, ServerState, UnreachableNode,
};

/// Findings about one node.
pub(super) fn of_node(
    facts: &ServerFacts,
    state: &ServerState,
    settings: &ServerSettings,
) -> Vec<Finding> {
    if state.cluster != Some(true) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    match &facts.cluster_ok {
        Some(Ok(false)) => findings.push(down()),
        Some(Err(why)) => findings.push(state_unchecked(why)),
        Some(Ok(true)) | None => {}
    }
    match state.replicas {
        Some(0) => findings.push(alone(settings.full_coverage)),
        Some(_) => {
            findings.extend(failover(settings.replicas_to_write));
            findings.extend(full_coverage(settings.full_coverage));
        }
        None => {}
    }
    findings.extend(reads_when_down(settings.reads_when_down));
    findings
}

/// Findings about the cluster as a whole. The lease is the shortest one of all groups.
pub(super) fn of_all(facts: &Facts, cluster: &ClusterFacts, lease: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(slots(cluster.slots_without_node));
    findings.extend(cluster.unreachable.iter().map(unreachable));
    findings.extend(versions(&facts.servers));
    findings.extend(failover_time(&facts.servers, lease));
    findings
}

/// The groups whose cursors could not be compared with their streams, with an error for each.
pub(super) fn groups_unchecked(failed: &[StoreError]) -> Option<Finding> {
    let why = chain(failed.first()?);
    let what = match failed.len() {
        1 => "the cursor of a group".to_owned(),
        count => format!("the cursors of {count} groups"),
    };
    Some(Finding::info(
        Check::Unchecked,
        format!("{what} could not be checked: {why}"),
        "this report does not say whether there are problems",
        None,
    ))
}

fn down() -> Finding {
    Finding::critical(
        Check::Cluster,
        "the node says that the cluster is down",
        "it refuses to publish and to deliver jobs until each slot has a living master, or until it \
         reaches most of the masters again",
        "start the masters that are down, or let their replicas take over with CLUSTER FAILOVER FORCE; \
         redis-cli --cluster check names the slots",
    )
}

fn state_unchecked(why: &str) -> Finding {
    Finding::info(
        Check::Unchecked,
        format!("whether the node considers the cluster usable could not be checked: {why}"),
        "this report does not say whether there are problems",
        Some("allow CLUSTER|INFO, or read cluster_state by hand".to_owned()),
    )
}

fn alone(full_coverage: Option<bool>) -> Finding {
    let meaning = match full_coverage {
        Some(true) => {
            "when it fails, all nodes refuse to publish and to deliver jobs until it is back, because \
             cluster-require-full-coverage is yes"
        }
        Some(false) => "when it fails, its streams wait until it is back",
        None => {
            "when it fails, its streams wait until it is back, and so do those of all other nodes \
             unless cluster-require-full-coverage is no"
        }
    };
    let what = "the node of the cluster has no replica";
    Finding::warning(Check::Cluster, what, meaning, "connect a replica")
}

fn failover(replicas_to_write: Option<u64>) -> Option<Finding> {
    (replicas_to_write == Some(0)).then(|| {
        Finding::warning(
            Check::Replicas,
            "min-replicas-to-write is 0, and a replica can become the master",
            "a failover loses confirmed events: events that the replica did not have yet when the master \
             crashed, and events that clients still sent to a master that was cut off from the others",
            "set min-replicas-to-write to 1 and min-replicas-max-lag to a few seconds on every node; a \
             master then refuses to publish and to deliver jobs while it has no replica",
        )
    })
}

fn full_coverage(full_coverage: Option<bool>) -> Option<Finding> {
    (full_coverage == Some(true)).then(|| {
        Finding::info(
            Check::Cluster,
            "cluster-require-full-coverage is yes",
            "while any slot has no living master, all nodes refuse to publish and to deliver jobs",
            Some("set cluster-require-full-coverage to no, so that other streams go on".to_owned()),
        )
    })
}

fn reads_when_down(reads_when_down: Option<bool>) -> Option<Finding> {
    (reads_when_down == Some(true)).then(|| {
        Finding::info(
            Check::Cluster,
            "cluster-allow-reads-when-down is yes",
            "a node that was cut off answers reads with what it had then, so entries that are gone can \
             be shown; jobs are not concerned, because delivering one is a write",
            Some("set cluster-allow-reads-when-down to no".to_owned()),
        )
    })
}

fn slots(without_node: usize) -> Option<Finding> {
    (without_node > 0).then(|| {
        Finding::critical(
            Check::Cluster,
            format!("{without_node} slots have no node"),
            "streams of these slots cannot be used, and no other streams either unless \
             cluster-require-full-coverage is no",
            "assign the slots, as redis-cli --cluster fix does",
        )
    })
}

fn unreachable(node: &UnreachableNode) -> Finding {
    let UnreachableNode { address, is_replica, why } = node;
    let advice = "start it; if it runs, set cluster-announce-ip, cluster-announce-port or \
                  cluster-announce-hostname to what clients reach";
    match is_replica {
        true => Finding::warning(
            Check::Cluster,
            format!("the replica {address} cannot be reached: {why}"),
            "when it becomes the master, its streams cannot be used from here",
            advice,
        ),
        false => Finding::critical(
            Check::Cluster,
            format!("the master {address} cannot be reached: {why}"),
            "its streams cannot be used from here, and the rest of this report says nothing about it",
            advice,
        ),
    }
}

fn versions(servers: &[ServerFacts]) -> Option<Finding> {
    let mut releases = BTreeMap::<String, Vec<&str>>::new();
    for server in servers {
        let release = server.state.as_ref().ok().and_then(|state| state.release.as_ref());
        if let Some(release) = release {
            releases.entry(release.to_string()).or_default().push(&server.address);
        }
    }
    (releases.len() > 1).then(|| {
        let on = |(release, nodes): (String, Vec<&str>)| match nodes.as_slice() {
            [node] => format!("{release} on {node}"),
            nodes => format!("{release} on {} nodes", nodes.len()),
        };
        let releases = releases.into_iter().map(on).collect::<Vec<_>>().join(", ");
        Finding::warning(
            Check::Version,
            format!("the nodes have different versions: {releases}"),
            "a slot cannot be moved to an older version, and a replica with an older version cannot \
             follow: after a failover to a newer node, the older node is no replica any more",
            "update all nodes to one version",
        )
    })
}

/// While a replica takes over, no lease of a job from that master is renewed. An attempt loses its lease when five
/// sixths of the lease have passed since the last renewal, which may already be a third of the lease ago.
fn failover_time(servers: &[ServerFacts], lease: Duration) -> Option<Finding> {
    let has_replicas = |server: &&ServerFacts| {
        let state = server.state.as_ref();
        state.is_ok_and(|state| state.replicas.is_some_and(|replicas| replicas > 0))
    };
    let settings =
        servers.iter().filter(has_replicas).filter_map(|server| server.settings.as_ref().ok());
    let timeout = settings.filter_map(|settings| settings.node_timeout).max()?;
    let failover = timeout + TAKING_OVER;
    (failover > lease / 2).then(|| {
        Finding::warning(
            Check::Cluster,
            format!(
                "cluster-node-timeout is {}, and the shortest lease is {}",
                shown(timeout),
                shown(lease)
            ),
            format!(
                "after a crash, a replica takes over in {} at the earliest; jobs of that master that \
                 run meanwhile can lose their leases: they are cancelled, and run again",
                shown(failover)
            ),
            "lower cluster-node-timeout, or use a lease of more than twice that time",
        )
    })
}

/// The least time that a failover takes in addition to the node timeout: the vote and the start as
/// a master.
const TAKING_OVER: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::severity::Severity;
    use crate::model::version::{Product, Release, Version};
    use crate::store::server_info::Rights;

    use Severity::{Critical, Info, Warning};

    /// A node with a replica, in a cluster that goes on if any of its nodes is gone.
    fn node(address: &str, version: Version) -> ServerFacts {
        let state = ServerState {
            release: Some(Release { product: Product::Redis, version }),
            cluster: Some(true),
            replicas: Some(1),
            ..ServerState::default()
        };
        let settings = ServerSettings {
            replicas_to_write: Some(1),
            node_timeout: Some(Duration::from_secs(3)),
            full_coverage: Some(false),
            reads_when_down: Some(false),
            ..ServerSettings::default()
        };
        ServerFacts {
            address: address.to_owned(),
            user: "bob".to_owned(),
            fails_over: false,
            cluster_ok: Some(Ok(true)),
            state: Ok(state),
            settings: Ok(settings),
            rights: Ok(Rights::default()),
            clock: Err("not asked".to_owned()),
        }
    }

    /// The findings about a node after a change.
    fn found(change: impl FnOnce(&mut ServerFacts)) -> Vec<(Severity, String)> {
        let mut facts = node("a:1", Version(8, 10, 2));
        change(&mut facts);
        let (state, settings) = (facts.state.as_ref().unwrap(), facts.settings.as_ref().unwrap());
        let findings = of_node(&facts, state, settings).into_iter();
        findings.map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn a_node_that_can_be_replaced_without_a_loss_has_no_findings() {
        assert_eq!(found(|_| ()), []);
        let plain = |facts: &mut ServerFacts| {
            let state = facts.state.as_mut().unwrap();
            (state.cluster, state.replicas) = (Some(false), Some(0));
        };
        assert_eq!(found(plain), [], "without a cluster, a replica is no matter of these rules");
    }

    #[test]
    fn each_setting_of_a_node_has_a_finding_of_its_own() {
        fn set(change: impl FnOnce(&mut ServerSettings)) -> Vec<(Severity, String)> {
            found(|facts| change(facts.settings.as_mut().unwrap()))
        }
        let coverage = set(|settings| settings.full_coverage = Some(true));
        assert_eq!(coverage, [(Info, "cluster-require-full-coverage is yes".to_owned())]);
        let reads = set(|settings| settings.reads_when_down = Some(true));
        assert_eq!(reads, [(Info, "cluster-allow-reads-when-down is yes".to_owned())]);
        let loss = set(|settings| settings.replicas_to_write = Some(0));
        assert!(loss[0].0 == Warning && loss[0].1.starts_with("min-replicas-to-write is 0"));
        let down = found(|facts| facts.cluster_ok = Some(Ok(false)));
        assert_eq!(down, [(Critical, "the node says that the cluster is down".to_owned())]);
        let refused = found(|facts| facts.cluster_ok = Some(Err("NOPERM".to_owned())));
        assert!(refused[0].0 == Info && refused[0].1.ends_with("could not be checked: NOPERM"));
    }

    #[test]
    fn what_a_node_without_a_replica_stops_depends_on_the_setting() {
        for (full_coverage, stops) in [
            (Some(true), "all nodes refuse"),
            (Some(false), "its streams wait until it is back"),
            (None, "unless cluster-require-full-coverage is no"),
        ] {
            let finding = alone(full_coverage);
            assert!(finding.meaning.contains(stops), "{finding}");
            assert_eq!(finding.severity, Warning);
        }
    }

    fn of_cluster(servers: Vec<ServerFacts>, cluster: &ClusterFacts) -> Vec<(Severity, String)> {
        let facts = Facts { servers, cluster: None };
        let findings = of_all(&facts, cluster, Duration::from_secs(10)).into_iter();
        findings.map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn slots_and_nodes_that_cannot_be_used_are_found() {
        let gone = |is_replica| UnreachableNode {
            address: "b:2".to_owned(),
            is_replica,
            why: "refused".to_owned(),
        };
        let cluster =
            ClusterFacts { slots_without_node: 7, unreachable: vec![gone(false), gone(true)] };
        let expected = [
            (Critical, "7 slots have no node".to_owned()),
            (Critical, "the master b:2 cannot be reached: refused".to_owned()),
            (Warning, "the replica b:2 cannot be reached: refused".to_owned()),
        ];
        assert_eq!(of_cluster(vec![node("a:1", Version(8, 10, 2))], &cluster), expected);
    }

    #[test]
    fn different_versions_are_named_with_their_nodes() {
        let of = |versions: &[Version]| {
            let nodes = versions.iter().enumerate();
            let nodes = nodes.map(|(port, version)| node(&format!("a:{port}"), *version));
            of_cluster(nodes.collect(), &ClusterFacts::default())
        };
        let (old, new) = (Version(7, 2, 7), Version(8, 10, 2));
        assert_eq!(of(&[new, new]), []);
        let what = "the nodes have different versions: Redis 7.2.7 on a:1, Redis 8.10.2 on 2 nodes";
        assert_eq!(of(&[new, old, new]), [(Warning, what.to_owned())]);
    }

    #[test]
    fn a_failover_that_outlasts_half_of_a_lease_is_found() {
        let of = |timeout, replicas| {
            let mut slow = node("a:1", Version(8, 10, 2));
            slow.settings.as_mut().unwrap().node_timeout = Some(Duration::from_millis(timeout));
            slow.state.as_mut().unwrap().replicas = Some(replicas);
            of_cluster(vec![slow, node("a:2", Version(8, 10, 2))], &ClusterFacts::default())
        };
        assert_eq!(of(3_500, 1), []);
        let what = "cluster-node-timeout is 15s, and the shortest lease is 10s";
        assert_eq!(of(15_000, 1), [(Warning, what.to_owned())]);
        assert_eq!(of(15_000, 0), [], "without a replica, there is no failover");
    }
}
