//! The guard: effects and guard rows in one transaction, of one job or of those that share a run.

mod batch;
mod guard;

pub use self::guard::Once;
