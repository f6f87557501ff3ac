//! The seeded bugs are patches of today's sources, noticed by tests of today.

use streamjobs_tests::seeded::SeededBug;

use super::{root, sources};

#[test]
fn every_seeded_bug_applies_to_the_sources() {
    let bugs = SeededBug::all(&root()).unwrap();
    let failed = bugs.iter().filter_map(|bug| Some((&bug.name, bug.check(&root()).err()?)));
    let failed = failed.collect::<Vec<_>>();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_seeded_bug_names_a_test_that_exists() {
    let tests = [sources("tests/tests"), sources("tests/src/conformance")].concat();
    for bug in SeededBug::all(&root()).unwrap() {
        let name = bug.test.rsplit("::").next().unwrap();
        assert!(tests.iter().any(|(_, text)| text.contains(name)), "{}: {name}", bug.name);
    }
}
