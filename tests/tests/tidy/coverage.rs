//! The table of what is promised, and of the tests that show it.

use std::fs;

use super::root;

/// One row: what is promised, and what shows it.
struct Row {
    id: String,
    promise: String,
    tests: String,
    remark: String,
}

fn rows() -> Vec<Row> {
    let table = fs::read_to_string(root().join("tests/COVERAGE.md")).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| Id");
    let rows = table.lines().filter(is_row).map(|line| {
        let cells = line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let [_, id, promise, tests, remark, _] = cells.try_into().unwrap();
        Row { id, promise, tests, remark }
    });
    rows.collect()
}

#[test]
fn every_row_of_the_coverage_table_names_a_test_that_exists() {
    let rows = rows();
    for Row { id, tests, .. } in &rows {
        for test in tests.split(", ").filter(|test| test.contains("::")) {
            let (path, name) = test.rsplit_once("::").unwrap();
            let text = fs::read_to_string(root().join(path))
                .unwrap_or_else(|_| panic!("{id}: {path} is missing"));
            assert!(text.contains(name), "{id}: {path} has no {name}");
        }
    }
    assert!(!rows.is_empty());
}

#[test]
fn every_row_of_the_coverage_table_says_what_is_promised() {
    for Row { id, promise, .. } in rows() {
        let is_sentence = promise.ends_with('.') && promise.split(' ').count() > 3;
        assert!(is_sentence, "{id} does not say what is promised: {promise}");
    }
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
    let rows = rows();
    let mut wrong = Vec::new();
    for (letter, count) in FAULTS {
        for number in 1..=count {
            let id = format!("{letter}{number}");
            let of_fault = rows.iter().filter(|row| row.id == id).collect::<Vec<_>>();
            let shown = |row: &&Row| {
                let reason =
                    ["no test: ", "open: "].iter().any(|word| row.remark.starts_with(word));
                row.tests.contains("::") != (row.tests.is_empty() && reason)
            };
            if of_fault.len() != 1 || !of_fault.iter().all(shown) {
                wrong.push(id);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
