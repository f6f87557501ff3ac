//! A handler that `cfg` removes leaves nothing behind.

#![allow(clippy::non_minimal_cfg, reason = "conditions of any form")]

use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
#[cfg(any())]
async fn below(_: Entry, _: NoSuchType) {}

#[cfg(any())]
#[handler(group = "mail", stream = "orders")]
async fn above(_: Entry, _: NoSuchType) {}

#[handler(group = "mail", stream = "orders")]
#[cfg(all())]
#[cfg(not(any()))]
async fn kept(_: Entry) {}

// The names are free.
#[allow(dead_code, non_camel_case_types)]
struct below;
#[allow(dead_code, non_camel_case_types)]
struct above;

fn main() {
    let listed = streamjobs::handlers![kept];
    assert_eq!(listed.len(), streamjobs::__private::linked().len());
}
