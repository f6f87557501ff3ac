//! `streamjobs doctor`: findings, exit codes and permissions.

use streamjobs_tests::server::RedisServer;

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
    assert!(ran.out.contains("user bob may not run XCLAIM on orders"), "{ran:?}");
    assert!(ran.out.contains("may not run XCLAIM on {orders}:lane:mail"), "{ran:?}");
    assert!(!ran.out.contains("canary") && !ran.err.contains("canary"), "{ran:?}");
}
