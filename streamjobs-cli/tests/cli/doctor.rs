//! `streamjobs doctor`: findings, exit codes and permissions.

use streamjobs_tests::server::{RedisCluster, RedisServer};

use crate::program::{run, run_at};

#[test]
fn a_server_that_loses_jobs_is_reported_and_ends_with_three() {
    let server = RedisServer::builder().plain().start().unwrap();
    let ran = run(&server, "doctor").ended(3);
    assert!(ran.out.contains("critical persistence: nothing is written to disk"), "{ran:?}");
    assert!(ran.out.contains("  -> set appendonly to yes"), "{ran:?}");
    let document = run(&server, "doctor --json").ended(3).json();
    assert_eq!(document["worst"], "critical");
    assert_eq!(document["findings"][0]["check"], "persistence");
    assert!(document["server"].as_str().unwrap().contains(&server.port().to_string()));
}

#[test]
fn a_finding_in_a_cluster_names_its_nodes() {
    let cluster = RedisCluster::start().unwrap();
    let ran = run_at(&cluster.url(), "doctor").ended(3);
    let everywhere = "nothing is written to disk: appendonly is off and there are no save points \
                      (on all 3 nodes)";
    assert!(ran.out.contains(everywhere), "{ran:?}");
    let node = &cluster.nodes()[1];
    node.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let document = run_at(&cluster.url(), "doctor --json").ended(3).json();
    let findings = document["findings"].as_array().unwrap();
    let eviction = findings.iter().find(|found| found["check"] == "eviction").unwrap();
    assert_eq!(eviction["nodes"], serde_json::json!([format!("127.0.0.1:{}", node.port())]));
    let single = RedisServer::builder().plain().start().unwrap();
    let document = run(&single, "doctor --json").ended(3).json();
    assert_eq!(document["findings"][0]["nodes"], serde_json::Value::Null);
}

#[test]
fn notes_alone_end_with_zero() {
    // Of a cluster and of a Sentinel without a replica there is more to say.
    let server = RedisServer::builder().plain().append_only(true).start().unwrap();
    let document = run(&server, "doctor --json --stream orders --group billing").json();
    let findings = document["findings"].as_array().unwrap();
    // Findings about the server's release depend on the machine.
    let of_the_release = ["known_fault", "security"];
    let worse = findings.iter().any(|found| {
        found["severity"] != "info" && !of_the_release.contains(&found["check"].as_str().unwrap())
    });
    assert!(!worse, "{document}");
    if document["worst"] == "info" {
        let _ = run(&server, "doctor --stream orders --group billing").ended(0);
    }
}

#[test]
fn missing_permissions_are_found_on_the_given_keys() {
    let server = RedisServer::builder().append_only(true).start().unwrap();
    let words = ["ACL", "SETUSER", "bob", "on", ">canary", "~orders", "~{orders}:*", "+@all"];
    server.command(&[&words[..], &["-xclaim"]].concat());
    let ran = run_at(
        &server.url_as("bob", "canary"),
        "doctor --stream orders --group billing --group mail",
    )
    .ended(3);
    assert!(ran.out.contains("user bob has no right to run XCLAIM on orders"), "{ran:?}");
    assert!(ran.out.contains("no right to run XCLAIM on {orders}:lane:mail"), "{ran:?}");
    assert!(!ran.out.contains("canary") && !ran.err.contains("canary"), "{ran:?}");
}
