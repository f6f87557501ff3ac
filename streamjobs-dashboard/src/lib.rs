#![doc = include_str!("../docs/front.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

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
mod request;
mod routes;
mod sampler;
mod snapshot;
mod state;
mod trend;
mod trends;

pub use self::access::{Access, Action, Authorizer, Denied};
pub use self::alerts::AlertLog;
pub use self::audit::Audited;
pub use self::auth::Auth;
pub use self::dashboard::{Dashboard, DashboardBuilder, router};
pub use self::payload::Shown;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
