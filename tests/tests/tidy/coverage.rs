//! The table that says which test shows which behaviour.

use std::fs;

use super::root;

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
