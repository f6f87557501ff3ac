//! Appending entries, one command each, many in one round trip.

use std::error::Error;

use redis::{Cmd, Pipeline, Value};

use super::connection::Link;
use super::error::refused;
use super::reply;
use crate::config::Retention;
use crate::entry::EntryId;
use crate::error::chain;
use crate::name::StreamName;
use crate::store::{NewEntry, StoreError};

type Appended = Result<EntryId, StoreError>;

/// Appends entries in order: one answer for each.
pub(super) async fn append(
    link: &Link,
    stream: &StreamName,
    retention: Retention,
    entries: &[NewEntry],
) -> Vec<Appended> {
    if let [entry] = entries {
        let answer = link.command(&command(stream, retention, entry)).await;
        return vec![answer.and_then(|value| reply::id(value, XADD))];
    }
    let mut answers = Vec::with_capacity(entries.len());
    let mut rest = entries;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(chunk_length(rest));
        let mut pipeline = Pipeline::with_capacity(chunk.len());
        for entry in chunk {
            pipeline.add_command(command(stream, retention, entry));
        }
        match link.pipeline(&pipeline).await {
            Ok(values) => answers.extend(values.into_iter().map(appended)),
            Err(error) => {
                fail(&mut answers, &error, chunk.len(), later.len());
                return answers;
            }
        }
        rest = later;
    }
    answers
}

/// The connection broke at a chunk: what is later has not been sent, and is not sent any more, so
/// that entries keep their order.
fn fail(answers: &mut Vec<Appended>, error: &StoreError, chunk: usize, later: usize) {
    let cause = || chain(error.source().unwrap_or(error)).into();
    let unsent = || Err(StoreError::Unreachable(cause()));
    let lost = || Err(StoreError::AnswerLost(cause()));
    let sent = error.is_unconfirmed();
    answers.extend((0..chunk).map(|_| if sent { lost() } else { unsent() }));
    answers.extend((0..later).map(|_| unsent()));
}

fn appended(value: Value) -> Appended {
    match value {
        Value::ServerError(error) => Err(refused(&error)),
        value => reply::id(value, XADD),
    }
}

fn command(stream: &StreamName, retention: Retention, entry: &NewEntry) -> Cmd {
    let mut command =
        Cmd::with_capacity(entry.len() * 2 + 6, bytes_of(entry) + stream.as_str().len() + 32);
    command.arg(XADD).arg(stream.as_str());
    match retention {
        Retention::MaxLen(entries) => command.arg("MAXLEN").arg("~").arg(entries.get()),
        Retention::MaxLenExact(entries) => command.arg("MAXLEN").arg("=").arg(entries.get()),
        Retention::History(_) | Retention::MaxAge(_) | Retention::Unlimited => &mut command,
    };
    command.arg("*");
    for (name, value) in entry {
        command.arg(name.as_ref()).arg(value.as_ref());
    }
    command
}

/// How many of the entries go in one round trip: at least one.
fn chunk_length(entries: &[NewEntry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&NewEntry| {
        bytes += bytes_of(entry);
        bytes <= CHUNK_BYTES_MAX
    };
    entries.iter().take(CHUNK_ENTRIES_MAX).take_while(fits).count().max(1)
}

fn bytes_of(entry: &NewEntry) -> usize {
    entry.iter().map(|(name, value)| name.len() + value.len()).sum()
}

const XADD: &str = "XADD";
const CHUNK_ENTRIES_MAX: usize = 1000;
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use bytes::Bytes;

    use super::*;

    fn entry(bytes: usize) -> NewEntry {
        vec![(Bytes::new(), vec![0; bytes].into())]
    }

    #[test]
    fn a_round_trip_carries_a_thousand_entries_or_a_mebibyte() {
        assert_eq!(chunk_length(&vec![entry(1); 2500]), 1000);
        assert_eq!(chunk_length(&vec![entry(CHUNK_BYTES_MAX / 4); 9]), 4);
        assert_eq!(chunk_length(&[entry(CHUNK_BYTES_MAX * 2), entry(1)]), 1);
        assert_eq!(chunk_length(&[entry(1), entry(CHUNK_BYTES_MAX)]), 1);
    }

    #[test]
    fn only_retention_that_belongs_to_appending_is_sent() {
        let stream = StreamName::new("orders").unwrap();
        let max = NonZeroU64::new(7).unwrap();
        let packed = |retention| {
            let command = command(&stream, retention, &entry(1)).get_packed_command();
            String::from_utf8(command).unwrap()
        };
        assert!(packed(Retention::MaxLen(max)).contains("MAXLEN\r\n$1\r\n~\r\n$1\r\n7\r\n$1\r\n*"));
        assert!(
            packed(Retention::MaxLenExact(max)).contains("MAXLEN\r\n$1\r\n=\r\n$1\r\n7\r\n$1\r\n*")
        );
        assert!(!packed(Retention::History(max)).contains("MAX"));
    }

    #[test]
    fn a_lost_answer_leaves_its_chunk_open_and_the_later_ones_unsent() {
        let mut answers = vec![Ok(EntryId::new(1, 0))];
        fail(&mut answers, &StoreError::AnswerLost("cut".into()), 2, 1);
        let open =
            answers.iter().map(|answer| answer.as_ref().err().map(StoreError::is_unconfirmed));
        assert_eq!(open.collect::<Vec<_>>(), [None, Some(true), Some(true), Some(false)]);
        let mut answers = Vec::new();
        fail(&mut answers, &StoreError::Unreachable("down".into()), 1, 1);
        assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unreachable(_)))));
    }
}
