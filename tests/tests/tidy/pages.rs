//! The pages: all are in the guide's table of contents, links lead somewhere, and examples are compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use streamjobs::stream::Condition;

use super::{root, sources};

/// The pages of the guide, by their paths in `docs`, with their texts.
fn pages() -> BTreeMap<String, String> {
    let (docs, mut folders, mut found) =
        (root().join("docs"), vec![root().join("docs")], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() && !path.ends_with("book") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(&docs).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The lines of a page that are no code.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        if !is_code && !fence {
            lines.push(line);
        }
    }
    lines
}

/// What the links and images of a page lead to.
fn links(text: &str) -> Vec<String> {
    // A link may be broken over two lines.
    let prose = prose(text).join(" ");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors that the headings of a page get, on the forge and in the book.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    for heading in headings.map(|line| line.trim_start_matches('#').trim()) {
        let kept =
            heading.chars().filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        assert!(found.insert(anchor), "two headings {heading:?} would have one address");
    }
    found
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let mut pages = pages();
    let summary = pages.remove("SUMMARY.md").unwrap();
    let mut linked = links(&summary);
    linked.sort();
    assert_eq!(linked, pages.into_keys().collect::<Vec<_>>());
    let book = fs::read_to_string(root().join("docs/book.toml")).unwrap();
    assert!(book.contains("src = \".\""), "the book is made of the pages where they are");
}

#[test]
fn every_relative_link_and_anchor_leads_somewhere() {
    let mut texts = BTreeMap::new();
    for (name, text) in pages() {
        texts.insert(root().join("docs").join(name), text);
    }
    for name in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"]
    {
        texts.insert(root().join(name), fs::read_to_string(root().join(name)).unwrap());
    }
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in &texts {
        for link in links(text).iter().filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                _ => plain(&page.parent().unwrap().join(file)),
            };
            let known = texts.get(&target).map(|text| anchors(text));
            let leads = match (known, anchor) {
                (_, "") => target.exists(),
                (Some(anchors), anchor) => anchors.contains(anchor),
                (None, _) => false,
            };
            // The book has no other folder.
            let in_book =
                !page.starts_with(root().join("docs")) || target.starts_with(root().join("docs"));
            if !leads || !in_book {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 100, "links are found: {seen}");
}

/// The book has the pages alone, so they name other files of the repository by their addresses on the forge.
#[test]
fn every_link_to_a_file_of_the_repository_leads_to_one() {
    const FORGE: &str = "https://github.com/streamjobs/streamjobs";
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in pages() {
        let links = links(&text);
        for rest in links.iter().filter_map(|link| link.strip_prefix(FORGE)) {
            seen += 1;
            let (path, anchor) = rest.split_once('#').unwrap_or((rest, ""));
            let (kind, file) = match path.strip_prefix("/blob/main/") {
                Some(file) => ("a file", file),
                None => ("a folder", path.strip_prefix("/tree/main/").unwrap_or(path)),
            };
            let target = match file {
                "" => root().join("README.md"),
                _ => root().join(file),
            };
            let is_there = if kind == "a file" || file.is_empty() {
                target.is_file()
            } else {
                target.is_dir()
            };
            let known = || anchors(&fs::read_to_string(&target).unwrap());
            if !is_there || !anchor.is_empty() && !known().contains(anchor) {
                wrong.push(format!("{page}: {FORGE}{rest} is not {kind}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 5, "links are found: {seen}");
}

/// Pages with examples that need crates which no test depends on, and how many they have.
const NOT_COMPILED: [(&str, usize); 2] = [
    ("actix.md", 1),
    // OpenTelemetry.
    ("tracing.md", 1),
];

#[test]
fn every_rust_example_of_a_page_is_part_of_a_program_of_the_tests() {
    // Without comments, white space and trailing commas, which are the formatter's.
    let bare = |code: &str| {
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let lines = lines.map(|line| line.split(" // ").next().unwrap_or_default());
        let dense = lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace());
        dense.collect::<String>().replace(",}", "}").replace(",)", ")")
    };
    let programs = ["examples", "tests/tests", "tests/handlers", "tests/orm/tests"]
        .into_iter()
        .flat_map(sources);
    let programs = programs.flat_map(|(_, text)| {
        // Some pages leave out what a function around the parts of an example needs.
        let parts = text.split("// page: begin").skip(1);
        let parts = parts.filter_map(|part| part.split("// page: end").next());
        let parts = parts.collect::<String>();
        [bare(&text), bare(&parts)]
    });
    let programs = programs.collect::<Vec<_>>();
    let (mut wrong, mut examples) = (BTreeMap::<String, Vec<String>>::new(), 0);
    for (name, text) in pages() {
        let printed = text.split("```rust\n").skip(1).filter_map(|part| part.split("```").next());
        for example in printed {
            examples += 1;
            let example = bare(example);
            if !programs.iter().any(|program| program.contains(&example)) {
                wrong.entry(name.clone()).or_default().push(example);
            }
        }
        assert!(!text.contains("```rust,"), "{name} has an example that is not compiled");
    }
    let counts = wrong.iter().map(|(name, examples)| (name.as_str(), examples.len()));
    assert_eq!(counts.collect::<Vec<_>>(), NOT_COMPILED, "{wrong:#?}");
    assert!(examples > 30, "examples are found: {examples}");
}

#[test]
fn the_runbook_has_a_heading_for_each_alert_and_diagnosis() {
    let runbook = pages().remove("runbook.md").unwrap();
    let found = anchors(&runbook);
    for condition in Condition::ALL {
        assert!(found.contains(condition.as_str()), "the runbook does not explain {condition}");
    }
    // And for nothing else that looks like one.
    let words = Condition::ALL.iter().map(|condition| condition.as_str()).collect::<BTreeSet<_>>();
    let headings = prose(&runbook).into_iter().filter_map(|line| line.strip_prefix("### `"));
    for heading in headings {
        assert!(words.contains(heading.trim_end_matches('`')), "no condition is called {heading}");
    }
}

#[test]
fn the_readme_can_be_read_in_one_sitting_and_examples_on_one_screen() {
    let lines = |text: &str| text.lines().count();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(lines(&readme) <= 200, "{}", lines(&readme));
    for (name, text) in sources("examples/src/bin") {
        // The demo is one program of many files.
        let is_small = !name.contains("/demo/");
        assert!(!is_small || lines(&text) <= 80, "{name}: {}", lines(&text));
    }
}
