//! Several jobs of one handler in one run.

mod items;
mod member;
mod resource;
mod steps;

pub use self::items::{Batch, BatchItem, BatchRun};
pub use self::resource::{BatchBegun, BatchResource};
pub use self::steps::{
    BatchInput, FromBatch, batch_begin, batch_extract, batch_input, batch_run, batch_settle,
    run_in_batch,
};
