//! Observation: what happened, as counters, metrics, alerts and log lines; health; timed steps.

mod alert_subscribers;
mod events;
mod group_watch;
mod health;
mod limit_places;
mod log;
mod metrics;
mod observation;
mod observers;
mod outage;
mod queue_context;
mod queue_monitor;
mod report;
mod steps;
mod tally;

pub use self::alert_subscribers::Alerts;
pub(crate) use self::alert_subscribers::{AlertHook, AlertSubscribers};
pub(crate) use self::events::{FailedAttempt, JobEvent, QueueEvent, ScheduleEvent};
pub(crate) use self::group_watch::{GroupWatch, Watched};
pub(crate) use self::health::HealthProbe;
pub use self::health::{Health, QueueHealth};
pub(crate) use self::limit_places::LimitPlaces;
pub(crate) use self::observation::Subject;
pub use self::observation::{Observation, Observed};
pub(crate) use self::observers::{ObserverHook, Observers, ToldOnceDone};
pub(crate) use self::outage::{Outage, OutageLine};
pub(crate) use self::queue_context::QueueContext;
pub(crate) use self::queue_monitor::QueueMonitor;
pub(crate) use self::report::Report;
pub use self::tally::Counters;
pub(crate) use self::tally::{Count, Tally, count_of_job, count_of_queue, wide};
