//! When is the next occurrence: intervals of [streamjobs](https://docs.rs/streamjobs).
//!
//! Nothing here reads a clock, does I/O or waits: times are arguments, in milliseconds since 1970.

mod error;
mod every;

pub use self::error::EveryError;
pub use self::every::Every;
