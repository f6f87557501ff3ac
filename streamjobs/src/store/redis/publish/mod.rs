//! Appending entries: one command each, many in one round trip.

mod append;

use std::collections::VecDeque;
use std::error::Error;
use std::future::{poll_fn, ready};
use std::pin::pin;
use std::slice;
use std::task::Poll;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::Value;

use self::append::{Appends, XADD, bytes_of};
use super::net::{AppendAnswers, NodeAddress, Pinned, Place, Redirect, Request, Route, accepted};
use super::script::scripts;
use super::{RedisStore, reply};
use crate::model::cause::chain;
use crate::model::config::Retention;
use crate::model::name::StreamName;
use crate::store::types::Result;
use crate::store::{Appended, Appender, NewEntry, Publish, StoreError};

scripts! {
    PARTITIONS = "partitions";
}

#[async_trait]
impl Publish for RedisStore {
    async fn partitions(&self, stream: &StreamName, wanted: u16) -> Result<u16> {
        let value = self.run(&PARTITIONS, &[&stream.partitions_key()], wanted).await?;
        let count = reply::number(value, PARTITIONS.name)?;
        u16::try_from(count).map_err(|_| StoreError::Protocol { command: PARTITIONS.name })
    }

    fn appender(&self, stream: &StreamName, retention: Retention) -> Box<dyn Appender> {
        Box::new(RedisAppender::new(self.at(stream.as_str()), stream.clone(), retention))
    }

    /// Sends a command of its own for each caller, without a batch, whose order a single entry does not
    /// need.
    async fn append_one(
        &self,
        stream: &StreamName,
        retention: Retention,
        entry: NewEntry,
    ) -> Appended {
        let append = Appends { stream, retention, entries: slice::from_ref(&entry) };
        let (bytes, route) = (append.bytes(), || self.at(stream.as_str()));
        let (connection, place) = match self.nodes.place_now(bytes) {
            Some(placed) => placed,
            // Boxed: it would take more memory than all of the rest.
            None => async { route().pinned_with_place(bytes).await }.boxed().await?,
        };
        let node = connection.endpoint().node();
        let appending = pin!(connection.append(place, &append));
        let answers = appending.await.inspect_err(|_| route().suspect())?;
        let answer = match answers {
            AppendAnswers::Ids(ids) => {
                return ids.first().copied().ok_or(StoreError::Protocol { command: XADD });
            }
            AppendAnswers::Values(values) => match Redirect::among(&values) {
                Some(_) => route().rest(&append.pipeline(), values, node).await.pop(),
                None => values.into_iter().map(accepted).next(),
            },
        };
        appended(answer.unwrap_or(Err(StoreError::Protocol { command: XADD })))
    }
}

/// Appends to one stream; a few chunks of entries are sent before their answers arrive.
struct RedisAppender {
    route: Route,
    stream: StreamName,
    retention: Retention,
    /// The connection for the chunks that are sent now. It is replaced only after the stream has moved.
    connection: Option<Pinned>,
    outstanding: VecDeque<Chunk>,
    answers: Vec<Appended>,
    /// Why the connection broke; nothing is sent afterwards.
    broken: Option<Broken>,
}

/// Why nothing is sent any more.
#[derive(Clone)]
struct Broken {
    cause: String,
    /// Whether the only reason is that there was no place in time; the connection may still work.
    no_place: bool,
}

impl Broken {
    fn new(error: &StoreError) -> Self {
        Self { cause: cause(error), no_place: matches!(error, StoreError::NotSent(_)) }
    }

    /// The error of an entry that is not sent.
    fn unsent(&self) -> StoreError {
        match self.no_place {
            true => StoreError::NotSent(self.cause.as_str().into()),
            false => broken(&self.cause, false),
        }
    }
}

/// Entries that were sent in one go.
struct Chunk {
    count: usize,
    /// The entries, and the answers to them.
    answer: BoxFuture<'static, (Vec<NewEntry>, Result<AppendAnswers>)>,
    /// The node to which they were sent, in a cluster.
    node: Option<NodeAddress>,
}

impl RedisAppender {
    fn new(route: Route, stream: StreamName, retention: Retention) -> Self {
        Self {
            route,
            stream,
            retention,
            connection: None,
            outstanding: VecDeque::new(),
            answers: Vec::new(),
            broken: None,
        }
    }

    async fn send(&mut self, entries: Vec<NewEntry>) {
        if self.outstanding.len() >= CHUNKS_MAX {
            self.take_answer().await;
        }
        let count = entries.len();
        let bytes = entries.iter().map(bytes_of).sum();
        let (connection, place) = match self.place(bytes).await {
            Ok(placed) => placed,
            Err(error) => return self.fail(&error, count).await,
        };
        let node = connection.endpoint().node();
        let (stream, retention) = (self.stream.clone(), self.retention);
        let mut answer = async move {
            let appends = Appends { stream: &stream, retention, entries: &entries };
            let answer = connection.append(place, &appends).await;
            (entries, answer)
        }
        .boxed();
        // The first poll sends the request.
        let polled = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        if let Poll::Ready(answered) = polled {
            answer = ready(answered).boxed();
        }
        self.outstanding.push_back(Chunk { count, answer, node });
    }

    /// The connection of all chunks, with a place for the next one. While it has to wait, it takes the
    /// answers to the earlier chunks, which occupy places themselves.
    async fn place(&mut self, bytes: usize) -> Result<(Pinned, Place)> {
        loop {
            let connection = match (&self.broken, &self.connection) {
                (Some(broken), _) => return Err(broken.unsent()),
                (None, Some(connection)) => connection.clone(),
                // Entries of the earlier chunks that the former node refuses have to be stored before this
                // chunk.
                (None, None) if !self.outstanding.is_empty() => {
                    self.take_answer().await;
                    continue;
                }
                (None, None) => {
                    let (connection, place) = self.route.pinned_with_place(bytes).await?;
                    self.connection = Some(connection.clone());
                    return Ok((connection, place));
                }
            };
            if let Some(place) = connection.place_now(bytes) {
                return Ok((connection, place));
            }
            if self.outstanding.is_empty() {
                let place = connection.place(bytes).await?;
                return Ok((connection, place));
            }
            self.take_answer().await;
        }
    }

    /// Waits for the answer to the oldest chunk.
    async fn take_answer(&mut self) {
        let Some(chunk) = self.outstanding.pop_front() else { return };
        let Chunk { count, answer, node } = chunk;
        match answer.await {
            (_, Ok(AppendAnswers::Ids(ids))) => self.answers.extend(ids.into_iter().map(Ok)),
            (entries, Ok(AppendAnswers::Values(values))) => {
                self.take_values(&entries, values, node).await
            }
            (_, Err(error)) => {
                self.route.suspect();
                let is_unconfirmed = error.is_unconfirmed();
                let why = self.broken.get_or_insert_with(|| Broken::new(&error)).clone();
                let lost = || broken(&why.cause, is_unconfirmed);
                self.answers.extend((0..count).map(|_| Err(lost())));
            }
        }
    }

    /// Takes answers, some of which may be refusals. Entries that were refused because the stream is at
    /// another node are sent there.
    async fn take_values(
        &mut self,
        entries: &[NewEntry],
        values: Vec<Value>,
        node: Option<NodeAddress>,
    ) {
        let refusal = Redirect::among(&values);
        let answers = match &refusal {
            Some(error) if Redirect::is_pause(error) => {
                // By now the cluster may serve again and have stored later entries.
                self.broken.get_or_insert_with(|| Broken::new(error));
                values.into_iter().map(accepted).collect()
            }
            Some(_) => {
                let (stream, retention) = (&self.stream, self.retention);
                let commands = Appends { stream, retention, entries }.pipeline();
                self.route.rest(&commands, values, node).await
            }
            None => values.into_iter().map(accepted).collect(),
        };
        if refusal.is_some() {
            // The stream is at another node.
            self.connection = None;
            let lost = answers.iter().filter_map(|answer| answer.as_ref().err());
            if let Some(error) = lost.into_iter().find(|error| is_of_connection(error)) {
                self.broken.get_or_insert_with(|| Broken::new(error));
            }
        }
        self.answers.extend(answers.into_iter().map(appended));
    }

    /// Fails entries that are not sent; their answers come after those of the entries before them.
    async fn fail(&mut self, error: &StoreError, entries: usize) {
        while !self.outstanding.is_empty() {
            self.take_answer().await;
        }
        let why = self.broken.get_or_insert_with(|| Broken::new(error)).clone();
        self.answers.extend((0..entries).map(|_| Err(why.unsent())));
    }
}

#[async_trait]
impl Appender for RedisAppender {
    async fn push(&mut self, entries: Vec<NewEntry>) {
        let mut rest = entries;
        while !rest.is_empty() {
            let later = rest.split_off(chunk_length(rest.iter()));
            self.send(rest).await;
            rest = later;
        }
    }

    async fn finish(mut self: Box<Self>) -> Vec<Appended> {
        while !self.outstanding.is_empty() {
            self.take_answer().await;
        }
        self.answers
    }
}

/// Whether later entries must not be stored after this error.
fn is_of_connection(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable(_) | StoreError::AnswerLost(_))
}

/// Why a connection broke, for every affected entry.
pub(super) fn cause(error: &StoreError) -> String {
    chain(error.source().unwrap_or(error))
}

/// The error of one entry whose connection broke.
pub(super) fn broken(cause: &str, is_unconfirmed: bool) -> StoreError {
    match is_unconfirmed {
        true => StoreError::AnswerLost(cause.into()),
        false => StoreError::Unreachable(cause.into()),
    }
}

fn appended(answer: Result<Value>) -> Appended {
    reply::id(answer?, XADD)
}

/// How many of the entries go in one round trip: at least one.
pub(super) fn chunk_length<'e>(entries: impl Iterator<Item = &'e NewEntry>) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&NewEntry| {
        bytes += bytes_of(entry);
        bytes <= CHUNK_BYTES_MAX
    };
    entries.take(CHUNK_ENTRIES_MAX).take_while(fits).count().max(1)
}

/// The most entries of one chunk: few enough that the server works on one chunk while the next is written.
const CHUNK_ENTRIES_MAX: usize = 256;
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// How many chunks may be outstanding.
const CHUNKS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::net::Nodes;
    use super::*;
    use crate::model::config::ConnectionOptions;
    use crate::model::entry::EntryId;

    fn entry(bytes: usize) -> NewEntry {
        vec![(Bytes::new(), vec![0; bytes].into())]
    }

    #[test]
    fn a_chunk_is_a_number_of_entries_or_a_mebibyte() {
        let chunk_length = |entries: &[NewEntry]| chunk_length(entries.iter());
        assert_eq!(chunk_length(&vec![entry(1); 2500]), CHUNK_ENTRIES_MAX);
        assert_eq!(chunk_length(&vec![entry(CHUNK_BYTES_MAX / 4); 9]), 4);
        assert_eq!(chunk_length(&[entry(CHUNK_BYTES_MAX * 2), entry(1)]), 1);
        assert_eq!(chunk_length(&[entry(1), entry(CHUNK_BYTES_MAX)]), 1);
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_its_chunk_open_and_the_later_ones_unsent() {
        let nodes = Nodes::new("redis://127.0.0.1:1", ConnectionOptions::default(), &[]).unwrap();
        let route = nodes.route("orders");
        let stream = StreamName::new("orders").unwrap();
        let mut appender = Box::new(RedisAppender::new(route, stream, Retention::Unlimited));
        let mut push = |count, answer| {
            let answer = ready((vec![entry(1); count], answer)).boxed();
            appender.outstanding.push_back(Chunk { count, answer, node: None });
        };
        push(1, Ok(AppendAnswers::Ids([EntryId::new(1, 0)].into())));
        push(2, Err(StoreError::AnswerLost("cut".into())));
        appender.take_answer().await;
        appender.take_answer().await;
        appender.push(vec![entry(1), entry(1)]).await;
        let open = appender.finish().await;
        let open = open.iter().map(|answer| answer.as_ref().err().map(StoreError::is_unconfirmed));
        let expected = [None, Some(true), Some(true), Some(false), Some(false)];
        assert_eq!(open.collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn what_finds_no_connection_was_certainly_not_sent() {
        let nodes = Nodes::new("redis://127.0.0.1:1", ConnectionOptions::default(), &[]).unwrap();
        let route = nodes.route("orders");
        let stream = StreamName::new("orders").unwrap();
        let mut appender = Box::new(RedisAppender::new(route, stream, Retention::Unlimited));
        appender.push(vec![entry(1); CHUNK_ENTRIES_MAX + 1]).await;
        let answers = appender.finish().await;
        assert_eq!(answers.len(), CHUNK_ENTRIES_MAX + 1);
        assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unreachable(_)))));
    }
}
