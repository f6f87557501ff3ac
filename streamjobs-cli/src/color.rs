//! Colours of the text output.

use std::io::IsTerminal;

use clap::ValueEnum;
use streamjobs::doctor::Severity;

/// When text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// If the output is a terminal and the variable NO_COLOR is not set.
    #[default]
    Auto,
    Always,
    Never,
}

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Heading,
    Good,
    Warning,
    Bad,
}

impl Color {
    /// Whether the standard output is coloured.
    pub(crate) fn is_on(self) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let is_dumb = set("TERM").is_some_and(|terminal| terminal == "dumb");
                std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && !is_dumb
            }
        }
    }
}

impl Style {
    /// The style of a cell that contains only a word for a state or a reason.
    pub(crate) fn of(cell: &str) -> Option<Self> {
        match cell.trim() {
            "alive" | "active" | "healthy" => Some(Self::Good),
            "paused" | "unknown" | "cancelled" | "expired" => Some(Self::Warning),
            "silent" | "dead" | "exhausted" | "rejected" | "undecodable" | "crashed"
            | "trimmed" | "unhandled" => Some(Self::Bad),
            _ => None,
        }
    }

    /// The text between the escape sequences that switch the style on and off.
    pub(crate) fn paint(self, text: &str) -> String {
        let sign = match self {
            Self::Heading => 1,
            Self::Good => 32,
            Self::Warning => 33,
            Self::Bad => 31,
        };
        format!("\u{1b}[{sign}m{text}\u{1b}[0m")
    }
}

impl From<Severity> for Style {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Bad,
            Severity::Warning => Self::Warning,
            Severity::Info => Self::Heading,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_have_a_style() {
        assert_eq!(Style::of("alive "), Some(Style::Good));
        assert_eq!(["dead letter", "", "12"].map(Style::of), [None; 3]);
        assert_eq!(Style::Bad.paint("dead"), "\u{1b}[31mdead\u{1b}[0m");
    }
}
