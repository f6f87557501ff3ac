//! The severity of a finding.

use crate::insight::words::words;

words! {
    /// How severe a finding of the doctor, or a [`Problem`](crate::stream::Problem) of a group, is.
    /// Exhaustive: adding a variant is a breaking change.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Severity {
        /// Worth knowing; jobs are safe.
        Info = "info",
        /// Jobs can be lost, delayed or repeated in a situation that will occur at some time.
        Warning = "warning",
        /// Jobs are lost, refused or not handled, now or at the next restart.
        Critical = "critical",
    }
}
