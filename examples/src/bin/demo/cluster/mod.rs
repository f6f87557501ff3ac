//! The demo of a cluster: one stream over many nodes, which die, move and join under load.

mod api;
mod app;
mod book;
mod ledger;
mod levers;
mod load;
mod orders;
mod story;
mod view;

pub(crate) use self::api::serve;
pub(crate) use self::story::tell;
