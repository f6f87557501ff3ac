#![doc = include_str!("../docs/front.md")]

mod access;
mod actions;
mod alerts;
mod archived;
mod assets;
mod audit;
mod auth;
mod base;
mod csrf;
mod dashboard;
mod fault;
mod form;
mod format;
mod guard;
mod history;
mod layout;
mod live;
mod notice;
mod pages;
mod payload;
mod routes;
mod sampler;
mod state;
mod visit;

pub use self::access::{Access, Action, Authorizer, Denied};
pub use self::alerts::AlertLog;
pub use self::audit::Audited;
pub use self::auth::Auth;
pub use self::dashboard::{Dashboard, DashboardBuilder, router};
pub use self::payload::Shown;
