//! Deleting old rows.

mod bounds;
mod keep;
mod pruner;

pub use self::keep::Keep;
pub use self::pruner::{Pruned, Pruner};
