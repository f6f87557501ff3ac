//! Upkeep: loops that run at intervals: due retries, heartbeats, retention, alerts.

mod cancel_watch;
mod done_writer;
mod heartbeat_sender;
mod pause_switch;
mod progress_writer;
mod promoter;
mod recent_counts;
mod scheduler;
mod schedules;
mod trend_writer;
mod trimmer;
mod watcher;

pub(crate) use self::cancel_watch::CancelWatch;
pub(crate) use self::done_writer::DoneWriter;
pub(crate) use self::heartbeat_sender::{HeartbeatSender, heartbeat_interval};
pub(crate) use self::pause_switch::PauseSwitch;
pub(crate) use self::progress_writer::ProgressWriter;
pub(crate) use self::promoter::{Follows, Promoter};
pub(crate) use self::scheduler::{Scheduler, WaitingCounts};
pub(crate) use self::schedules::{Declarations, Firer};
pub(crate) use self::trend_writer::TrendWriter;
pub(crate) use self::trimmer::Trimmer;
pub(crate) use self::watcher::Watcher;
