//! The embedded runtime: its builder, the handle that the application keeps, and its control.
//!
//! Its folders, lowest first: `state`, `observe`, then `intake`, `attempt`, `settle` and `upkeep`,
//! then `consumer`, then the modules that users call. A folder imports only from folders before it;
//! `intake`, `attempt`, `settle` and `upkeep` do not import from each other.

mod attempt;
mod builder;
mod consumer;
mod control;
mod intake;
mod observe;
mod running;
mod settle;
mod state;
mod upkeep;

pub use self::builder::RuntimeBuilder;
pub use self::consumer::{
    Abandoned, GroupPlan, HandlerPlan, Plan, PlannedSetting, SettingOrigin, ShutdownReport,
};
pub use self::control::{Consumer, Control};
pub use self::observe::{Alerts, Counters, Health, Observation, Observed, QueueHealth};
pub use self::running::Runtime;
pub use crate::insight::alert::Alert;
