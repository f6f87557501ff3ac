//! The board and the alert rules in `monitoring/`: they are valid, and name what processes export.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests say what is wrong by failing"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use streamjobs_tests::promtool::Promtool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// A metric of the tables of the code: its kind and its labels.
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The metrics of both crates. Their pages say the labels, which other tests compare with what processes
/// export; that the code has them at all is checked here again.
fn metrics() -> BTreeMap<String, Metric> {
    let mut found = BTreeMap::new();
    for (page, code, at) in [
        ("docs/metrics.md", "streamjobs/src/insight/metrics/table.rs", 4),
        ("docs/postgres.md", "streamjobs-postgres/src/metrics.rs", 3),
    ] {
        let code = text(code);
        for line in text(page).lines().filter(|line| line.starts_with("| `")) {
            let cells = line.split('|').map(str::trim).collect::<Vec<_>>();
            let name = cells[1].trim_matches('`').to_owned();
            if !["streamjobs_", "messaging_"].iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            assert!(code.contains(&format!("\"{name}\"")), "the code has no {name}");
            let labels = cells[at].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            found.insert(name, Metric { kind: cells[2].to_owned(), labels });
        }
    }
    assert!(found.len() > 60, "metrics are found: {}", found.len());
    found
}

/// The names of an expression: what consists of letters, digits and underscores and is not in quotes.
fn names(expression: &str) -> Vec<&str> {
    let bare = expression.split('"').step_by(2);
    let names = bare.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
    names.filter(|name| name.starts_with(|c: char| c.is_alphabetic())).collect()
}

/// What stands in each pair of these brackets.
fn within(expression: &str, open: &str, close: char) -> Vec<String> {
    let parts = expression.split(open).skip(1);
    parts.map(|part| part.split(close).next().unwrap().to_owned()).collect()
}

/// What is wrong with an expression: a metric that is not exported, in a way that its kind has not, or with
/// a label that it does not have.
fn wrong(expression: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let (mut wrong, mut labels, mut used) = (Vec::new(), BTreeSet::new(), 0);
    for name in names(expression) {
        if !["streamjobs_", "messaging_"].iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        used += 1;
        let bucket = name.strip_suffix("_bucket").unwrap_or(name);
        let Some(metric) = metrics.get(bucket) else {
            wrong.push(format!("no metric {name}"));
            continue;
        };
        let rated = expression.contains("rate(") || expression.contains("increase(");
        match metric.kind.as_str() {
            "histogram" if name == bucket => wrong.push(format!("{name} is a histogram")),
            "counter" if !rated => wrong.push(format!("{name} only grows")),
            _ => {}
        }
        labels.extend(metric.labels.iter().map(String::as_str));
    }
    if used == 0 {
        wrong.push("no metric".to_owned());
    }
    let mut named = within(expression, "by (", ')');
    named.extend(within(expression, "{", '}'));
    for label in named.iter().flat_map(|part| names(part)) {
        if label != "le" && !labels.contains(label) {
            wrong.push(format!("no label {label}"));
        }
    }
    wrong
}

#[test]
fn an_expression_with_a_metric_or_a_label_that_does_not_exist_is_found() {
    let metrics = metrics();
    for (expression, what) in [
        ("sum(rate(streamjobs_jobs_done_total[5m]))", "no metric streamjobs_jobs_done_total"),
        ("max by (queue) (streamjobs_jobs)", "no label queue"),
        ("streamjobs_jobs{pod=\"a\"}", "no label pod"),
        ("sum(streamjobs_dead_letters_total)", "streamjobs_dead_letters_total only grows"),
        ("streamjobs_queue_time_seconds", "streamjobs_queue_time_seconds is a histogram"),
        ("vector(1)", "no metric"),
    ] {
        assert_eq!(wrong(expression, &metrics), [what], "{expression}");
    }
    assert_eq!(wrong("max by (stream) (streamjobs_jobs{state=\"dead\"})", &metrics), [""; 0]);
}

#[test]
fn each_panel_of_the_board_has_a_title_a_unit_a_data_source_and_metrics_that_exist() {
    let (metrics, board) = (metrics(), text("monitoring/grafana.json"));
    let board = serde_json::from_str::<Value>(&board).unwrap();
    let variables = board["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap();
    assert_eq!(variable("datasource")["type"], "datasource");
    assert_eq!(variable("datasource")["query"], "prometheus");
    for name in ["stream", "group"] {
        let query = variable(name)["definition"].as_str().unwrap();
        assert!(query.starts_with("label_values(") && query.ends_with(&format!(", {name})")));
        assert_eq!(variable(name)["query"]["query"], query);
        assert_eq!(wrong(query, &metrics), [""; 0], "{query}");
    }
    let (mut ids, mut places, mut shown) = (BTreeSet::new(), BTreeSet::new(), 0);
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = &panel["gridPos"];
        let (x, y) = (place["x"].as_u64().unwrap(), place["y"].as_u64().unwrap());
        assert!(places.insert((x, y)) && x + place["w"].as_u64().unwrap() <= 24, "{title}");
        if panel["type"] == "row" {
            continue;
        }
        shown += 1;
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(["ops", "s", "short", "bytes"].contains(&unit.unwrap()), "{title}: {unit:?}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "5m");
            assert_eq!(wrong(&expression, &metrics), [""; 0], "{title}: {expression}");
            let legend = target["legendFormat"].as_str().unwrap();
            let grouped = within(&expression, "by (", ')').join(" ");
            for label in within(legend, "{{", '}') {
                assert!(names(&grouped).contains(&&*label), "{title}: {legend}");
            }
        }
    }
    assert!(shown > 15, "panels are found: {shown}");
}

#[test]
fn each_alert_names_metrics_that_exist_and_a_page_that_says_what_to_do() {
    let (metrics, rules) = (metrics(), text("monitoring/alerts.yml"));
    let of = |key: &str| {
        let lines = rules.lines().filter_map(|line| line.trim_start().strip_prefix(key));
        lines.map(|value| value.trim().trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    let (alerts, expressions) = (of("- alert:"), of("expr:"));
    let (severities, pages) = (of("severity:"), of("runbook_url:"));
    assert!(alerts.len() > 10, "alerts are found: {}", alerts.len());
    for (index, alert) in alerts.iter().enumerate() {
        assert_eq!(wrong(&expressions[index], &metrics), [""; 0], "{alert}");
        assert!(["info", "warning", "critical"].contains(&&*severities[index]), "{alert}");
        let page = pages[index].strip_prefix("https://github.com/streamjobs/streamjobs/blob/main/");
        let (page, anchor) = page.unwrap().split_once('#').unwrap_or((page.unwrap(), ""));
        let headings = text(page);
        let mut headings = headings.lines().filter(|line| line.starts_with('#'));
        let is = |line: &str| line.trim_matches(['#', ' ', '`']).to_lowercase() == anchor;
        assert!(anchor.is_empty() || headings.any(is), "{alert}: {page} has no {anchor}");
    }
    assert_eq!(alerts.iter().collect::<BTreeSet<_>>().len(), alerts.len());
    // Labels in the sentences are those that the expression keeps.
    for (expression, summary) in expressions.iter().zip(of("summary:")) {
        let kept = within(expression, "by (", ')').join(" ");
        for label in within(&summary, "$labels.", ' ') {
            assert!(names(&kept).contains(&label.trim_matches(['.', '}', ')'])), "{summary}");
        }
    }
}

#[test]
fn prometheus_accepts_the_rules_and_fires_them_as_their_tests_say() {
    let promtool = match Promtool::find_or_download() {
        Ok(promtool) => promtool,
        Err(error) => {
            // Past the test runner's capture.
            let line = format!("skipped: promtool has not checked monitoring/alerts.yml: {error}");
            let _ = writeln!(io::stderr(), "{line}");
            return;
        }
    };
    let checked = promtool.accepts(&["check", "rules"], &root().join("monitoring/alerts.yml"));
    assert!(checked.contains("SUCCESS"), "{checked}");
    promtool.accepts(&["test", "rules"], &root().join("monitoring/alerts_test.yml"));
}
