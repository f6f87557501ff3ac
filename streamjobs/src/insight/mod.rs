//! What is known of a stream and its groups: their state as it is shown, the conditions that are
//! derived from it, and the metrics that report it.

pub(crate) mod alert;
pub(crate) mod condition;
pub(crate) mod diagnosis;
pub(crate) mod limit;
pub(crate) mod line_holder;
pub(crate) mod merge;
pub(crate) mod metrics;
pub(crate) mod problem;
pub(crate) mod rate;
pub(crate) mod sample;
pub(crate) mod severity;
pub(crate) mod view;
pub(crate) mod words;

mod consumer_problems;
mod diagnosed_line;
mod phrase;
