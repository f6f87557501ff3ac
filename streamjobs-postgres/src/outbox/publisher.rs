//! Events that are published by the commit of a transaction.

use std::fmt;

use sqlx::PgConnection;
use streamjobs::error::PublishError;
use streamjobs::{EncodedEvent, Event, EventId, StreamName};
use thiserror::Error;

use super::backlog::{self, OutboxBacklog};
use crate::postgres::Postgres;

/// Publishes events inside of the caller's transaction: they are published if it commits, and never
/// if it does not.
///
/// An event is written into the table `outbox`; a [`Relay`](super::Relay) moves it to its stream,
/// under the event id that it has from the beginning. No Redis server is needed for writing.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// use streamjobs::Event;
/// use streamjobs_postgres::Postgres;
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(stream = "orders", type = "order.placed", key = "customer")]
/// struct OrderPlaced { customer: String, amount: String }
///
/// # async fn example(postgres: Postgres, order: OrderPlaced) -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = postgres.publisher();
/// let mut transaction = postgres.pool().begin().await?;
/// sqlx::query("INSERT INTO orders (customer, amount) VALUES ($1, $2)")
///     .bind(&order.customer)
///     .bind(&order.amount)
///     .execute(&mut *transaction)
///     .await?;
/// publisher.publish_in(&mut transaction, &order).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// On a connection without a transaction each call commits by itself, which is allowed: the event
/// is then published whatever comes later.
///
/// # Order
///
/// Events with one key reach their stream in the order in which they were written, as far as that
/// is defined: within one transaction, and between transactions of which one began to publish after
/// the other had committed, as they do when both lock the row that the key stands for first.
///
/// # Delivery
///
/// At least once, as everything: when the relay, the server or the database fails between storing
/// an event in its stream and forgetting its row, it is stored again under the same event id, which
/// guarded handlers notice.
#[derive(Clone)]
pub struct Publisher {
    postgres: Postgres,
    notify: bool,
}

/// Why an event was not written into the outbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishInError {
    /// The event cannot be published at all. The transaction is as it was.
    #[error(transparent)]
    Event(#[from] PublishError),
    /// The database refused, or could not be reached. The transaction can only be rolled back.
    #[error("cannot write into the outbox of schema {schema}")]
    Database {
        /// The schema.
        schema: String,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

impl Postgres {
    /// Publishes inside of transactions.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher { postgres: self.clone(), notify: true }
    }
}

impl Publisher {
    /// Does not tell the relay of what was written: it comes upon it when it looks the next time,
    /// which by default is within a second.
    ///
    /// The server lets transactions that notify commit one after the other, across all of a
    /// database cluster. Where very many commit at once, this costs less than it delays.
    #[must_use]
    pub fn without_notify(self) -> Self {
        Self { notify: false, ..self }
    }

    /// Publishes an event to its own stream, under a new event id.
    ///
    /// Takes whatever is a connection within: `&mut transaction`, or the `&mut Once` of a handler.
    /// Within a handler the event belongs to the trace of the job.
    ///
    /// # Errors
    ///
    /// When the event cannot be written (larger than 1 MiB, say), and when the database refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves open whether the event is in the transaction: roll it back.
    pub async fn publish_in<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
    ) -> Result<EventId, PublishInError> {
        self.publish_in_with_id(connection, event, EventId::generate()).await
    }

    /// Publishes an event to its own stream, under the caller's own event id.
    ///
    /// Publishing twice under one id stores two entries; guarded handlers do their work once.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_in_with_id<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
        id: EventId,
    ) -> Result<EventId, PublishInError> {
        self.publish_one(connection, EncodedEvent::with_id(event, id)?).await
    }

    /// Publishes an event to another stream than its own, such as one of several for each tenant.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_in_to<E: Event>(
        &self,
        connection: &mut PgConnection,
        stream: StreamName,
        event: &E,
        id: EventId,
    ) -> Result<EventId, PublishInError> {
        let event = EncodedEvent::with_id(event, id)?.to_stream(stream);
        self.publish_one(connection, event).await
    }

    /// Publishes many events, in their order and each under a new event id: all or none.
    ///
    /// No events make no call.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in). When one of the events cannot be published, none is
    /// written.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_all_in<'e, E, I>(
        &self,
        connection: &mut PgConnection,
        events: I,
    ) -> Result<Vec<EventId>, PublishInError>
    where
        E: Event,
        I: IntoIterator<Item = &'e E>,
    {
        let events = events.into_iter().map(EncodedEvent::new).collect::<Result<Vec<_>, _>>()?;
        self.publish_encoded_in(connection, &events).await?;
        Ok(events.into_iter().map(|event| event.event_id().clone()).collect())
    }

    /// Publishes events that were written before: of several types, for several streams, or with
    /// the limit and the trace of a client ([`Client::encode`](streamjobs::Client::encode)).
    ///
    /// # Errors
    ///
    /// When the database refuses.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_encoded_in(
        &self,
        connection: &mut PgConnection,
        events: &[EncodedEvent],
    ) -> Result<(), PublishInError> {
        let mut rest = events;
        while !rest.is_empty() {
            let (step, later) = rest.split_at(step_length(rest));
            self.write(connection, step).await.map_err(|source| PublishInError::Database {
                schema: self.postgres.schema().to_string(),
                source,
            })?;
            rest = later;
        }
        Ok(())
    }

    /// What waits in the outbox, of all publishers.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn backlog(&self) -> Result<OutboxBacklog, sqlx::Error> {
        backlog::load(&self.postgres).await
    }

    async fn publish_one(
        &self,
        connection: &mut PgConnection,
        event: EncodedEvent,
    ) -> Result<EventId, PublishInError> {
        self.publish_encoded_in(connection, std::slice::from_ref(&event)).await?;
        Ok(event.event_id().clone())
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        events: &[EncodedEvent],
    ) -> Result<(), sqlx::Error> {
        let rows = Rows::of(events);
        let statement = if self.notify { INSERT_AND_NOTIFY } else { INSERT };
        sqlx::query(self.postgres.schema().sql(statement))
            .bind(rows.streams)
            .bind(rows.event_ids)
            .bind(rows.firsts)
            .bind(rows.lasts)
            .bind(rows.names)
            .bind(rows.values)
            .execute(connection)
            .await?;
        Ok(())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("postgres", &self.postgres)
            .field("notify", &self.notify)
            .finish()
    }
}

/// Events as the statement takes them: the fields of all in one row, and where those of each are.
#[derive(Default)]
struct Rows<'e> {
    streams: Vec<&'e str>,
    event_ids: Vec<&'e str>,
    firsts: Vec<i32>,
    lasts: Vec<i32>,
    names: Vec<&'e [u8]>,
    values: Vec<&'e [u8]>,
}

impl<'e> Rows<'e> {
    fn of(events: &'e [EncodedEvent]) -> Self {
        // A step has far fewer fields than this type can count.
        let place = |fields: usize| i32::try_from(fields).unwrap_or(i32::MAX);
        let mut rows = Self::default();
        for event in events {
            rows.streams.push(event.stream().as_str());
            rows.event_ids.push(event.event_id().as_str());
            rows.firsts.push(place(rows.names.len() + 1));
            for (name, value) in event.fields() {
                rows.names.push(name);
                rows.values.push(value);
            }
            rows.lasts.push(place(rows.names.len()));
        }
        rows
    }
}

/// How many of the events go in one statement: at least one.
fn step_length(events: &[EncodedEvent]) -> usize {
    let (mut fields, mut bytes) = (0, 0);
    let fits = |event: &&EncodedEvent| {
        fields += event.fields().len();
        bytes += event.bytes();
        fields <= STEP_FIELDS_MAX && bytes <= STEP_BYTES_MAX
    };
    events.iter().take_while(fits).count().max(1)
}

macro_rules! insert {
    () => {
        "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values)
    SELECT e.stream, e.event_id, ($5::bytea[])[e.first:e.last], ($6::bytea[])[e.first:e.last]
    FROM unnest($1::text[], $2::text[], $3::int[], $4::int[])
        WITH ORDINALITY AS e (stream, event_id, first, last, place)
    ORDER BY e.place"
    };
}

/// Ids are given in the order of the events.
const INSERT: &str = insert!();
/// The notification goes out with the commit, once for each transaction.
pub(super) const INSERT_AND_NOTIFY: &str =
    concat!("WITH written AS (", insert!(), ") SELECT pg_notify('streamjobs_outbox', '')");

/// The server walks over what is before a slice, for each slice.
const STEP_FIELDS_MAX: usize = 2_000;
const STEP_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> EncodedEvent {
        let fields = vec![
            ("type".into(), "t".into()),
            ("data".into(), vec![b'1'; bytes].into()),
            ("sj-id".into(), "e".into()),
        ];
        EncodedEvent::from_parts(StreamName::new("orders").unwrap(), fields).unwrap()
    }

    #[test]
    fn a_step_is_bounded_in_fields_and_bytes_and_never_empty() {
        assert_eq!(step_length(&vec![event(1); 1_000]), STEP_FIELDS_MAX / 3);
        assert_eq!(step_length(&vec![event(STEP_BYTES_MAX / 4); 9]), 3);
        assert_eq!(step_length(&[event(STEP_BYTES_MAX * 2), event(1)]), 1);
    }

    #[test]
    fn the_fields_of_each_event_are_found_again() {
        let events = [event(1), event(2)];
        let rows = Rows::of(&events);
        assert_eq!((rows.firsts, rows.lasts), (vec![1, 4], vec![3, 6]));
        assert_eq!(rows.names.len(), 6);
        assert_eq!(rows.values.get(4).map(|value| value.len()), Some(2));
    }
}
