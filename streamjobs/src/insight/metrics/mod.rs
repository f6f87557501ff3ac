//! Every metric: its name, unit and meaning, and the handles through which it is set.
//!
//! Names follow Prometheus; `docs/metrics.md` is the table for users, and a test compares the two.
//! Handles are made once for each queue and once for each stream that is published to, so that a job
//! neither looks a name up nor takes a lock. Label values come from names in the program's own text
//! (streams, groups, event types) and from closed lists, never from ids.
//!
//! To add a metric, add a row to the table, a field with its line in `new`, and a row to the page.

mod labels;
mod observer;
mod publish;
mod queue;
mod server;
mod service;
mod shared_slots;
mod table;
mod words;

pub(crate) use self::labels::Durations;
pub(crate) use self::observer::ObserverMetrics;
pub(crate) use self::publish::PublishMetrics;
pub(crate) use self::queue::{QueueMetrics, Running};
pub(crate) use self::service::ServiceMetrics;
pub(crate) use self::shared_slots::SharedSlotsMetrics;
pub(crate) use self::table::describe;
pub(crate) use self::words::{ClaimReason, DuplicateStage, Failure, Finish, Sending};
