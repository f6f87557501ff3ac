//! The decoders of answers and addresses, for tests that feed them invalid input.

use redis::Value;

use super::net::scan::{self, FrameScanner};
use super::net::{Capabilities, Info, Nodes, accepted};
use super::{consume, dead_letters, inspect, packed, reply, server_info};
use crate::model::config::ConnectionOptions;
use crate::model::entry::{Delivery, Entry, Inlet};
use crate::model::error::ConnectError;
use crate::store::StoreError;
use crate::store::server_info::ServerState;

/// Parses an address, and returns how it is shown.
///
/// # Errors
///
/// When the address is invalid.
pub fn address(url: &str) -> Result<String, ConnectError> {
    Nodes::new(url, ConnectionOptions::default(), &[])
        .map(|address| format!("{address} {address:?}"))
}

/// Reads an answer to `INFO`.
#[must_use]
pub fn info(text: &str) -> ServerState {
    let info = Info::new(text);
    server_info::state_of(&Capabilities::from_info(&info), &info)
}

/// Reads an answer as a range of entries.
///
/// # Errors
///
/// When the answer is not a range of entries.
pub fn entries(wire: &[u8]) -> Result<Vec<Entry>, StoreError> {
    reply::entries(value(wire)?, PROBE)
}

/// Decodes an answer with every decoder of this crate. Returns the result of each.
///
/// # Errors
///
/// When it is not a server's answer.
pub fn every_way(wire: &[u8]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let value = value(wire)?;
    let copy = || value.clone();
    Ok(vec![
        reply::entries(copy(), PROBE).map(drop),
        reply::read(copy(), Inlet::STREAM, PROBE).map(drop),
        packed::deliveries(copy(), Inlet::LANE, PROBE).map(drop),
        reply::fields(copy(), PROBE).map(drop),
        reply::table(copy(), PROBE).map(drop),
        reply::ids(copy(), PROBE).map(drop),
        reply::number(copy(), PROBE).map(drop),
        reply::size(&value, PROBE).map(drop),
        reply::lossy(copy(), PROBE).map(drop),
        inspect::retry_facts(copy(), PROBE).map(drop),
        consume::fence_result(copy(), PROBE).map(drop),
        consume::hold(Inlet::STREAM, copy()).map(drop),
        dead_letters::redriven(accepted(copy())).map(drop),
    ])
}

/// Scans an answer to a read, as a whole and in pieces, and compares the results with the client crate's
/// decoder. Returns how many entries were read.
///
/// # Errors
///
/// When the results differ; the text says in what.
pub fn scanned(wire: &[u8]) -> Result<Option<usize>, &'static str> {
    let end = FrameScanner::new().end(wire);
    let (mut scanner, step) = (FrameScanner::new(), wire.len() / PIECES_MAX + 1);
    let lengths = (0..wire.len()).step_by(step).chain([wire.len()]);
    let mut in_pieces = lengths.map(|length| scanner.end(wire.get(..length).unwrap_or_default()));
    if in_pieces.find(|end| *end != Ok(None)).unwrap_or(Ok(None)) != end {
        return Err("in pieces it ends elsewhere");
    }
    let Ok(Some(end)) = end else { return Ok(None) };
    let answer = wire.get(..end).unwrap_or_default();
    let Ok(scanned) = scan::deliveries(answer, Inlet::STREAM) else { return Ok(None) };
    let read = reply::read(value(answer).map_err(|_| "it is no answer")?, Inlet::STREAM, PROBE);
    let read = read.map_err(|_| "the entries cannot be read otherwise")?;
    let parts = |deliveries: &[Delivery]| {
        let part = |one: &Delivery| (one.hold(), one.entry.fields().to_vec());
        deliveries.iter().map(part).collect::<Vec<_>>()
    };
    if parts(&scanned) == parts(&read) { Ok(Some(read.len())) } else { Err("the entries differ") }
}

fn value(wire: &[u8]) -> Result<Value, StoreError> {
    redis::parse_redis_value(wire).map_err(|_| StoreError::Protocol { command: PROBE })
}

const PROBE: &str = "PROBE";
const PIECES_MAX: usize = 64;
