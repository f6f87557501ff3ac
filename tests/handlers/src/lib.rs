//! Handlers in a second crate, which are found only when a program refers to this crate.

use jobs::__private::{DecodeError, EncodeError, Fields, Payload};
use jobs::{Entry, Event, Job, handler};

/// An event, written by hand.
#[derive(Clone, Copy, Debug)]
pub struct Shipped;

impl Event for Shipped {
    const STREAM: &'static str = "parcels";
    const TYPES: &'static [&'static str] = &["parcel.shipped"];

    fn event_type(&self) -> &'static str {
        "parcel.shipped"
    }

    fn encode(&self) -> Result<Fields, EncodeError> {
        Ok(Fields::new())
    }

    fn decode(_: &str, _: Payload<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

/// Takes the event.
#[handler(crate = jobs, group = "tracking", timeout = "30s")]
pub async fn track(_: Shipped, _: Job) {}

mod audit {
    use super::*;

    #[handler(crate = jobs, group = "audit", stream = "parcels")]
    async fn note(_: Entry) {}

    #[handler(crate = jobs, group = "audit", cron = "@daily", missed = "all", jitter = "1m")]
    async fn sweep(_: jobs::schedule::Tick) {}
}
