#![doc = include_str!("../docs/front.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "with `testing`, the conformance suite of the stores uses it")
)]

pub mod runtime;

mod api;
mod handler;
mod insight;
mod model;
mod publish;
mod store;

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use self::api::testing;
pub use self::api::{dead_letter, doctor, stream, unique};
pub use self::handler::{once, service};
pub use self::model::{config, error};

pub use self::handler::batch::Batch;
pub use self::handler::{
    Begin, CancelReason, FromJob, HandlerDef, Job, JobResource, Requirements, State,
};

pub mod batch {
    #![doc = include_str!("../docs/batch.md")]

    pub use crate::handler::batch::{Batch, BatchBegun, BatchItem, BatchResource, FromBatch};
    pub use crate::model::config::BatchOptions;
}

/// Middleware: code around the run of each job. See `docs/middleware.md`.
pub mod middleware {
    pub use crate::handler::middleware::{Layer, Middleware, Next};
    pub use crate::model::run_failure::RunFailure;
}

/// Schedules, which publish again and again: declared in code or stored at run time.
pub mod schedule {
    pub use crate::api::schedules::{
        FiringInfo, ScheduleInfo, ScheduleOrigin, SchedulePage, ScheduleState, Schedules,
        SchedulesError,
    };
    pub use crate::model::name::ScheduleName;
    pub use crate::model::schedule::{
        DeclaredTiming, Missed, Overlap, Schedule, ScheduleDeclaration, ScheduleError, Tick,
    };
}

pub use self::model::backoff::Backoff;
pub use self::model::entry::{Entry, EntryId, EntryIdError, Fields};
pub use self::model::event::{DecodeError, EncodeError, Event, Payload};
pub use self::model::name::{ConsumerName, EventId, GroupName, NameError, StreamName};
pub use self::model::outcome::{IntoOutcome, JobError, Outcome};
pub use self::model::rate::{Rate, RateError};
pub use self::model::result_ext::ResultExt;
pub use self::model::trace::{TraceContext, TraceContextError};
pub use self::publish::client::{Client, ClientBuilder, Published};
pub use self::publish::encoded::EncodedEvent;
pub use self::publish::hook::{HeaderNameError, Outgoing};
pub use self::runtime::{Runtime, RuntimeBuilder};

#[doc = include_str!("../docs/event.md")]
pub use streamjobs_macros::Event;
#[doc = include_str!("../docs/handler.md")]
pub use streamjobs_macros::handler;

/// The items that generated code refers to. Not part of the public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::handler::batch::{
        BatchInput, BatchResource, BatchRun, FromBatch, batch_begin, batch_extract, batch_input,
        batch_run, batch_settle, run_in_batch,
    };
    pub use crate::handler::middleware::Layer;
    #[cfg(feature = "inventory")]
    pub use crate::handler::registry::Registered;
    pub use crate::handler::registry::linked;
    pub use crate::handler::{
        FromJob, HandlerDef, HandlerItem, IntoResult, JobResource, RawInput, Requirements,
        ScheduledInput,
    };
    pub use crate::handler::{
        begin, extract, input, raw_input, run, run_with_result, settle, tick_input,
    };
    pub use crate::model::backoff::Backoff;
    pub use crate::model::config::{BatchOptions, HandlerOptions, KeyOrder, Start, Unhandled};
    pub use crate::model::constant::{
        group_name, stream_name, tick_stream_bytes, tick_stream_length, tick_stream_text,
    };
    pub use crate::model::entry::{EntryId, Fields};
    pub use crate::model::event::codec::{
        KeyText, ReadPayload, WritePayload, decode, decode_variant, encode_fields, encode_json,
        encode_variant_fields, encode_variant_json, key_text, unexpected_type,
    };
    pub use crate::model::event::{DecodeError, EncodeError, Event, Payload, UniqueFields};
    pub use crate::model::outcome::{HandlerError, IntoOutcome, Outcome};
    pub use crate::model::rate::Rate;
    pub use crate::model::result_ext::ResultAfterOkOr;
    pub use crate::model::schedule::{DeclaredTiming, Missed, ScheduleDeclaration, Tick};
    #[cfg(feature = "inventory")]
    pub use inventory;
}

/// The store's contract, for its conformance suite. Not part of the public API.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod __store {
    use std::sync::Arc;

    pub use crate::model::version::{Product, Release, Version};
    pub use crate::store::*;

    /// Reads a stored dead letter.
    #[must_use]
    pub fn letter_of(entry: &crate::Entry) -> crate::api::dead_letter::DeadLetter {
        crate::model::record::DeadLetter::of(entry)
    }

    /// The entry that a retry of this entry puts into the lane, after this error.
    #[must_use]
    pub fn retried(stream: &crate::StreamName, entry: &crate::Entry, error: &str) -> crate::Fields {
        let envelope = crate::model::event::Envelope::of(stream, entry);
        let entry = entry.clone();
        let delivery = Delivery { inlet: Inlet::STREAM, entry, delivery_count: 1 };
        let failures = envelope.failures.saturating_add(1);
        let attempted = crate::model::record::Attempted {
            delivery: &delivery,
            envelope: &envelope,
            started_at: 77,
            failures,
            run: None,
        };
        attempted.retry(Some(error), Some(99), false)
    }

    /// Reads a heartbeat, and writes it again.
    #[must_use]
    pub fn heartbeat_of(text: &str) -> Option<String> {
        crate::model::heartbeat::Heartbeat::read(text).map(|heartbeat| heartbeat.write())
    }

    /// The store of a client.
    #[must_use]
    pub fn of(client: &crate::Client) -> Arc<dyn Store> {
        Arc::clone(client.store())
    }

    /// The store of streams in memory, whose calls can be made to fail.
    #[must_use]
    pub fn behind(streams: &crate::api::testing::Streams) -> &memory::MemoryStore {
        streams.store()
    }

    /// A client of an in-memory store.
    #[must_use]
    pub fn client(store: &memory::MemoryStore) -> crate::Client {
        crate::Client::in_memory(Arc::new(store.clone()))
    }

    /// The same with a builder's settings. The number of partitions is not stored.
    ///
    /// # Errors
    ///
    /// When a setting is invalid.
    pub fn client_with(
        store: &memory::MemoryStore,
        builder: crate::ClientBuilder,
    ) -> Result<crate::Client, crate::error::ConnectError> {
        builder.with_store(Arc::new(store.clone()), true)
    }
}

/// Fail points for the tests of this crate and its companions. Not part of the public
/// API.
#[doc(hidden)]
pub mod __proof {
    pub use crate::model::fail_point::FailPoint;
    #[cfg(feature = "fail-points")]
    pub use crate::model::fail_point::on_fail_point;
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
