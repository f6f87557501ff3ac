//! Attempts: from a delivery with a slot to the verdict on its job.

mod dispatcher;
mod executor;
mod handlers;
mod job_tasks;
mod result_keeper;

pub(crate) use self::dispatcher::Dispatcher;
pub(crate) use self::executor::Executor;
pub(crate) use self::handlers::{BoundHandler, Handlers};
