//! The rules of the house that a program can hold.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests say what is wrong by failing"
)]

use std::fs;
use std::path::{Path, PathBuf};

mod coverage;
mod imports;
mod package;
mod pages;
mod seeded;
mod shape;
mod structure;
mod words;

/// The checkout to look at.
fn root() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    std::env::var_os("TIDY_ROOT").map_or_else(here, PathBuf::from)
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
        "streamjobs-cron",
        "streamjobs-dashboard",
        "streamjobs-macros",
        "streamjobs-postgres",
        "examples",
        "peers",
        "servers",
        "tests",
    ];
    let all = folders.into_iter().flat_map(sources);
    all.filter(|(name, _)| !name.contains("/target/") && !name.contains("tests/tests/ui/"))
        .collect()
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

/// Behind a pooler that assigns connections per transaction, a named statement collides with those
/// of other clients, and an unnamed one outside of a transaction can get another client's answer.
#[test]
fn statements_are_unnamed_and_within_a_transaction() {
    // sqlx looks a type up by name with a query of its own, which discards the unnamed statement.
    let made = ["sqlx::query(", "sqlx::query_", "sqlx::raw_sql(", "persistent(", "with_name("];
    let begun = ["begin_with(", ".begin()", ".acquire().await?", ".pool()"];
    for (name, text) in sources("streamjobs-postgres/src") {
        if name.ends_with("/statement.rs") {
            continue;
        }
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let may = |word: &str| word == ".pool()" && name.ends_with("src/postgres.rs");
            let found = made.iter().chain(&begun).find(|word| line.contains(**word) && !may(word));
            assert!(found.is_none(), "{name} does not use `statement.rs`: {}", line.trim());
            // A pool that is at hand runs a statement just as well.
            let direct = ["(pool)", "(&pool)", "(&self.pool)"];
            let run = ["fetch", "execute("];
            let runs = run.iter().any(|word| line.contains(word));
            let direct = runs && direct.iter().any(|word| line.contains(word));
            assert!(!direct, "{name} runs a statement outside of a transaction: {}", line.trim());
        }
    }
}

#[test]
fn no_test_sleeps_for_a_fixed_time_or_is_ignored() {
    for (name, text) in all_sources() {
        let is_test = name.starts_with("tests/tests/") || name.starts_with("streamjobs-cli/tests/");
        let forbidden = ["thread::sleep(", "time::sleep(", " sleep(", "#[ignore"];
        for word in forbidden.iter().filter(|_| is_test && !name.contains("/tidy/")) {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
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

/// Everything that users read: pages, code with its documentation, SQL and package descriptions.
fn all_texts() -> Vec<(String, String)> {
    let kinds = [".css", ".html", ".js", ".lua", ".md", ".rs", ".sql", ".toml"];
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
