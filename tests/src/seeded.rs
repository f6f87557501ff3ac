//! Seeded bugs: patches that each put one bug into a copy of the sources, and the tests that notice
//! them.
//!
//! A patch is a file in `tests/mutants`. The text before its first `diff` line describes the bug,
//! and says on lines of its own which test fails:
//!
//! ```text
//! Test: crash grid::a_process_may_end_at_any_fail_point_and_nothing_is_lost_or_done_twice
//! Cell: handler.before-Kill
//! Fails with: "lost"
//! ```
//!
//! `Cell` is only for the crash grid. `Fails with` is a part of what the failing test prints.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One seeded bug.
#[derive(Debug)]
pub struct SeededBug {
    /// The patch's file name without `.patch`.
    pub name: String,
    /// Where the patch is.
    pub patch: PathBuf,
    /// The integration test binary that has the guarding test.
    pub target: String,
    /// The guarding test's full name in that binary.
    pub test: String,
    /// The cell of the crash grid to run, if the test is the grid.
    pub cell: Option<String>,
    /// A part of what the guarding test prints when it notices the bug.
    pub fails_with: String,
}

impl SeededBug {
    /// All seeded bugs of the workspace at `root`, by name.
    ///
    /// # Errors
    ///
    /// If the patches cannot be read, or if one lacks a line of its head; the error names that line.
    pub fn all(root: &Path) -> io::Result<Vec<Self>> {
        let mut bugs = Vec::new();
        for item in fs::read_dir(root.join("tests/mutants"))? {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                bugs.push(Self::read(path)?);
            }
        }
        bugs.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(bugs)
    }

    fn read(patch: PathBuf) -> io::Result<Self> {
        let text = fs::read_to_string(&patch)?;
        let head = text.split("\ndiff ").next().unwrap_or_default();
        Self::parse(&patch, head).map_err(|line| {
            io::Error::other(format!("{} has no line `{line}: …`", patch.display()))
        })
    }

    /// Reads a patch's head; the error is the line that is missing.
    fn parse(patch: &Path, head: &str) -> Result<Self, &'static str> {
        let line = |name: &'static str| {
            let value = |line: &str| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
            head.lines().find_map(value).ok_or(name)
        };
        let test = line("Test")?;
        let (target, test) = test.split_once(' ').ok_or("Test")?;
        Ok(Self {
            name: patch.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            patch: patch.to_path_buf(),
            target: target.to_owned(),
            test: test.to_owned(),
            cell: line("Cell").ok(),
            fails_with: line("Fails with")?,
        })
    }

    /// Whether the patch applies to the sources below `root`, which are not changed.
    ///
    /// # Errors
    ///
    /// What git prints, if the patch does not apply.
    pub fn check(&self, root: &Path) -> Result<(), String> {
        self.git(root, &["--check"])
    }

    /// Puts the bug into the sources below `root`.
    ///
    /// # Errors
    ///
    /// What git prints, if the patch does not apply.
    pub fn apply(&self, root: &Path) -> Result<(), String> {
        self.git(root, &[])
    }

    /// Removes the bug from the sources below `root` again.
    ///
    /// # Errors
    ///
    /// What git prints, if the sources were changed meanwhile.
    pub fn revert(&self, root: &Path) -> Result<(), String> {
        self.git(root, &["--reverse"])
    }

    fn git(&self, root: &Path, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new("git");
        command.arg("apply").args(words).arg(&self.patch).current_dir(root).stdin(Stdio::null());
        // A copy inside the checkout must not be treated as part of it: without a repository, paths
        // begin at `root`.
        command.env("GIT_CEILING_DIRECTORIES", root.parent().unwrap_or(root));
        command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
        let output = command.output().map_err(|error| format!("git does not run: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_patch_names_the_test_that_fails_and_how() {
        let path = Path::new("tests/mutants/ack-before-run.patch");
        let head = "The bug.\n\nTest: crash grid::cells\nCell: a-Kill\nFails with: \"lost\"\n";
        let bug = SeededBug::parse(path, head).unwrap();
        let parts = [bug.name, bug.target, bug.test, bug.fails_with];
        assert_eq!(parts, ["ack-before-run", "crash", "grid::cells", "\"lost\""]);
        assert_eq!(bug.cell.as_deref(), Some("a-Kill"));
        let missing = SeededBug::parse(path, "Test: crash grid::cells\n").unwrap_err();
        assert_eq!(missing, "Fails with");
        assert_eq!(SeededBug::parse(path, "Test: crash\n").unwrap_err(), "Test");
    }
}
