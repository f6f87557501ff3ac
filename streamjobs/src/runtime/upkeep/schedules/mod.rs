//! Schedules: which of them this process declares and may fire, and the loop that fires what is due.

mod declarer;
mod firer;
mod known;
mod planned;

pub(crate) use self::declarer::Declarations;
pub(crate) use self::firer::Firer;
