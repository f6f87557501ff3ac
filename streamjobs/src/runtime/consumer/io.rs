//! Where the runtime's loops run: a thread of their own, which blocking handlers cannot starve.

use std::thread;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::model::error::StartError;

/// The executor of the loops.
#[derive(Debug)]
pub(crate) struct Io {
    handle: Handle,
    halt: CancellationToken,
}

impl Io {
    /// Starts a thread with an executor of its own, which lives until it is halted or dropped.
    pub(crate) fn thread() -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StartError::Thread(error.into()))?;
        let handle = runtime.handle().clone();
        let halt = CancellationToken::new();
        let halted = halt.clone();
        let body = move || runtime.block_on(halted.cancelled());
        let started = thread::Builder::new().name("streamjobs-io".to_owned()).spawn(body);
        started.map_err(|error| StartError::Thread(error.into()))?;
        Ok(Self { handle, halt })
    }

    /// Runs the loops on the caller's executor, so that tests can move its clock.
    pub(crate) fn inline() -> Self {
        Self { handle: Handle::current(), halt: CancellationToken::new() }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.halt.cancel();
    }
}
