//! The domain, without I/O: names, entries, events, outcomes, settings, and the decisions that follow
//! from them. Time and randomness are arguments.

pub mod config;
pub mod error;

pub(crate) mod access;
pub(crate) mod attempts;
pub(crate) mod backoff;
pub(crate) mod block;
pub(crate) mod cause;
pub(crate) mod constant;
pub(crate) mod debounce;
pub(crate) mod done;
pub(crate) mod entry;
pub(crate) mod event;
pub(crate) mod fail_point;
pub(crate) mod fingerprint;
pub(crate) mod header;
pub(crate) mod heartbeat;
pub(crate) mod limit;
pub(crate) mod name;
pub(crate) mod outcome;
pub(crate) mod packed_fields;
pub(crate) mod partition;
pub(crate) mod policy;
pub(crate) mod preview;
pub(crate) mod progress;
pub(crate) mod rate;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod result_ext;
pub(crate) mod run_failure;
pub(crate) mod schedule;

pub(crate) mod slot;
pub(crate) mod stream_keys;
pub(crate) mod trace;
pub(crate) mod trend;
pub(crate) mod unique;
pub(crate) mod version;
