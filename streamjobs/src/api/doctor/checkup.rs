//! The result of an examination.

use std::fmt;
use std::time::Duration;

use super::cluster;
use super::finding::{Finding, FoundOn};
use super::rules;
use crate::insight::severity::Severity;
use crate::store::server_info::{Facts, ServerFacts};

/// The result of an examination.
///
/// `Display` is a report for people, a few lines for each finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Checkup {
    /// Product, version and address of the server, and the user of the connection; of a cluster, the
    /// version of one node and the addresses of up to five.
    pub server: String,
    /// The findings, the most severe first. The same finding on several nodes of a cluster is listed once.
    pub findings: Vec<Finding>,
}

impl Checkup {
    /// The highest severity of all findings; `None` without findings.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    pub(super) fn of(facts: &Facts, lease: Duration, more: Vec<Finding>) -> Self {
        let mut findings = match &facts.cluster {
            None => facts.servers.iter().flat_map(rules::examine).collect(),
            Some(of_all) => {
                let mut findings = cluster::of_all(facts, of_all, lease);
                findings.extend(of_nodes(&facts.servers));
                findings
            }
        };
        findings.extend(more);
        // The sort is stable, so that findings of one severity keep the order of the rules.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { server: describe(&facts.servers), findings }
    }
}

/// The findings about the nodes: each finding once, with the nodes that it was found on.
fn of_nodes(servers: &[ServerFacts]) -> Vec<Finding> {
    let mut all = Vec::<(Finding, Vec<String>)>::new();
    for server in servers {
        for finding in rules::examine(server) {
            match all.iter_mut().find(|(known, _)| *known == finding) {
                Some((_, nodes)) => nodes.push(server.address.clone()),
                None => all.push((finding, vec![server.address.clone()])),
            }
        }
    }
    let place = |(finding, nodes): (Finding, Vec<String>)| {
        let is_all = nodes.len() == servers.len();
        Finding { nodes: Some(FoundOn { nodes, is_all }), ..finding }
    };
    all.into_iter().map(place).collect()
}

fn describe(servers: &[ServerFacts]) -> String {
    let Some(first) = servers.first() else { return "a server".to_owned() };
    let release = first.state.as_ref().ok().and_then(|state| state.release.as_ref());
    let release = release.map_or_else(|| "a server".to_owned(), ToString::to_string);
    let nodes = servers.iter().map(|server| server.address.clone()).collect();
    let addresses = FoundOn { nodes, is_all: false };
    format!("{release} at {addresses} as user {}", first.user)
}

impl fmt::Display for Checkup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)?;
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        if self.findings.is_empty() {
            f.write_str("\nno findings")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::server_info::{
        ClockOffset, ClusterFacts, Rights, ServerSettings, ServerState,
    };

    /// A node with this eviction policy that reports nothing else.
    fn node(address: &str, eviction: &str) -> ServerFacts {
        let clock = ClockOffset { apart: Duration::ZERO, error: Duration::ZERO, ahead: false };
        ServerFacts {
            address: address.to_owned(),
            user: "bob".to_owned(),
            fails_over: false,
            cluster_ok: Some(Ok(true)),
            state: Ok(ServerState {
                eviction: Some(eviction.to_owned()),
                ..ServerState::default()
            }),
            settings: Ok(ServerSettings::default()),
            rights: Ok(Rights::default()),
            clock: Ok(clock),
        }
    }

    #[test]
    fn what_is_found_on_several_nodes_is_one_finding_with_their_names() {
        let nodes = [("a:1", "noeviction"), ("b:2", "allkeys-lru"), ("c:3", "allkeys-lru")];
        let servers = nodes.map(|(address, eviction)| node(address, eviction)).to_vec();
        let facts = Facts { servers, cluster: Some(ClusterFacts::default()) };
        let checkup = Checkup::of(&facts, Duration::from_secs(10), Vec::new());
        assert_eq!(checkup.server, "a server at a:1, b:2, c:3 as user bob");
        let found = |what: &str| {
            let found = checkup.findings.iter().find(|finding| finding.what.starts_with(what));
            found.unwrap().nodes.clone().unwrap()
        };
        let evicting = found("maxmemory-policy is allkeys-lru");
        assert_eq!((evicting.nodes, evicting.is_all), (vec!["b:2".into(), "c:3".into()], false));
        assert_eq!(found("version, ").to_string(), "all 3 nodes");
        assert_eq!(checkup.findings.len(), 2, "{checkup}");
    }
}
