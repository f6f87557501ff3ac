//! What is done while the job of the last occurrence has not ended.

use crate::model::name::{GroupName, NameError};

/// What becomes of an occurrence that is due while the job of the last one has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlap {
    /// It is published.
    #[default]
    Allow,
    /// It is skipped and counted while this group's job of the last published occurrence has not ended, that is, while
    /// the job waits to be read, runs, or waits for a retry or for its place in a limit.
    ///
    /// A job has ended when it is done or a dead letter, for whatever reason; when its entry was trimmed from the
    /// stream; and when the group does not exist. Of several occurrences that are due at once, the first is
    /// published.
    Skip {
        /// The group.
        group: GroupName,
    },
}

impl Overlap {
    /// Skips occurrences while this group's job of the last one has not ended.
    ///
    /// # Errors
    ///
    /// When the name of the group is invalid.
    pub fn skip(group: &str) -> Result<Self, NameError> {
        Ok(Self::Skip { group: GroupName::new(group)? })
    }

    /// The group whose unfinished job suppresses other occurrences.
    #[must_use]
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Allow => None,
            Self::Skip { group } => Some(group),
        }
    }
}
