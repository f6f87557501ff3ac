//! Publishing events with the commit of a transaction.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::PgConnection;
use streamjobs::error::PublishError;
use streamjobs::{EncodedEvent, Event, EventId, StreamName};

use super::backlog::{self, OutboxBacklog};
use crate::postgres::Postgres;
use crate::publish_error::PublishInError;
use crate::statement;
use crate::time::Timestamp;

/// Publishes events inside the caller's transaction: they are published if the transaction commits,
/// and never if it rolls back.
///
/// An event is written into the table `outbox`. A [`Relay`](super::Relay) moves it to its stream,
/// under the event id that it was written with. Writing needs no Redis server.
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
/// On a connection without a transaction, each call commits by itself: the event is published
/// whatever happens afterwards.
///
/// # Order
///
/// Events with one key reach their stream in the order in which they were written, as far as that
/// order is defined: within one transaction, and between two transactions if one begins to publish
/// after the other has committed. To get that order between transactions, first lock the row that
/// the key stands for.
///
/// # Delivery
///
/// At least once. If the relay, Redis or the database fails after an event was stored in its stream
/// and before its row was deleted, the event is stored again under the same event id. Guarded
/// handlers skip the duplicate.
#[derive(Clone, Debug)]
pub struct Publisher {
    postgres: Postgres,
    notify: bool,
}

impl Postgres {
    /// A publisher that writes events inside transactions.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher { postgres: self.clone(), notify: true }
    }
}

impl Publisher {
    /// Sends no notification to the relay, which then finds the events at its next poll: within a
    /// second by default.
    ///
    /// Postgres serializes the commits of transactions that notify, across the whole database
    /// cluster. Use this setting where that limits the commit rate.
    #[must_use]
    pub fn without_notify(self) -> Self {
        Self { notify: false, ..self }
    }

    /// Publishes an event to its own stream, under a new event id.
    ///
    /// The connection may be `&mut transaction` or the `&mut Once` of a handler. Within a handler,
    /// the event belongs to the trace of the job.
    ///
    /// # Errors
    ///
    /// When the event is invalid (larger than 1 MiB, for example), and when the database refuses or
    /// cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the transaction may or may not contain the event: roll it back.
    /// A connection that was in no transaction may now be in a transaction that sqlx does not know
    /// of: close it.
    pub async fn publish_in<E: Event>(
        &self,
        connection: &mut PgConnection,
        event: &E,
    ) -> Result<EventId, PublishInError> {
        self.publish_in_with_id(connection, event, EventId::generate()).await
    }

    /// Publishes an event to its own stream, under the caller's own event id.
    ///
    /// Publishing twice under one id stores two entries. Guarded handlers do their work only once.
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

    /// Publishes an event to a stream other than its own, for example a stream per tenant.
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
    /// Without events, it sends nothing to the database.
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

    /// Publishes encoded events: of several types, for several streams, or with the size limit and
    /// the trace of a client ([`Client::encode`](streamjobs::Client::encode)).
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_encoded_in(
        &self,
        connection: &mut PgConnection,
        events: &[EncodedEvent],
    ) -> Result<(), PublishInError> {
        let rows = events.iter().map(|event| NewRow { event, due: None }).collect::<Vec<_>>();
        self.write_rows(connection, &rows).await
    }

    async fn write_rows(
        &self,
        connection: &mut PgConnection,
        rows: &[NewRow<'_>],
    ) -> Result<(), PublishInError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.write_all(connection, rows).await.map_err(|source| {
            let schema = self.postgres.schema().to_string();
            PublishInError::Database { schema, source }
        })
    }

    /// Publishes an event at a time of the Redis server's clock, under a new event id: the relay schedules the event
    /// after the commit, and the event waits in Redis, where [`Client::scheduled`](streamjobs::Client::scheduled)
    /// lists and cancels it. If the time has passed when the relay gets to the row, the event is published at once.
    ///
    /// A relay of an older version publishes the event at once: update the processes with a relay first. Scheduled
    /// events have no order, not even among events of the same key.
    ///
    /// # Errors
    ///
    /// As [`publish_in`](Self::publish_in), and when the time is after the year 9999.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_at_in<E: Event>(
        &self,
        connection: &mut PgConnection,
        at: SystemTime,
        event: &E,
    ) -> Result<EventId, PublishInError> {
        self.publish_at_in_with_id(connection, at, event, EventId::generate()).await
    }

    /// Publishes an event at a time of the Redis server's clock, under the caller's own event id. If an event with
    /// this id already waits in Redis, that event stays, and the new event is dropped.
    ///
    /// # Errors
    ///
    /// As [`publish_at_in`](Self::publish_at_in).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_at_in_with_id<E: Event>(
        &self,
        connection: &mut PgConnection,
        at: SystemTime,
        event: &E,
        id: EventId,
    ) -> Result<EventId, PublishInError> {
        let event = EncodedEvent::with_id(event, id)?;
        self.publish_encoded_at_in(connection, std::slice::from_ref(&(at, event.clone()))).await?;
        Ok(event.event_id().clone())
    }

    /// Publishes encoded events, each at its time: all or none.
    ///
    /// # Errors
    ///
    /// As [`publish_at_in`](Self::publish_at_in). When one of the times cannot be used, nothing is written.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_in`](Self::publish_in).
    pub async fn publish_encoded_at_in(
        &self,
        connection: &mut PgConnection,
        events: &[(SystemTime, EncodedEvent)],
    ) -> Result<(), PublishInError> {
        let rows = events.iter().map(|(at, event)| match *at <= UNIX_EPOCH + LATEST {
            true => Ok(NewRow { event, due: Some(*at) }),
            false => Err(PublishError::TooFarAhead {
                stream: event.stream().to_string(),
                event_id: event.event_id().clone(),
            }),
        });
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        self.write_rows(connection, &rows).await
    }

    /// The number and age of the events in the outbox, of all publishers.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn backlog(&self) -> Result<OutboxBacklog, sqlx::Error> {
        backlog::load(&self.postgres, 0, None).await
    }

    async fn publish_one(
        &self,
        connection: &mut PgConnection,
        event: EncodedEvent,
    ) -> Result<EventId, PublishInError> {
        self.publish_encoded_in(connection, std::slice::from_ref(&event)).await?;
        Ok(event.event_id().clone())
    }

    async fn write_all(
        &self,
        connection: &mut PgConnection,
        events: &[NewRow<'_>],
    ) -> Result<(), sqlx::Error> {
        if statement::is_in_transaction(connection).await? {
            return self.write_steps(connection, events).await;
        }
        let mut transaction = statement::begin_on(connection).await?;
        self.write_steps(&mut transaction, events).await?;
        transaction.commit().await
    }

    async fn write_steps(
        &self,
        connection: &mut PgConnection,
        events: &[NewRow<'_>],
    ) -> Result<(), sqlx::Error> {
        let mut rest = events;
        while !rest.is_empty() {
            let (step, later) = rest.split_at(step_length(rest));
            self.write(connection, step).await?;
            rest = later;
        }
        Ok(())
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        events: &[NewRow<'_>],
    ) -> Result<(), sqlx::Error> {
        let rows = Rows::of(events);
        let statement = if self.notify { INSERT_AND_NOTIFY } else { INSERT };
        self.postgres
            .query(statement)
            .bind(rows.streams)
            .bind(rows.event_ids)
            .bind(rows.firsts)
            .bind(rows.lasts)
            .bind(rows.names)
            .bind(rows.values)
            .bind(rows.due)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// An event to be written, and when it is due.
#[derive(Clone, Copy)]
struct NewRow<'e> {
    event: &'e EncodedEvent,
    due: Option<SystemTime>,
}

/// Events in the form that the statement takes: the fields of all events in one array, and the
/// places where the fields of each event begin and end.
#[derive(Default)]
struct Rows<'e> {
    streams: Vec<&'e str>,
    event_ids: Vec<&'e str>,
    firsts: Vec<i32>,
    lasts: Vec<i32>,
    names: Vec<&'e [u8]>,
    values: Vec<&'e [u8]>,
    due: Vec<Option<Timestamp>>,
}

impl<'e> Rows<'e> {
    fn of(events: &[NewRow<'e>]) -> Self {
        // A statement has far fewer fields than `i32::MAX`.
        let place = |fields: usize| i32::try_from(fields).unwrap_or(i32::MAX);
        let mut rows = Self::default();
        for NewRow { event, due } in events {
            rows.streams.push(event.stream().as_str());
            rows.event_ids.push(event.event_id().as_str());
            rows.firsts.push(place(rows.names.len() + 1));
            for (name, value) in event.fields() {
                rows.names.push(name);
                rows.values.push(value);
            }
            rows.lasts.push(place(rows.names.len()));
            rows.due.push(due.map(Timestamp));
        }
        rows
    }
}

/// How many of the events fit into one statement: at least one.
fn step_length(events: &[NewRow<'_>]) -> usize {
    let (mut fields, mut bytes) = (0, 0);
    let fits = |NewRow { event, .. }: &&NewRow<'_>| {
        fields += event.fields().len();
        bytes += event.bytes();
        fields <= STEP_FIELDS_MAX && bytes <= STEP_BYTES_MAX
    };
    events.iter().take_while(fits).count().max(1)
}

macro_rules! insert {
    () => {
        "INSERT INTO streamjobs.outbox (stream, event_id, field_names, field_values, due_at)
    SELECT e.stream, e.event_id, ($5::bytea[])[e.first:e.last], ($6::bytea[])[e.first:e.last], e.due_at
    FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $7::timestamptz[])
        WITH ORDINALITY AS e (stream, event_id, first, last, due_at, place)
    ORDER BY e.place"
    };
}

/// Assigns ids in the order of the events.
const INSERT: &str = insert!();
/// The notification goes out with the commit, once for each transaction.
pub(super) const INSERT_AND_NOTIFY: &str =
    concat!("WITH written AS (", insert!(), ") SELECT pg_notify('streamjobs_outbox', '')");

/// How many fields one statement has. Bounded because the server scans the array from its beginning
/// for each slice.
const STEP_FIELDS_MAX: usize = 2_000;
const STEP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The latest time for which an event can be scheduled: the end of the year 9999.
const LATEST: Duration = Duration::from_millis(253_402_300_799_999);

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

    fn rows(events: &[EncodedEvent]) -> Vec<NewRow<'_>> {
        events.iter().map(|event| NewRow { event, due: None }).collect()
    }

    #[test]
    fn a_statement_is_bounded_in_fields_and_bytes_and_never_empty() {
        let length = |events: &[EncodedEvent]| step_length(&rows(events));
        assert_eq!(length(&vec![event(1); 1_000]), STEP_FIELDS_MAX / 3);
        assert_eq!(length(&vec![event(STEP_BYTES_MAX / 4); 9]), 3);
        assert_eq!(length(&[event(STEP_BYTES_MAX * 2), event(1)]), 1);
    }

    #[test]
    fn the_bounds_select_the_fields_of_each_event() {
        let events = [event(1), event(2)];
        let rows = Rows::of(&rows(&events));
        assert_eq!((rows.firsts, rows.lasts), (vec![1, 4], vec![3, 6]));
        assert_eq!(rows.names.len(), 6);
        assert_eq!(rows.values.get(4).map(|value| value.len()), Some(2));
    }
}
