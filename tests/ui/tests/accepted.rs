//! The accepted cases are programs of this package; each has to be listed in its manifest.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests say what is wrong by failing")]

use std::fs;

#[test]
fn every_case_that_is_accepted_is_a_program() {
    let manifest = include_str!("../Cargo.toml");
    let mut cases = 0;
    for folder in ["cases/event/pass", "cases/handler/pass"] {
        for case in fs::read_dir(folder).unwrap() {
            let path = case.unwrap().path().display().to_string();
            assert!(manifest.contains(&format!("path = \"{path}\"\n")), "{path} is not named");
            cases += 1;
        }
    }
    assert_eq!(cases, manifest.matches("harness = false").count(), "each runs its own main");
}
