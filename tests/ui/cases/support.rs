//! What the cases share: an event, an extractor and a resource, all written by hand.

#![allow(dead_code, unreachable_pub)]

use streamjobs::__private::{DecodeError, EncodeError, Fields, Payload};
use streamjobs::{Begin, Event, FromJob, Job, JobError, JobResource};

pub struct OrderPlaced {
    pub customer: String,
    pub amount: u32,
}

impl Event for OrderPlaced {
    const STREAM: &'static str = "orders";
    const TYPES: &'static [&'static str] = &["order.placed"];

    fn event_type(&self) -> &'static str {
        "order.placed"
    }

    fn encode(&self) -> Result<Fields, EncodeError> {
        Ok(Fields::new())
    }

    fn decode(_: &str, _: Payload<'_>) -> Result<Self, DecodeError> {
        Err(DecodeError::new("never read"))
    }
}

#[derive(Clone)]
pub struct Mailer(pub u32);

pub struct Tenant(pub String);

impl FromJob for Tenant {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        Ok(Self(job.group().to_string()))
    }
}

pub struct Transaction(pub u32);

impl JobResource for Transaction {
    async fn begin(_: &Job) -> Result<Begin<Self>, JobError> {
        Ok(Begin::AlreadyDone)
    }

    async fn commit(self) -> Result<(), JobError> {
        Ok(())
    }

    async fn rollback(self) {}
}
