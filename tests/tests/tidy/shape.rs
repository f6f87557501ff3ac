//! The size of files, functions and structs, and what each of them says first.

use std::collections::BTreeSet;

use super::{all_sources, sources};

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

/// A struct with its fields.
struct Struct {
    name: String,
    fields: Vec<String>,
}

/// The structs of a file that have named fields.
fn structs(text: &str) -> Vec<Struct> {
    let mut found = Vec::<Struct>::new();
    let mut indent = None;
    for line in text.lines() {
        let code = line.trim_start();
        let depth = line.len() - code.len();
        if let Some(open) = indent {
            if code == "}" && depth == open {
                indent = None;
            } else if depth == open + 4 && !code.starts_with(['/', '#']) {
                let code = code.strip_prefix("pub").unwrap_or(code);
                let code = code
                    .strip_prefix(|first| first == '(')
                    .map_or(code, |rest| rest.split_once(')').map_or(rest, |(_, rest)| rest));
                if let (Some((name, _)), Some(last)) = (code.split_once(':'), found.last_mut()) {
                    last.fields.push(name.trim().to_owned());
                }
            }
        } else if let Some((_, name)) = code.split_once("struct ").filter(|_| code.ends_with(" {"))
        {
            let name = name.split(|letter: char| !letter.is_alphanumeric()).next();
            found.push(Struct { name: name.unwrap_or_default().to_owned(), fields: Vec::new() });
            indent = Some(depth);
        }
    }
    found
}

#[test]
fn no_struct_of_the_runtime_has_more_than_twelve_fields() {
    let mut wrong = Vec::new();
    for (name, text) in sources("streamjobs/src/runtime") {
        for Struct { name: of, fields } in structs(&text) {
            if fields.len() > 12 {
                wrong.push(format!("{name}: {of} has {} fields", fields.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A loop is what has `run` in its file. What it is given stands in its own struct, each field of
/// which its file has to use: a bag that is handed on whole would hide what a loop depends on.
#[test]
fn no_loop_of_the_runtime_is_given_what_it_does_not_use() {
    let (mut loops, mut wrong) = (0, Vec::new());
    for (name, text) in sources("streamjobs/src/runtime") {
        let is_loop = text.contains("async fn run(self") || text.contains("async fn run(mut self");
        for Struct { name: of, fields } in structs(&text).into_iter().filter(|_| is_loop) {
            loops += 1;
            let used = |field: &String| {
                let taken = [format!(".{field}."), format!(".{field}\n"), format!(".{field}(")];
                let bare = [")", ",", ";", " ", "?", "["].map(|end| format!(".{field}{end}"));
                let bound = format!("Self {{ {field}");
                let names = taken.iter().chain(&bare).any(|word| text.contains(word.as_str()));
                names || text.contains(&bound) || destructured(&text, field)
            };
            let unused = fields.iter().filter(|field| !used(field)).collect::<BTreeSet<_>>();
            if !unused.is_empty() {
                wrong.push(format!("{name}: {of} does not use {unused:?}"));
            }
        }
    }
    assert!(loops > 5, "the loops are found: {loops}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a pattern takes the field out of its struct.
fn destructured(text: &str, field: &str) -> bool {
    let patterns = text.split("let Self {").skip(1);
    patterns.filter_map(|rest| rest.split_once('}')).any(|(names, _)| {
        names.split(',').any(|name| name.trim().trim_start_matches("mut ") == field)
    })
}

#[test]
fn modules_with_children_are_folders_with_a_mod_file() {
    let all = all_sources();
    let names = all.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>();
    let beside = names.iter().filter(|name| {
        let folder = format!("{}/", name.strip_suffix(".rs").unwrap_or(name));
        names.iter().any(|other| other.starts_with(&folder))
    });
    assert_eq!(beside.collect::<Vec<_>>(), Vec::<&&str>::new());
}
