//! Pages and the code that they print.

/// Checks that a page prints the code between the marks of a source file, apart from white space and
/// comments.
///
/// # Panics
///
/// When it prints anything else.
pub fn assert_printed(page: &str, source: &str) {
    let printed = page.split("```rust\n").skip(1).filter_map(|part| part.split("```").next());
    let run = source.split("// page: begin\n").skip(1);
    let run = run.filter_map(|part| part.split("// page: end").next());
    let bare = |code: &str| {
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let lines = lines.map(|line| line.split("   //").next().unwrap_or_default());
        lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect::<String>()
    };
    assert_eq!(printed.map(bare).collect::<Vec<_>>(), run.map(bare).collect::<Vec<_>>());
}
