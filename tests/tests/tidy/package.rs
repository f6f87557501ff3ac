//! The published crates: what their packages hold, and which Rust they need.
//!
//! `cargo package` for all of them together builds each from its packed files. That takes minutes, so
//! it is run before a release; these tests take a second.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::root;

const CRATES: [&str; 6] = [
    "streamjobs-cron",
    "streamjobs-macros",
    "streamjobs",
    "streamjobs-postgres",
    "streamjobs-dashboard",
    "streamjobs-cli",
];

/// What cargo prints. It asks the registry only for packages that were never downloaded.
fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let output = command.args(arguments).arg("--locked").current_dir(root());
    let output = output.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The machine that these tests were built for, as cargo names it.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// All packages of the lock file that this machine builds, by name and version.
fn packages() -> BTreeMap<(String, String), Value> {
    let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", &host()]);
    let metadata = serde_json::from_str::<Value>(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let text = |field: &str| package[field].as_str().unwrap().to_owned();
        ((text("name"), text("version")), package.clone())
    });
    packages.collect()
}

/// The Rust version that a package declares. Without a declaration, any will do.
fn rust_version(package: &Value) -> Vec<u32> {
    let declared = package["rust_version"].as_str().unwrap_or_default();
    let numbers = declared.split('.').filter(|number| !number.is_empty());
    let mut version = numbers.map(|number| number.parse().unwrap()).collect::<Vec<_>>();
    version.resize(3, 0);
    version
}

#[test]
fn each_crate_declares_the_rust_that_its_dependencies_need() {
    let packages = packages();
    let mut wrong = Vec::new();
    for name in CRATES {
        // What a build with the crate's default features compiles, one package in each line.
        let tree = ["tree", "--package", name, "--edges", "normal,build", "--prefix", "none"];
        let tree = cargo(&tree);
        let ids = tree.lines().map(|line| {
            let mut words = line.split(' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            (name.to_owned(), version.trim_start_matches('v').to_owned())
        });
        let mut needed = ids.map(|id| (rust_version(&packages[&id]), id)).collect::<Vec<_>>();
        let own = needed.remove(0).0;
        needed.retain(|(rust, _)| *rust > own);
        needed.sort();
        needed.dedup();
        wrong.extend(needed.into_iter().map(|(rust, id)| format!("{name}: {id:?} needs {rust:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_package_holds_its_sources_readme_and_licence_texts_only() {
    for name in CRATES {
        let list = cargo(&["package", "--list", "--allow-dirty", "--package", name]);
        let files = list.lines().collect::<Vec<_>>();
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "Cargo.toml"] {
            assert!(files.contains(&file), "{file} is missing in {name}: {files:#?}");
        }
        let known = ["src/", "docs/", "migrations/", "assets/", "README.md", "LICENSE-", "Cargo."];
        for file in files.iter().filter(|file| **file != ".cargo_vcs_info.json") {
            assert!(known.iter().any(|known| file.starts_with(known)), "{name} packs {file}");
        }
    }
}

#[test]
fn each_crate_says_where_its_pages_are_and_links_only_to_addresses() {
    let packages = packages();
    for ((name, _), package) in packages.iter().filter(|((name, _), _)| CRATES.contains(&&**name)) {
        let documentation = format!("https://docs.rs/{name}");
        assert_eq!(package["documentation"].as_str(), Some(documentation.as_str()));
        for field in ["description", "license", "repository"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        assert_eq!(package["readme"].as_str(), Some("README.md"), "{name}");
        let readme = std::fs::read_to_string(root().join(name).join("README.md")).unwrap();
        for link in readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(link.starts_with("https://") || link.starts_with('#'), "{name}: {link}");
        }
    }
}
