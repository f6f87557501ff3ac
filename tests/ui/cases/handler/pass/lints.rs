//! Generated code passes all lints that a crate may deny.

#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    missing_copy_implementations,
    rust_2018_idioms,
    single_use_lifetimes,
    unreachable_pub,
    unnameable_types,
    unused_qualifications,
    let_underscore_drop,
    non_camel_case_types,
    non_local_definitions
)]
#![forbid(unsafe_code)]

use streamjobs::{Entry, FromJob, Job, JobError, handler};

/// An extractor.
#[derive(Clone, Copy, Debug)]
pub struct Tenant;

impl FromJob for Tenant {
    fn from_job(_: &Job) -> Result<Self, JobError> {
        Ok(Self)
    }
}

/// A public handler.
#[handler(group = "mail", stream = "orders", concurrency = 2)]
pub async fn public(_: Entry, _: Tenant) {}

#[handler(group = "mail", stream = "orders")]
async fn private(_: Entry) {}

#[handler(group = "mail", stream = "orders")]
#[deprecated]
async fn old(_: Entry) {}

mod jobs {
    /// A public function of a private module may warn, its item may not.
    #[streamjobs::handler(group = "mail", stream = "orders")]
    #[allow(unreachable_pub)]
    pub async fn inner(_: streamjobs::Entry) {}
}

fn main() {
    #[handler(group = "mail", stream = "orders")]
    async fn local(_: Entry) {}
}
