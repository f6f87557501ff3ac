//! Conversions between the standard library's times and the database's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Type};

/// A `timestamptz`, to the microsecond.
///
/// The types that sqlx offers for `timestamptz` need a calendar library, which nothing else here
/// uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl Timestamp {
    /// From milliseconds since 1970, as in entry ids.
    pub(crate) fn from_millis(milliseconds: u64) -> Self {
        Self(UNIX_EPOCH + Duration::from_millis(Self::bounded(milliseconds)))
    }

    /// Milliseconds since 1970, as [`from_millis`](Self::from_millis) takes them, cut to what the server can store.
    pub(crate) fn bounded(milliseconds: u64) -> u64 {
        milliseconds.min(MILLISECONDS_MAX)
    }

    /// Microseconds since 2000, as the server counts.
    fn to_server(self) -> i64 {
        let epoch = UNIX_EPOCH + SERVER_EPOCH;
        let micros =
            |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX - 1);
        match self.0.duration_since(epoch) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        }
    }

    /// `None` for a time that the standard library cannot represent, such as `infinity`.
    fn from_server(micros: i64) -> Option<Self> {
        let epoch = UNIX_EPOCH + SERVER_EPOCH;
        let distance = Duration::from_micros(micros.unsigned_abs());
        let time =
            if micros < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
        time.map(Self)
    }
}

/// A span for the server's `make_interval`, which refuses very large spans: at most 1,000 years.
pub(crate) fn seconds(span: Duration) -> f64 {
    span.min(SPAN_MAX).as_secs_f64()
}

impl Type<sqlx::Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Timestamp {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, sqlx::Postgres> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<sqlx::Postgres>::encode(self.to_server(), buffer)
    }
}

impl<'r> Decode<'r, sqlx::Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        // Every statement with a result of this type is prepared, and so its result is binary.
        let micros = <[u8; 8]>::try_from(value.as_bytes()?)?;
        Self::from_server(i64::from_be_bytes(micros)).ok_or_else(|| "the time is infinite".into())
    }
}

/// From 1970 to 2000.
const SERVER_EPOCH: Duration = Duration::from_secs(946_684_800);
/// The type by its number, which is the same in every database. If the type were named, sqlx would
/// look the name up between the parsing of a statement and its execution, with a query that
/// discards the unnamed statement.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
const SPAN_MAX: Duration = Duration::from_secs(1_000 * 366 * 24 * 60 * 60);
/// The latest time that is sent: the year 9999, far below the server's limit.
const MILLISECONDS_MAX: u64 = 253_370_764_800_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_conversion_to_server_time_and_back() {
        for milliseconds in [0, 1, 946_684_799_999, 946_684_800_000, 1_795_000_000_123] {
            let time = Timestamp::from_millis(milliseconds);
            assert_eq!(Timestamp::from_server(time.to_server()), Some(time));
        }
        assert_eq!(Timestamp::from_millis(946_684_800_000).to_server(), 0);
        assert_eq!(Timestamp::from_millis(0).to_server(), -946_684_800_000_000);
        assert!(
            Timestamp::from_server(i64::MAX).is_none_or(|time| time > Timestamp::from_millis(0))
        );
    }

    #[test]
    fn the_time_of_every_entry_id_can_be_represented() {
        assert!(Timestamp::from_millis(u64::MAX) > Timestamp::from_millis(1_795_000_000_123));
    }
}
