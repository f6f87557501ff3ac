//! What reads the server's answers and a user's addresses, for the tests that feed them nonsense.

use redis::Value;

use super::address::Address;
use super::{facts, held, inspect, letters, reply};
use crate::entry::{Entry, Source};
use crate::error::ConnectError;
use crate::store::StoreError;
use crate::store::facts::ServerState;

/// Reads an address, and shows it.
///
/// # Errors
///
/// When it is none.
pub fn address(url: &str) -> Result<String, ConnectError> {
    Address::new(url).map(|address| format!("{address} {address:?}"))
}

/// Reads an answer to `INFO`.
#[must_use]
pub fn info(text: &str) -> ServerState {
    facts::state_in(text)
}

/// Reads an answer as a range of entries.
///
/// # Errors
///
/// When it is none.
pub fn entries(wire: &[u8]) -> Result<Vec<Entry>, StoreError> {
    reply::entries(value(wire)?, PROBE)
}

/// Reads an answer in every way in which this crate reads answers: what each of them says.
///
/// # Errors
///
/// When it is no answer of a server at all.
pub fn every_way(wire: &[u8]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let value = value(wire)?;
    let copy = || value.clone();
    Ok(vec![
        reply::entries(copy(), PROBE).map(drop),
        reply::read(copy(), Source::Stream, PROBE).map(drop),
        reply::deliveries(copy(), Source::Lane, PROBE).map(drop),
        reply::fields(copy(), PROBE).map(drop),
        reply::table(copy(), PROBE).map(drop),
        reply::ids(copy(), PROBE).map(drop),
        reply::number(copy(), PROBE).map(drop),
        reply::size(&value, PROBE).map(drop),
        reply::lossy(copy(), PROBE).map(drop),
        inspect::set_aside_job(copy(), PROBE).map(drop),
        held::checked(copy(), PROBE).map(drop),
        held::hold(Source::Stream, copy()).map(drop),
        letters::returned(copy()).map(drop),
    ])
}

fn value(wire: &[u8]) -> Result<Value, StoreError> {
    redis::parse_redis_value(wire).map_err(|_| StoreError::Protocol { command: PROBE })
}

const PROBE: &str = "PROBE";
