//! Schedules: when one is due, what it publishes, and what is done about missed occurrences. Pure.

mod declaration;
mod error;
mod missed;
mod overlap;
mod spec;
mod tick;
mod trigger;
mod walk;

#[cfg(test)]
mod tests;

pub use self::declaration::{DeclaredTiming, ScheduleDeclaration};
pub use self::error::ScheduleError;
pub use self::missed::Missed;
pub use self::overlap::Overlap;
pub use self::spec::Schedule;
pub(crate) use self::spec::StoredContent;
pub use self::tick::Tick;
pub(crate) use self::walk::{FirePlan, Walk};
