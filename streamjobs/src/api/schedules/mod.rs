//! Schedules of a stream: storing them at run time, and operating on all of them.

mod error;
mod handle;
mod view;

pub use self::error::SchedulesError;
pub use self::handle::Schedules;
pub use self::view::{FiringInfo, ScheduleInfo, ScheduleOrigin, SchedulePage, ScheduleState};
