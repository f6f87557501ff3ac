//! Options about TLS, with and without the feature.

use streamjobs_tests::server::RedisServer;

use crate::program::{program, run, run_at};

#[test]
fn options_about_tls_are_used_or_refused_by_name() {
    let server = RedisServer::start().unwrap();
    let ran = run(&server, "--tls-ca missing.pem doctor");
    if cfg!(feature = "tls") {
        let ran = ran.ended(1);
        assert!(ran.err.contains("cannot read missing.pem: "), "{ran:?}");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let ran = run_at("rediss://127.0.0.1:1", &format!("--tls-ca {manifest} doctor")).ended(2);
        assert!(ran.err.contains("ca_pem holds no certificate"), "{ran:?}");
        let ran = run(&server, "--tls-server-name localhost doctor").ended(2);
        assert!(ran.err.contains("tls needs an address that begins with rediss://"), "{ran:?}");
    } else {
        let ran = ran.ended(2);
        assert!(ran.err.contains("need the feature `tls` of streamjobs-cli"), "{ran:?}");
    }
}

#[test]
fn options_about_tls_come_from_the_environment_as_well() {
    let server = RedisServer::start().unwrap();
    let with = |name: &str, value: &str| {
        let mut command = program(&server.url());
        command.arg("doctor").env(name, value).output().unwrap()
    };
    for name in ["STREAMJOBS_TLS_CA", "STREAMJOBS_TLS_SERVER_NAME"] {
        assert_ne!(with(name, "missing.pem").status.code(), Some(3), "{name} has an effect");
    }
    for (name, other) in
        [("STREAMJOBS_TLS_CERT", "--tls-key"), ("STREAMJOBS_TLS_KEY", "--tls-cert")]
    {
        let output = with(name, "missing.pem");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(other), "{text}");
    }
}
