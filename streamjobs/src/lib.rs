#![doc = include_str!("../docs/front.md")]
#![cfg_attr(
    not(feature = "testing"),
    allow(
        unreachable_pub,
        reason = "with `testing`, the suites that hold both stores to their contract reach it"
    )
)]

pub mod config;
pub mod dead_letter;
pub mod doctor;
pub mod error;
pub mod once;
pub mod runtime;
pub mod service;
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;

mod alert;
mod backoff;
mod cause;
mod client;
mod diagnosis;
mod encoded;
mod entry;
mod event;
mod fail_point;
mod fingerprint;
mod handler;
mod metrics;
mod mutant;
mod name;
mod outcome;
mod policy;
mod presence;
mod record;
mod registry;
mod store;
mod trace;
mod version;
mod view;

pub use self::backoff::Backoff;
pub use self::client::{Client, ClientBuilder, Published};
pub use self::encoded::EncodedEvent;
pub use self::entry::{Entry, EntryId, EntryIdError, Fields};
pub use self::event::{DecodeError, EncodeError, Event, Payload};
pub use self::handler::{Begin, FromJob, HandlerDef, Job, JobResource, Requirements, State};
pub use self::name::{ConsumerName, EventId, GroupName, NameError, StreamName};
pub use self::outcome::{IntoOutcome, JobError, Outcome, ResultExt};
pub use self::runtime::{Runtime, RuntimeBuilder};
pub use self::trace::{TraceContext, TraceContextError};

#[doc = include_str!("../docs/event.md")]
pub use streamjobs_macros::Event;
#[doc = include_str!("../docs/handler.md")]
pub use streamjobs_macros::handler;

/// What the macros write paths to. Not part of the public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::backoff::Backoff;
    pub use crate::config::{HandlerOptions, Start, Unhandled};
    pub use crate::entry::{EntryId, Fields};
    pub use crate::event::codec::{
        decode, decode_variant, encode_fields, encode_json, encode_variant_fields,
        encode_variant_json, unexpected_type,
    };
    pub use crate::event::{DecodeError, EncodeError, Event, Payload};
    pub use crate::handler::{
        FromJob, HandlerDef, HandlerItem, JobResource, RawInput, Requirements,
    };
    pub use crate::handler::{begin, extract, input, raw_input, run, settle};
    pub use crate::outcome::{IntoOutcome, Outcome};
    #[cfg(feature = "inventory")]
    pub use crate::registry::Registered;
    pub use crate::registry::linked;
    #[cfg(feature = "inventory")]
    pub use inventory;
}

/// The store's contract, for the suites that hold both stores to it. Not part of the public API.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod __store {
    use std::sync::Arc;

    pub use crate::store::*;
    pub use crate::version::{Product, Release, Version};

    /// Reads a stored dead letter.
    #[must_use]
    pub fn letter_of(entry: &crate::Entry) -> crate::dead_letter::DeadLetter {
        crate::record::DeadLetter::of(entry)
    }

    /// What the lane will hold of an entry when its job is tried again after this error.
    #[must_use]
    pub fn retried(stream: &crate::StreamName, entry: &crate::Entry, error: &str) -> crate::Fields {
        let envelope = crate::event::Envelope::of(stream, entry);
        let entry = entry.clone();
        let delivery = Delivery { source: Source::Stream, entry, delivery_count: 1 };
        let failures = envelope.failures.saturating_add(1);
        let attempted = crate::record::Attempted {
            delivery: &delivery,
            envelope: &envelope,
            taken_up: 77,
            failures,
        };
        attempted.retry(Some(error), Some(99))
    }

    /// Reads what a consumer says about itself, as it would be written again.
    #[must_use]
    pub fn beat_of(text: &str) -> Option<String> {
        crate::presence::About::read(text).map(|about| about.write())
    }

    /// The store that a client uses.
    #[must_use]
    pub fn of(client: &crate::Client) -> Arc<dyn Store> {
        Arc::clone(client.store())
    }

    /// The store behind streams in memory, whose every call can be told to fail.
    #[must_use]
    pub fn behind(streams: &crate::testing::Streams) -> &memory::MemoryStore {
        streams.store()
    }

    /// A client of a store in memory.
    #[must_use]
    pub fn client(store: &memory::MemoryStore) -> crate::Client {
        crate::Client::in_memory(Arc::new(store.clone()))
    }
}

/// Places at which tests of this crate and of its companions break things. Not part of the public
/// API.
#[doc(hidden)]
pub mod __proof {
    pub use crate::fail_point::FailPoint;
    #[cfg(feature = "fail-points")]
    pub use crate::fail_point::on_fail_point;
    pub use crate::mutant::Mutant;
}
