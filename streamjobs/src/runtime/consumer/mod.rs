//! Consumers: how they are planned, wired, started and stopped; services beside them.

mod bind;
mod consumer_set;
mod io_thread;
mod plan;
mod plan_view;
mod prepare;
mod queue_handle;
mod queue_loops;
mod queue_wiring;
mod running_consumer;
mod schedules;
mod services;
mod shutdown_report;
mod stop;
mod wiring;

use self::bind::{bind, merged};
pub(crate) use self::consumer_set::ConsumerSet;
pub(crate) use self::io_thread::IoThread;
pub(crate) use self::plan::{PlannedQueue, RuntimeSpec, plan};
pub use self::plan_view::{GroupPlan, HandlerPlan, Plan, PlannedSetting, SettingOrigin};
pub(crate) use self::prepare::{PreparedQueue, Unprepared, prepare};
pub(crate) use self::queue_handle::QueueHandle;
pub(crate) use self::queue_loops::{LoopSupervisor, QueueLoops, StopTokens, Tasks, TokioHandles};
pub(crate) use self::running_consumer::{NewConsumer, RunningConsumer};
pub(crate) use self::schedules::schedules;
pub(crate) use self::services::Services;
pub use self::shutdown_report::{Abandoned, ShutdownReport};
pub(crate) use self::wiring::{Hooks, SlotPools, Wiring};
