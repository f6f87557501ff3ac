//! Handlers: their description, their arguments and resources, and the steps of one attempt.

pub(crate) mod batch;
mod batch_board;
pub mod once;
pub mod service;

mod extract;
mod job;
mod lease;
pub(crate) mod middleware;
mod needs;
mod progress;
pub(crate) mod registry;
mod resource;
mod returned;
mod run;

#[cfg(feature = "testing")]
pub(crate) use self::batch_board::BatchBoard;
pub(crate) use self::batch_board::{Members, RunStage};
pub use self::extract::{FromJob, State};
#[cfg(feature = "testing")]
pub(crate) use self::job::MachineClock;
pub use self::job::{CancelReason, Job};
pub(crate) use self::job::{ConsumerIdentity, JobClock, JobParts};
pub(crate) use self::lease::Lease;
pub use self::needs::Requirements;
pub(crate) use self::needs::States;
pub(crate) use self::progress::ProgressBoard;
pub use self::resource::{Begin, JobResource};
pub use self::returned::IntoResult;
pub(crate) use self::returned::Returned;
pub use self::run::{
    RawInput, ScheduledInput, begin, extract, input, raw_input, run, run_with_result, settle,
    tick_input,
};
use crate::model::outcome::Outcome;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use self::middleware::Layer;
use crate::model::config::{BatchOptions, HandlerOptions};
use crate::model::schedule::ScheduleDeclaration;

/// The description of one `#[handler]`, which the runtime reads when it is built.
#[derive(Clone, Copy)]
pub struct HandlerDef {
    /// The function's name.
    pub name: &'static str,
    /// The function's module.
    pub module: &'static str,
    /// The function's file.
    pub file: &'static str,
    /// The line of the attribute.
    pub line: u32,
    /// The group whose jobs the function handles.
    pub group: &'static str,
    /// The stream the group reads.
    pub stream: &'static str,
    /// The event types that the function takes; `None` means any that no other handler takes.
    pub types: Option<&'static [&'static str]>,
    /// The other options of the attribute.
    pub options: HandlerOptions,
    /// The schedule that publishes to the handler's stream, with the first of its types.
    pub schedule: Option<ScheduleDeclaration>,
    /// How many jobs share a run, if the function takes several.
    pub batch: Option<BatchOptions>,
    /// How long the function's result is kept, if it is kept.
    pub result: Option<Duration>,
    /// The middleware of the handler alone.
    pub wrap: Option<fn() -> Layer>,
    /// Adds what the function's arguments need from the runtime.
    pub require: fn(&mut Requirements),
    /// Runs the function for one job.
    pub run: fn(Job) -> BoxFuture<'static, Outcome>,
}

/// Holds a handler's description; implemented by the item that `#[handler]` adds.
pub trait HandlerItem {
    /// The description.
    const HANDLER: HandlerDef;
}

impl HandlerDef {
    /// The handler's place in the source: function, file and line.
    #[must_use]
    pub fn location(&self) -> String {
        format!("{}::{} ({}:{})", self.module, self.name, self.file, self.line)
    }
}

impl fmt::Debug for HandlerDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerDef")
            .field("handler", &self.location())
            .field("group", &self.group)
            .field("stream", &self.stream)
            .field("types", &self.types)
            .field("options", &self.options)
            .field("schedule", &self.schedule)
            .field("batch", &self.batch)
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}
