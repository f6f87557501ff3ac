//! The rooms of each crate: no circles at any level, and arrows that lead downward.
//!
//! `cargo test -p streamjobs-tests --test tidy structure -- --nocapture` prints the rooms, arrows and
//! circles of every folder; `TIDY_ROOT` names another checkout to look at.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Imports, circles};
use super::sources;

/// An order of the items of a folder, lowest first. An item may use its own rank and those before.
type Layers = &'static [&'static [&'static str]];

/// The folders whose order ARCHITECTURE.md draws: crate, folder below `src/`, layers.
const ORDERS: [(&str, &str, Layers); 6] = [
    (
        "streamjobs",
        "",
        &[
            &["model"],
            &["store"],
            &["insight"],
            &["publish"],
            &["handler"],
            &["runtime"],
            &["api"],
            &["lib"],
        ],
    ),
    (
        "streamjobs",
        "store/",
        &[
            &["types"],
            &["rates"],
            &[
                "admin",
                "consume",
                "dead_letters",
                "done_jobs",
                "trends",
                "group_upkeep",
                "holds",
                "inspect",
                "marks",
                "progress",
                "results",
                "publish",
                "raw_access",
                "schedule",
                "cancels",
                "schedules",
                "server_info",
                "unique",
            ],
            &["lacking", "memory", "redis"],
        ],
    ),
    (
        "streamjobs",
        "runtime/",
        &[
            &["state"],
            &["observe"],
            &["attempt", "intake", "settle", "upkeep"],
            &["consumer"],
            &["builder", "control", "running"],
        ],
    ),
    (
        "streamjobs-cron",
        "",
        &[
            &["error"],
            &["every", "field", "zone"],
            &["expression"],
            &["calendar", "words"],
            &["next"],
            &["cron"],
            &["lib"],
        ],
    ),
    (
        "streamjobs-postgres",
        "",
        &[
            &[
                "backoff",
                "fault",
                "key",
                "limits",
                "metrics",
                "publish_error",
                "schema",
                "statement",
                "text",
                "time",
                "turns",
            ],
            &["migrate"],
            &["rights"],
            &["postgres"],
            &["commit", "guard_row", "members"],
            &["archive", "batches", "letters", "mark", "once", "outbox", "prune"],
            &["lib"],
        ],
    ),
    (
        "streamjobs-dashboard",
        "",
        &[
            &["access", "base", "fault", "format", "history"],
            &["trend"],
            &["alerts", "archived", "assets", "audit", "auth", "csrf", "payload", "snapshot"],
            &["sampler", "trends"],
            &["notice", "request", "state"],
            &["layout"],
            &["form", "guard", "live"],
            &["pages"],
            &["actions"],
            &["dashboard", "routes"],
            &["lib"],
        ],
    ),
];

/// Folders whose items know nothing of each other, but for these that all may use.
const APART: [(&str, &str, &[&str]); 2] = [
    (
        "streamjobs-postgres",
        "",
        &[
            "backoff",
            "commit",
            "fault",
            "guard_row",
            "key",
            "limits",
            "members",
            "metrics",
            "migrate",
            "postgres",
            "publish_error",
            "rights",
            "schema",
            "statement",
            "text",
            "time",
            "turns",
        ],
    ),
    // The rooms of the loops, which meet through signals and channels.
    (
        "streamjobs",
        "runtime/",
        &["builder", "consumer", "control", "mod", "observe", "running", "state"],
    ),
];

const CRATES: [&str; 6] = [
    "streamjobs",
    "streamjobs-cli",
    "streamjobs-cron",
    "streamjobs-dashboard",
    "streamjobs-macros",
    "streamjobs-postgres",
];

fn imports(library: &str) -> Imports {
    let prefix = format!("{library}/src/");
    let below = |(name, text): (String, String)| {
        let path = name.strip_prefix(&prefix).unwrap().to_owned();
        (path, text)
    };
    Imports::of(&sources(&format!("{library}/src")).into_iter().map(below).collect::<Vec<_>>())
}

/// The rank of an item of a folder, or none if the order does not name it.
fn rank(layers: Layers, item: &str) -> Option<usize> {
    let name = item.strip_suffix(".rs").unwrap_or(item);
    layers.iter().position(|layer| layer.contains(&name))
}

fn upward(arrows: &BTreeMap<String, BTreeSet<String>>, layers: Layers) -> Vec<String> {
    let pairs = arrows.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
    let wrong = pairs.filter(|(from, to)| rank(layers, to) > rank(layers, from));
    wrong.map(|(from, to)| format!("{from} uses {to}, which stands above it")).collect()
}

#[test]
fn no_files_and_no_folders_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for library in CRATES {
        let imports = imports(library);
        let found = circles(&imports.arrows).into_iter();
        wrong.extend(found.map(|circle| format!("files of {library}: {circle:?}")));
        for folder in imports.folders() {
            let found = circles(&imports.within(&folder)).into_iter();
            wrong.extend(found.map(|circle| format!("in {library}/src/{folder}: {circle:?}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn items_import_only_downward() {
    for (library, folder, layers) in ORDERS {
        let wrong = upward(&imports(library).within(folder), layers);
        assert!(wrong.is_empty(), "in {library}/src/{folder}: {wrong:#?}");
    }
}

#[test]
fn every_item_of_an_ordered_folder_has_its_place() {
    for (library, folder, layers) in ORDERS {
        for item in imports(library).within(folder).keys() {
            let known = rank(layers, item).is_some() || item == "mod.rs";
            assert!(known, "{library}/src/{folder}{item} is in no layer of this test");
        }
    }
}

#[test]
fn what_users_call_beside_each_other_knows_nothing_of_each_other() {
    for (library, folder, shared) in APART {
        for (from, used) in imports(library).within(folder) {
            let apart = |item: &str| {
                let name = item.strip_suffix(".rs").unwrap_or(item);
                !shared.contains(&name) && name != "lib"
            };
            let wrong = used.iter().filter(|to| apart(&from) && apart(to)).collect::<Vec<_>>();
            assert!(wrong.is_empty(), "{library}/src/{folder}{from} uses {wrong:?}");
        }
    }
}

#[test]
fn the_structure_can_be_counted() {
    println!("{:44} {:>5} {:>6} {:>7} {:>6}", "folder", "rooms", "arrows", "circles", "upward");
    for library in CRATES {
        let imports = imports(library);
        for folder in imports.folders() {
            let arrows = imports.within(&folder);
            let order = ORDERS.iter().find(|(name, of, _)| *name == library && *of == folder);
            let upward = order.map_or(0, |(_, _, layers)| upward(&arrows, layers).len());
            let lines = arrows.values().map(BTreeSet::len).sum::<usize>();
            let (name, circles) = (format!("{library}/src/{folder}"), circles(&arrows).len());
            println!("{name:44} {:>5} {lines:>6} {circles:>7} {upward:>6}", arrows.len());
        }
        println!("{library}: circles of files {}", circles(&imports.arrows).len());
    }
}
