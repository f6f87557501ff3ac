//! Which file of a crate uses which: read from `use` declarations and paths, followed through
//! re-exports to the file that defines the name.

use std::collections::{BTreeMap, BTreeSet};

/// The files of one crate and the arrows between them.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    /// For each file, by its path below `src/`, the files that it uses.
    pub(crate) arrows: BTreeMap<String, BTreeSet<String>>,
}

/// One file: what it defines, and what its names stand for.
#[derive(Debug, Default)]
struct File {
    path: String,
    defined: BTreeSet<String>,
    /// Names that the file makes visible to others under its own module, with their paths.
    exported: Vec<(String, Vec<String>)>,
    /// Every path that the file uses for itself.
    used: Vec<Vec<String>>,
}

impl Imports {
    /// Reads the files of a crate: paths below `src/` with their texts.
    pub(crate) fn of(files: &[(String, String)]) -> Self {
        let modules = files.iter().map(|(path, text)| {
            let module = module_of(path);
            (module.clone(), File::read(path, &module, text))
        });
        let modules = modules.collect::<BTreeMap<_, _>>();
        let mut arrows = BTreeMap::new();
        for file in modules.values() {
            let used = file.used.iter().filter_map(|path| definition(&modules, path, 0));
            let used = used.filter(|other| *other != file.path).map(str::to_owned);
            arrows.insert(file.path.clone(), used.collect());
        }
        Self { arrows }
    }

    /// The arrows between the items of one folder: its files, and its folders as one each.
    pub(crate) fn within(&self, folder: &str) -> BTreeMap<String, BTreeSet<String>> {
        let item = |path: &str| {
            let rest = path.strip_prefix(folder)?;
            Some(rest.split('/').next()?.to_owned())
        };
        let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, used) in &self.arrows {
            let Some(from) = item(from) else { continue };
            let to = used.iter().filter_map(|path| item(path)).filter(|to| *to != from);
            arrows.entry(from.clone()).or_default().extend(to);
        }
        arrows
    }

    /// Every folder that has files or folders, as a prefix of paths: the crate itself is empty.
    pub(crate) fn folders(&self) -> BTreeSet<String> {
        let mut folders = BTreeSet::from([String::new()]);
        for path in self.arrows.keys() {
            let ends = path.match_indices('/').map(|(end, _)| path[..=end].to_owned());
            folders.extend(ends);
        }
        folders
    }
}

/// What lies on circles: names that reach themselves, each circle as the set of its members.
pub(crate) fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(next) = open.pop() {
            for to in arrows.get(&next).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let reach = arrows.keys().map(|from| (from.clone(), reached(from)));
    let reach = reach.collect::<BTreeMap<_, _>>();
    let mut found = BTreeSet::new();
    for (from, seen) in reach.iter().filter(|(from, seen)| seen.contains(*from)) {
        let back = |to: &&String| reach.get(*to).is_some_and(|seen| seen.contains(from));
        found.insert(seen.iter().filter(back).cloned().collect::<BTreeSet<_>>());
    }
    found.into_iter().collect()
}

/// `a/b/mod.rs` and `a/b.rs` are module `a::b`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module = path.split('/').map(str::to_owned).collect::<Vec<_>>();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// The file that defines what a path names, through re-exports.
fn definition<'a>(
    modules: &'a BTreeMap<Vec<String>, File>,
    path: &[String],
    depth: usize,
) -> Option<&'a str> {
    let known = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let file = &modules[&path[..known]];
    let Some(name) = path.get(known) else { return Some(&file.path) };
    if file.defined.contains(name) || depth > 8 {
        return Some(&file.path);
    }
    let exported = file.exported.iter().find(|(exported, _)| exported == name || exported == "*");
    match exported {
        Some((glob, target)) if glob == "*" => {
            let mut target = target.clone();
            target.push(name.clone());
            definition(modules, &target, depth + 1)
        }
        Some((_, target)) => definition(modules, target, depth + 1),
        None => Some(&file.path),
    }
}

impl File {
    fn read(path: &str, module: &[String], text: &str) -> Self {
        let code = code_of(text);
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        for line in code.lines() {
            file.defined.extend(defined_name(line));
        }
        let mut bodies = String::new();
        let mut rest = code.as_str();
        while let Some((before, public, tree, after)) = next_use(rest) {
            bodies.push_str(before);
            let mut paths = Vec::new();
            expand(tree, &[], &mut paths);
            for (name, target) in paths {
                let Some(target) = absolute(module, &target) else { continue };
                match public {
                    true => file.exported.push((name, target)),
                    false => file.used.push(target),
                }
            }
            rest = after;
        }
        bodies.push_str(rest);
        file.used.extend(inline_paths(&bodies).filter_map(|path| absolute(module, &path)));
        file
    }
}

/// The code of a file: without comments, and without its tests, which may use what they like.
fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| match line.trim_start() {
        comment if comment.starts_with("//") => "",
        // Where a name is visible is no use of that module.
        code if code.starts_with("pub(in ") => code.split_once(')').map_or("", |(_, rest)| rest),
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The name that a line defines, whether it is visible elsewhere or not.
fn defined_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let kinds = ["struct", "enum", "trait", "type", "fn", "const", "static", "macro_rules!"];
    let found = words.find(|word| {
        let modifier = word.starts_with("pub") || matches!(*word, "async" | "unsafe" | "extern");
        !modifier
    })?;
    let mut name = words.next()?;
    if found == "const" && name == "fn" {
        name = words.next()?;
    } else if !kinds.contains(&found) {
        return None;
    }
    let name = name.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_');
    Some(name.collect())
}

/// The next `use` declaration: what is before it, whether it re-exports, its tree, what comes after.
fn next_use(code: &str) -> Option<(&str, bool, &str, &str)> {
    let mut start = 0;
    loop {
        let line_end = code[start..].find('\n').map_or(code.len(), |end| start + end);
        let line = code[start..line_end].trim_start();
        let public = line.starts_with("pub");
        let tree = match public {
            true => line.split_once(" use ").filter(|(head, _)| !head.contains(' ')),
            false => line.strip_prefix("use ").map(|tree| ("", tree)),
        };
        if let Some((_, tree)) = tree {
            let tree_start = line_end - tree.len();
            let end = code[tree_start..].find(';').map_or(code.len(), |end| tree_start + end);
            let after = code.get(end + 1..).unwrap_or_default();
            return Some((&code[..start], public, &code[tree_start..end], after));
        }
        if line_end == code.len() {
            return None;
        }
        start = line_end + 1;
    }
}

/// Every name of a use tree with its whole path.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let segments = head.split("::").map(str::trim).filter(|segment| !segment.is_empty());
        let prefix = prefix.iter().cloned().chain(segments.map(str::to_owned)).collect::<Vec<_>>();
        let group = group.trim_end().strip_suffix('}').unwrap_or(group);
        for part in parts(group) {
            expand(part, &prefix, found);
        }
        return;
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (tree, None),
    };
    let segments = path.split("::").map(str::trim).filter(|segment| !segment.is_empty());
    let mut path = prefix.iter().cloned().chain(segments.map(str::to_owned)).collect::<Vec<_>>();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let Some(last) = path.last().cloned() else { return };
    if last == "*" {
        path.pop();
    }
    found.push((alias.unwrap_or(last), path));
}

/// The parts of a group, at its commas outside of inner groups.
fn parts(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Paths below the crate that stand in code.
fn inline_paths(code: &str) -> impl Iterator<Item = Vec<String>> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    code.split(move |letter| !is_word(letter)).filter_map(|word| {
        let path = word.split("::").map(str::to_owned).collect::<Vec<_>>();
        let root = path.first().map(String::as_str);
        (path.len() > 1 && matches!(root, Some("crate" | "super" | "self"))).then_some(path)
    })
}

/// A path from the crate's root; none if it leads outside.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut base = Vec::new();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate") => rest = &path[1..],
        Some("self") => {
            base = module.to_vec();
            rest = &path[1..];
        }
        Some("super") => {
            base = module.to_vec();
            while rest.first().is_some_and(|segment| segment == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        _ => return None,
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(files: &[(&str, &str)]) -> Imports {
        let owned = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Imports::of(&owned.collect::<Vec<_>>())
    }

    fn used(imports: &Imports, file: &str) -> Vec<String> {
        imports.arrows[file].iter().cloned().collect()
    }

    #[test]
    fn names_are_followed_through_re_exports_to_their_files() {
        let imports = imports(&[
            ("lib.rs", "mod a;\nmod b;\npub use self::a::Thing;\n"),
            ("a/mod.rs", "mod inner;\npub(crate) use self::inner::{Thing, other as renamed};\n"),
            ("a/inner.rs", "pub struct Thing;\npub fn other() {}\n"),
            ("b.rs", "use crate::a::{self, renamed};\nfn f() { crate::Thing; super::a::Thing; }\n"),
        ]);
        assert_eq!(used(&imports, "b.rs"), ["a/inner.rs", "a/mod.rs"]);
        assert_eq!(used(&imports, "a/mod.rs"), [""; 0], "a re-export is no use");
    }

    #[test]
    fn circles_are_found_between_files_and_between_folders() {
        let imports = imports(&[
            ("a/one.rs", "use crate::b::two::Two;\npub struct One;\n"),
            ("a/three.rs", "pub(crate) struct Three;\n"),
            ("b/two.rs", "use crate::a::three::Three;\npub struct Two;\n"),
        ]);
        assert!(circles(&imports.arrows).is_empty(), "no file reaches itself");
        let folders = circles(&imports.within(""));
        assert_eq!(folders, [BTreeSet::from(["a".to_owned(), "b".to_owned()])]);
        assert_eq!(imports.folders(), ["", "a/", "b/"].map(str::to_owned).into());
    }

    #[test]
    fn tests_and_comments_use_nothing() {
        let imports = imports(&[
            ("a.rs", "// crate::b::Two\n#[cfg(test)]\nmod tests {\n use crate::b::Two;\n}\n"),
            ("b.rs", "pub const fn two() {}\n"),
        ]);
        assert!(used(&imports, "a.rs").is_empty());
    }
}
