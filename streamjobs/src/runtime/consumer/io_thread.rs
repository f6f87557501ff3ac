//! The thread of the runtime's loops, which blocking handlers cannot starve.

use std::thread;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::model::error::StartError;

/// The executor of the loops, on a thread of its own or the caller's.
#[derive(Debug)]
pub(crate) struct IoThread {
    pub(crate) handle: Handle,
    _halt: DropGuard,
}

impl IoThread {
    /// Starts a thread with an executor of its own, which runs until this value is dropped.
    pub(crate) fn start() -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StartError::Thread(error.into()))?;
        let handle = runtime.handle().clone();
        let halt = CancellationToken::new();
        let halted = halt.clone();
        let body = move || runtime.block_on(halted.cancelled());
        let started = thread::Builder::new().name("streamjobs-io".to_owned()).spawn(body);
        started.map_err(|error| StartError::Thread(error.into()))?;
        Ok(Self { handle, _halt: halt.drop_guard() })
    }

    /// Runs the loops on the caller's executor, so that tests can move its clock.
    pub(crate) fn inline() -> Self {
        Self { handle: Handle::current(), _halt: CancellationToken::new().drop_guard() }
    }
}
