//! The rules of the house that a program can hold.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests say what is wrong by failing"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of the core crate, lowest first, as ARCHITECTURE.md draws them. A module may use its
/// own layer and those before it.
const LAYERS: [&[&str]; 7] =
    [&["model"], &["store"], &["insight"], &["publish"], &["handler"], &["runtime"], &["api"]];

/// The layers of the Postgres crate, as ARCHITECTURE.md draws them. Those of the last one are what
/// users call, and know nothing of each other.
const POSTGRES_LAYERS: [&[&str]; 5] = [
    &["fault", "key", "limits", "metrics", "schema", "text", "time"],
    &["migrate"],
    &["postgres"],
    &["note"],
    &["archive", "letters", "mark", "once", "outbox", "prune"],
];

/// The layers of the dashboard, as ARCHITECTURE.md draws them.
const DASHBOARD_LAYERS: [&[&str]; 8] = [
    &["access", "base", "fault", "format", "history"],
    &["alerts", "archived", "assets", "audit", "auth", "csrf", "payload", "sampler"],
    &["notice", "state", "visit"],
    &["layout"],
    &["form", "guard", "live"],
    &["pages"],
    &["actions"],
    &["dashboard", "routes"],
];

/// The loops, which meet through channels and never import each other.
const LOOPS: [&str; 10] = [
    "intake/reader",
    "intake/reaper",
    "intake/lease_keeper",
    "attempt/dispatcher",
    "settle/settler",
    "settle/ack_flusher",
    "upkeep/promoter",
    "upkeep/heartbeat_sender",
    "upkeep/trimmer",
    "upkeep/watcher",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file under a folder of the workspace, with its path from there.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn all_sources() -> Vec<(String, String)> {
    let folders = [
        "streamjobs",
        "streamjobs-cli",
        "streamjobs-dashboard",
        "streamjobs-macros",
        "streamjobs-postgres",
        "examples",
        "peers",
        "tests",
    ];
    let all = folders.into_iter().flat_map(sources);
    all.filter(|(name, _)| !name.contains("/target/") && !name.contains("tests/tests/ui/"))
        .collect()
}

fn layer_in(layers: &[&[&str]], module: &str) -> Option<usize> {
    layers.iter().position(|modules| modules.contains(&module))
}

fn layer(module: &str) -> Option<usize> {
    layer_in(&LAYERS, module)
}

/// The module of its crate that a file belongs to.
fn top_module(name: &str) -> String {
    let (_, path) = name.split_once("/src/").unwrap();
    path.split(['/', '.']).next().unwrap().to_owned()
}

/// The crate's own modules that a file names.
fn used_modules(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut used = Vec::new();
    for line in code {
        let mut rest = line;
        while let Some(place) = rest.find("crate::") {
            let before = rest[..place].chars().next_back();
            rest = &rest[place + "crate::".len()..];
            if before == Some('$') {
                continue;
            }
            let module =
                rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_');
            used.push(module.collect::<String>());
        }
    }
    used
}

#[test]
fn modules_import_only_downward() {
    let mut faults = Vec::new();
    for (name, text) in sources("streamjobs/src") {
        let own = top_module(&name);
        let Some(own_layer) = layer(&own) else { continue };
        for used in used_modules(&text) {
            if layer(&used).is_some_and(|used| used > own_layer) {
                faults.push(format!("{name} uses {used}, which lives above it"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_modules_of_the_core_import_each_other_in_a_circle() {
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for (name, text) in sources("streamjobs/src") {
        let own = top_module(&name);
        let used = used_modules(&text).into_iter().filter(|used| layer(used).is_some());
        imports.entry(own.clone()).or_default().extend(used.filter(|used| *used != own));
    }
    // What imports nothing that is left is taken away; what stays goes round in circles.
    imports.remove("lib");
    while let Some(done) = imports
        .iter()
        .find(|(_, used)| used.iter().all(|used| !imports.contains_key(used)))
        .map(|(module, _)| module.clone())
    {
        imports.remove(&done);
    }
    assert!(imports.is_empty(), "{imports:#?}");
}

#[test]
fn modules_of_the_postgres_crate_import_only_downward() {
    let top = POSTGRES_LAYERS.len() - 1;
    let mut faults = Vec::new();
    for (name, text) in sources("streamjobs-postgres/src") {
        let own = top_module(&name);
        let Some(own_layer) = layer_in(&POSTGRES_LAYERS, &own) else { continue };
        for used in used_modules(&text).into_iter().filter(|used| *used != own) {
            let used_layer = layer_in(&POSTGRES_LAYERS, &used);
            if used_layer.is_some_and(|used| used > own_layer || used == top) {
                faults.push(format!("{name} uses {used}, which does not live below it"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn modules_of_the_dashboard_import_only_downward() {
    let mut faults = Vec::new();
    for (name, text) in sources("streamjobs-dashboard/src") {
        let own = top_module(&name);
        let Some(own_layer) = layer_in(&DASHBOARD_LAYERS, &own) else { continue };
        for used in used_modules(&text).into_iter().filter(|used| *used != own) {
            if layer_in(&DASHBOARD_LAYERS, &used).is_some_and(|used| used > own_layer) {
                faults.push(format!("{name} uses {used}, which does not live below it"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_module_has_a_layer() {
    for (library, layers) in [
        ("streamjobs", LAYERS.as_slice()),
        ("streamjobs-postgres", &POSTGRES_LAYERS),
        ("streamjobs-dashboard", &DASHBOARD_LAYERS),
    ] {
        let text = fs::read_to_string(root().join(library).join("src/lib.rs")).unwrap();
        let modules = text.lines().filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        for module in modules {
            assert!(
                layer_in(layers, module).is_some(),
                "{module} of {library} is in no layer of this test and of ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn loops_do_not_import_each_other() {
    for name in LOOPS {
        let path = root().join(format!("streamjobs/src/runtime/{name}.rs"));
        let text = fs::read_to_string(&path).unwrap();
        for other in LOOPS.iter().filter(|other| **other != name) {
            let other = other.replace('/', "::");
            assert!(!text.contains(&format!("runtime::{other}::")), "{name} imports {other}");
        }
    }
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    let long = all_sources().into_iter().filter(|(_, text)| text.lines().count() > 500);
    let long =
        long.map(|(name, text)| format!("{name}: {}", text.lines().count())).collect::<Vec<_>>();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn no_function_is_longer_than_seventy_lines() {
    let mut faults = Vec::new();
    for (name, text) in all_sources() {
        let lines = text.lines().collect::<Vec<_>>();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            if !code.contains("fn ") || code.starts_with("//") || code.starts_with("$(") {
                continue;
            }
            // A head ends with its body's brace, or with a semicolon where there is no body.
            let head = lines[start..].iter().find(|line| line.ends_with(['{', ';', '}']));
            if head.is_none_or(|head| !head.ends_with('{')) {
                continue;
            }
            // The formatter puts the closing brace of a function under its first word.
            let end = format!("{}}}", " ".repeat(indent));
            let length =
                lines[start..].iter().position(|line| **line == end).map_or(0, |end| end + 1);
            if length > 70 {
                faults.push(format!("{name}:{}: {length} lines", start + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_module_says_its_purpose_in_its_first_line() {
    let silent = all_sources().into_iter().filter(|(name, text)| {
        name.contains("/src/") && !text.starts_with("//!") && !text.starts_with("#![doc")
    });
    assert_eq!(silent.map(|(name, _)| name).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn redis_commands_and_scripts_stay_in_the_store() {
    for (name, text) in sources("streamjobs/src") {
        if name.contains("/store/") {
            continue;
        }
        for word in ["redis::cmd", "redis::pipe", "redis.call", "XADD\"", "XACK\""] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named =
                code.filter(|line| line.contains(word) && !line.contains("command: \"")).count();
            assert_eq!(named, 0, "{name} names {word}");
        }
    }
}

#[test]
fn sql_is_made_in_one_place() {
    for (name, text) in sources("streamjobs-postgres/src") {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let asserted = line.contains("AssertSqlSafe") && !name.ends_with("/schema.rs");
            assert!(!asserted, "{name} makes SQL text: use `SchemaName::sql`");
            let words = ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", "QueryBuilder"];
            let formatted =
                line.contains("format!") && words.iter().any(|word| line.contains(word));
            assert!(!formatted, "{name} formats SQL text: {line}");
        }
    }
}

#[test]
fn no_test_sleeps_for_a_fixed_time_or_is_ignored() {
    for (name, text) in all_sources() {
        let is_test = name.starts_with("tests/tests/") || name.starts_with("streamjobs-cli/tests/");
        let forbidden = ["thread::sleep(", "time::sleep(", " sleep(", "#[ignore"];
        for word in forbidden.iter().filter(|_| is_test && !name.ends_with("tidy.rs")) {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn every_row_of_the_coverage_table_names_a_test_that_exists() {
    let table = fs::read_to_string(root().join("tests/COVERAGE.md")).unwrap();
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Row")) {
        let cell = line.split('|').nth(2).unwrap().trim();
        rows += 1;
        for test in cell.split(", ").filter(|test| test.contains("::")) {
            let (path, name) = test.rsplit_once("::").unwrap();
            let text = fs::read_to_string(root().join(path))
                .unwrap_or_else(|_| panic!("{path} is missing"));
            assert!(text.contains(&format!("fn {name}")) || text.contains(name), "{line}");
        }
    }
    assert!(rows > 0);
}

/// The faults that the project holds itself to: letter and how many.
const FAULTS: [(char, usize); 9] = [
    ('A', 14),
    ('B', 12),
    ('C', 13),
    ('D', 21),
    ('E', 16),
    ('F', 16),
    ('G', 5),
    ('H', 7),
    ('L', 13),
];

#[test]
fn every_fault_has_a_line_with_a_test_or_says_why_not() {
    let table = fs::read_to_string(root().join("tests/COVERAGE.md")).unwrap();
    let mut wrong = Vec::new();
    for (letter, count) in FAULTS {
        for number in 1..=count {
            let name = format!("{letter}{number}");
            let is_its = |line: &&str| line.split('|').nth(1).map(str::trim) == Some(&name);
            let lines = table.lines().filter(is_its).collect::<Vec<_>>();
            let told = lines.first().is_some_and(|line| {
                let cells = line.split('|').map(str::trim).collect::<Vec<_>>();
                let said = ["no test: ", "open: "].iter().any(|word| cells[3].starts_with(word));
                cells[2].contains("::") != (cells[2].is_empty() && said)
            });
            if lines.len() != 1 || !told {
                wrong.push(format!("{name}: {lines:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn documents_that_users_need_are_there() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
    ] {
        assert!(root().join(name).is_file(), "{name}");
    }
}

/// All that may be called exactly once, with the page that says so: effects in the guard's own
/// transaction. Everything else happens at least once.
const EXACTLY_ONCE: [(&str, &str); 4] = [
    ("README.md", "What a handler writes through `&mut Once` happens exactly once"),
    ("streamjobs/src/handler/once/mod.rs", "There is no window: such effects happen exactly once."),
    (
        "streamjobs-postgres/docs/front.md",
        "What a handler writes through [`&mut Once`](Once) happens exactly once",
    ),
    (
        "streamjobs-postgres/src/once.rs",
        "What is written through this transaction happens exactly once",
    ),
];

#[test]
fn exactly_once_is_said_of_guarded_effects_alone() {
    let mut told = BTreeSet::new();
    for (name, text) in all_texts() {
        let marks = ["//!", "///", "//", "--", "#"];
        let bare = |line: &str| {
            let line = line.trim();
            let mark = marks.iter().find_map(|mark| line.strip_prefix(mark));
            mark.unwrap_or(line).trim().to_owned()
        };
        let mut rest = text.lines().map(bare).collect::<Vec<_>>().join(" ");
        for (_, sentence) in EXACTLY_ONCE.iter().filter(|(page, _)| *page == name) {
            assert!(rest.contains(sentence), "{name} does not say any more: {sentence}");
            rest = rest.replacen(sentence, "", 1);
            told.insert(*sentence);
        }
        // As one word or as two, whatever lines it stands on.
        let rest = rest.to_lowercase().replace('-', " ");
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!rest.contains("exactly once"), "{name} says it of something else");
    }
    assert_eq!(told.len(), EXACTLY_ONCE.len());
}

/// Everything that users read: pages, code with its documentation, SQL and package descriptions.
fn all_texts() -> Vec<(String, String)> {
    let kinds = [".md", ".rs", ".sql", ".toml"];
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let is_ours = !name.starts_with('.') && name != "tests" && !name.ends_with("target");
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if path.is_file() && kinds.iter().any(|kind| name.ends_with(kind)) {
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}
