//! Why a private server is not available.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

/// Why a private server could not be started. Each error says what to do about it, if that is
/// known.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The environment names a path that is not a server program.
    #[error("{variable} is {path:?}, which is not a {wanted}")]
    NotAProgram {
        /// The variable of the environment.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
        /// What it should name.
        wanted: &'static str,
    },

    /// There is no server program, and no package manager that this crate can use.
    #[error("no {program} was found: {advice}")]
    NotFound {
        /// What was looked for.
        program: &'static str,
        /// What to do about it.
        advice: &'static str,
    },

    /// The package manager did not install a server.
    #[error("no {program} was found and `{command}` failed: {advice}\n{output}")]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
        /// What to do about it.
        advice: &'static str,
        /// What was run.
        command: String,
        /// The end of its output.
        output: String,
    },

    /// The files that the server needs on disk could not be prepared.
    #[error("could not prepare the server's data; what was printed:\n{output}")]
    NotPrepared {
        /// The end of the programs' output.
        output: String,
    },

    /// The server ended instead of answering.
    #[error("the server ended at its start; its log:\n{log}")]
    Ended {
        /// Everything it logged.
        log: String,
    },

    /// The server runs but does not answer.
    #[error("the server did not answer in time; its log:\n{log}")]
    Silent {
        /// Everything it logged.
        log: String,
    },

    /// Every port that was tried was free, and then taken before the server could bind it.
    #[error("the server found every port taken")]
    NoPort,

    /// The server's folder, shell or lock could not be created.
    #[error("could not set up a private server")]
    Setup(#[source] Arc<io::Error>),
}

impl fmt::Debug for ServerError {
    /// Prints what `Display` prints, and the cause: a test's `unwrap` shows this form, and with the
    /// fields alone it would not show the advice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::Setup(Arc::new(error))
    }
}
