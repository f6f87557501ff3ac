//! The schedule of a handler, as its attribute declares it.

use std::time::Duration;

use super::error::ScheduleError;
use super::missed::Missed;
use super::overlap::Overlap;
use super::spec::Schedule;

/// When the schedule of a handler is due. Exhaustive: adding a variant is a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredTiming {
    /// By a cron expression.
    Cron {
        /// The expression.
        expression: &'static str,
        /// The name of the time zone; UTC without one.
        zone: Option<&'static str>,
    },
    /// At the multiples of an interval since 1970, with an offset.
    Every {
        /// The time between two occurrences.
        period: Duration,
        /// How long after each multiple of the period an occurrence is.
        offset: Duration,
    },
}

/// The schedule of a handler, which publishes a [`Tick`](super::Tick) to the handler's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleDeclaration {
    /// The name of the schedule.
    pub name: &'static str,
    /// When it is due.
    pub timing: DeclaredTiming,
    /// What is done about missed occurrences.
    pub missed: Missed,
    /// While a job of this group is unfinished, no other occurrence is published; see [`Schedule::overlap`].
    pub skip_while: Option<&'static str>,
    /// The longest constant delay; see [`Schedule::jitter`].
    pub jitter: Duration,
}

impl ScheduleDeclaration {
    /// The schedule, whose events have this type.
    ///
    /// # Errors
    ///
    /// When it cannot be used; the error says why.
    pub fn schedule(&self, stream: &str, event_type: &str) -> Result<Schedule, ScheduleError> {
        let schedule = match self.timing {
            DeclaredTiming::Cron { expression, zone } => {
                let schedule = Schedule::cron(self.name, expression)?;
                match zone {
                    Some(zone) => schedule.zone(zone)?,
                    None => schedule,
                }
            }
            DeclaredTiming::Every { period, offset } => {
                Schedule::every(self.name, period)?.offset(offset)?
            }
        };
        let schedule = schedule.missed(self.missed).jitter(self.jitter).stream(stream)?;
        let schedule = match self.skip_while {
            Some(group) => schedule.overlap(Overlap::skip(group)?),
            None => schedule,
        };
        Ok(schedule.tick_type(event_type))
    }
}
