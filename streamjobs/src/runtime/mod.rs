//! The embedded runtime: its builder, the handle that the application keeps, and its control.
//!
//! Its rooms, lowest first; a room imports only from those before it, and intake, attempt, settle
//! and upkeep not from each other: `state`, `observe`, then `intake`, `attempt`, `settle` and
//! `upkeep`, then `consumer`, then what users call.

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
