//! The demo does what it says.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests say what is wrong by failing")]

use std::process::Command;

#[test]
fn the_demo_shows_a_crash_its_recovery_and_no_loss() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).env_remove("REDIS_URL").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    for scene in ["it died holding", "done by the web process", "repaired, redriven, mailed"] {
        assert!(told.contains(scene), "{scene}: {told}");
    }
    assert!(told.trim_end().ends_with("lost 0"), "{told}");
}

#[test]
fn wrong_arguments_are_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).arg("--reset").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--reset"));
}
