//! When the next occurrence is: cron expressions, time zones and intervals of
//! [streamjobs](https://docs.rs/streamjobs).
//!
//! Nothing here reads a clock, does I/O or waits: times are arguments, in milliseconds since 1970. The
//! data of the zones is compiled in.
//!
//! ```
//! use streamjobs_cron::{Cron, Zone};
//!
//! let (cron, zone) = (Cron::parse("30 2 * * *")?, Zone::parse("Europe/Berlin")?);
//! // On 29 March 2026, the clock goes from 02:00 to 03:00. What is due in between occurs at 03:00.
//! let midnight = 1_774_738_800_000;
//! assert_eq!(cron.next_after(&zone, midnight)?, Some(1_774_746_000_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calendar;
mod cron;
mod error;
mod every;
mod expression;
mod field;
mod next;
mod words;
mod zone;

pub use self::cron::Cron;
pub use self::error::{CheckError, CronError, EveryError, NextError, ZoneError};
pub use self::every::Every;
pub use self::zone::Zone;
