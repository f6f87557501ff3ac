//! Filters for dead letters, and their SQL.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use streamjobs::dead_letter::Reason;
use thiserror::Error;

use super::id::LetterId;
use crate::time::Timestamp;

/// Selects dead letters: those that match all filters that are set. By default, all open ones.
///
/// It can be serialized, and the audit row of a redrive contains it. Deserializing fails if a
/// filter is unknown to this version: without that filter, more dead letters would match. Values
/// are bound as parameters and never become part of a statement, so they may come from untrusted
/// input.
///
/// ```
/// use streamjobs::dead_letter::Reason;
/// use streamjobs_postgres::letters::Selection;
///
/// let refused = Selection::new()
///     .stream("orders")
///     .group("billing")
///     .reason(Reason::Exhausted)
///     .error_contains("card declined")
///     .payload_matches("$.amount > 100");
/// # let _ = refused;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[must_use = "a selection does nothing before it is passed to a query"]
pub struct Selection {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_lettered_from: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_lettered_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_contains: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_matches: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_has: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<LetterId>>,
    state: LetterState,
}

/// The state of a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LetterState {
    /// Neither redriven nor known as done: it needs a decision.
    #[default]
    Open,
    /// Its job was redriven.
    Redriven,
    /// The guard says that its job was done.
    KnownDone,
    /// Any.
    All,
}

/// The filters of a selection that an index serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// By number or by event.
    Named,
    Fingerprint,
    /// One group on one stream.
    Group,
    /// No filter that an index serves: all dead letters, or the open ones.
    Newest,
}

/// Why a selection is invalid. No statement has run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// A value contains the character U+0000, which Postgres text cannot contain.
    #[error("filter {filter} of the selection contains the character U+0000")]
    Nul {
        /// The setter's name.
        filter: &'static str,
    },
    /// A path into the payload is invalid.
    #[error("filter {filter} of the selection is not an SQL/JSON path: {message}")]
    Path {
        /// The setter's name.
        filter: &'static str,
        /// The database's message.
        message: String,
    },
    /// The selection names too many dead letters.
    #[error("the selection names {count} dead letters, but at most {max} are allowed")]
    TooMany {
        /// The number of ids.
        count: usize,
        /// The maximum.
        max: usize,
    },
}

impl Selection {
    /// Selects all open dead letters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those of one stream.
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// Only those of these streams. Without streams, none match.
    pub fn streams<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.streams = Some(streams.into_iter().map(Into::into).collect());
        self
    }

    /// Only those of these streams, in addition to the other filters.
    pub(super) fn within(mut self, streams: &[String]) -> Self {
        match &mut self.streams {
            None => self.streams = Some(streams.to_vec()),
            Some(own) => own.retain(|stream| streams.contains(stream)),
        }
        self
    }

    /// Only those of one group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Only those of one event type, such as `order.placed`.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only those that were dead-lettered for one reason.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason.as_str().to_owned());
        self
    }

    /// Only those with one fingerprint: errors that differ only in numbers, ids and quoted values.
    pub fn fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.fingerprint = Some(fingerprint.into());
        self
    }

    /// Only those of one event.
    pub fn event_id(mut self, event_id: impl Into<String>) -> Self {
        self.event_id = Some(event_id.into());
        self
    }

    /// Only those that were dead-lettered at this time or later, to the millisecond.
    pub fn dead_lettered_from(mut self, time: SystemTime) -> Self {
        self.dead_lettered_from = Some(milliseconds(time));
        self
    }

    /// Only those that were dead-lettered before this time, to the millisecond.
    pub fn dead_lettered_before(mut self, time: SystemTime) -> Self {
        self.dead_lettered_before = Some(milliseconds(time));
        self
    }

    /// Only those whose error contains this text, ignoring case. `%` and `_` are not wildcards.
    ///
    /// No index serves this filter: the database reads the errors of all rows that match the other
    /// filters.
    pub fn error_contains(mut self, text: impl Into<String>) -> Self {
        self.error_contains = Some(text.into());
        self
    }

    /// Only those for whose payload an SQL/JSON predicate is true, such as `$.amount > 100`.
    ///
    /// A payload that is not JSON, or to which the predicate does not apply, does not match. No
    /// index serves this filter unless you create one: the database reads the payloads of all rows
    /// that match the other filters.
    pub fn payload_matches(mut self, predicate: impl Into<String>) -> Self {
        self.payload_matches = Some(predicate.into());
        self
    }

    /// Only those in whose payload an SQL/JSON path finds an item, such as
    /// `$.lines[*] ? (@.count > 3)`.
    ///
    /// Pass a predicate to [`payload_matches`](Self::payload_matches) instead: as a path it always
    /// finds an item, its own result.
    pub fn payload_has(mut self, path: impl Into<String>) -> Self {
        self.payload_has = Some(path.into());
        self
    }

    /// Only those with one of these numbers, at most 10,000. Without numbers, none match.
    pub fn ids(mut self, ids: impl IntoIterator<Item = LetterId>) -> Self {
        self.ids = Some(ids.into_iter().collect());
        self
    }

    /// Only those in this state: [`LetterState::Open`] by default.
    pub fn state(mut self, state: LetterState) -> Self {
        self.state = state;
        self
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == LetterState::Open
    }

    pub(super) fn is_by_id(&self) -> bool {
        self.ids.is_some()
    }

    /// Which dead letters a view examines, so that an index finds them.
    pub(super) fn path(&self) -> Path {
        if self.ids.is_some() || self.event_id.is_some() {
            Path::Named
        } else if self.fingerprint.is_some() {
            Path::Fingerprint
        } else if self.stream.is_some() && self.group.is_some() {
            Path::Group
        } else {
            Path::Newest
        }
    }

    /// The paths into the payload, each with its setter's name.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let matches = self.payload_matches.as_deref().map(|path| ("payload_matches", path));
        let has = self.payload_has.as_deref().map(|path| ("payload_has", path));
        matches.into_iter().chain(has)
    }

    /// Whether the values can be bound as parameters.
    pub(super) fn check(&self) -> Result<(), SelectionError> {
        let texts = [
            ("stream", &self.stream),
            ("group", &self.group),
            ("event_type", &self.event_type),
            ("reason", &self.reason),
            ("fingerprint", &self.fingerprint),
            ("event_id", &self.event_id),
            ("error_contains", &self.error_contains),
            ("payload_matches", &self.payload_matches),
            ("payload_has", &self.payload_has),
        ];
        if self.streams.iter().flatten().any(|stream| stream.contains('\0')) {
            return Err(SelectionError::Nul { filter: "streams" });
        }
        for (filter, text) in texts {
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                return Err(SelectionError::Nul { filter });
            }
        }
        let count = self.ids.as_ref().map_or(0, Vec::len);
        if count > IDS_MAX {
            return Err(SelectionError::TooMany { count, max: IDS_MAX });
        }
        Ok(())
    }

    /// Binds the values of [`matching!`], which are the first parameters of the statement.
    ///
    /// The statement is unnamed, as all statements of this crate are, so it is planned for these
    /// values: filters that are not set are removed, and an index serves the other filters. From
    /// its sixth run on, Postgres may plan a prepared statement for any values, and such a plan can
    /// use no index. Planning took 0.1 to 0.9 ms with a million dead letters.
    pub(super) fn bind<'q>(&self, query: Select<'q>) -> Select<'q> {
        let time = |milliseconds: Option<u64>| milliseconds.map(Timestamp::from_millis);
        let ids = self.ids.as_ref().map(|ids| ids.iter().map(|id| id.get()).collect::<Vec<_>>());
        query
            .bind(self.stream.clone())
            .bind(self.group.clone())
            .bind(self.event_type.clone())
            .bind(self.reason.clone())
            .bind(self.fingerprint.clone())
            .bind(self.event_id.clone())
            .bind(time(self.dead_lettered_from))
            .bind(time(self.dead_lettered_before))
            .bind(self.error_contains.as_deref().map(containing))
            .bind(self.payload_matches.clone())
            .bind(self.payload_has.clone())
            .bind(self.state.as_str())
            .bind(ids)
            .bind(self.streams.clone())
    }
}

impl LetterState {
    /// Its name in a serialized selection.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::KnownDone => "known_done",
            Self::All => "all",
        }
    }
}

/// A statement with its parameters.
pub(super) type Select<'q> = Query<'q, Postgres, PgArguments>;

/// The condition of a selection on the table `l`, with the parameters $1 to $14.
///
/// The paths are parsed once, in a sub-query, rather than once for each row.
macro_rules! matching {
    () => {
        "($1::text IS NULL OR l.stream = $1)
     AND ($2::text IS NULL OR l.group_name = $2)
     AND ($3::text IS NULL OR l.event_type = $3)
     AND ($4::text IS NULL OR l.reason = $4)
     AND ($5::text IS NULL OR l.fingerprint = $5)
     AND ($6::text IS NULL OR l.event_id = $6)
     AND ($7::timestamptz IS NULL OR l.buried_at >= $7)
     AND ($8::timestamptz IS NULL OR l.buried_at < $8)
     AND ($9::text IS NULL OR l.error ILIKE $9)
     AND ($10::text IS NULL OR l.payload @@ (SELECT $10::text::jsonpath))
     AND ($11::text IS NULL OR l.payload @? (SELECT $11::text::jsonpath))
     AND ($12::text <> 'open' OR (l.redriven_at IS NULL AND NOT l.known_done))
     AND ($12::text <> 'redriven' OR l.redriven_at IS NOT NULL)
     AND ($12::text <> 'known_done' OR l.known_done)
     AND ($13::bigint[] IS NULL OR l.id = ANY ($13))
     AND ($14::text[] IS NULL OR l.stream = ANY ($14))"
    };
}
pub(super) use matching;

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An `ILIKE` pattern for texts that contain this text.
fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// The most ids in a selection: enough for what a person or a page picks, and an audit row stays
/// below 200 kB.
const IDS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_text_are_escaped() {
        assert_eq!(containing("100%_\\"), "%100\\%\\_\\\\%");
        assert_eq!(containing(""), "%%");
    }

    #[test]
    fn a_selection_survives_serialization() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_000_000_123);
        let selection = Selection::new()
            .group("billing")
            .reason(Reason::Exhausted)
            .dead_lettered_from(time)
            .ids([LetterId::new(7)])
            .state(LetterState::KnownDone);
        let stored = serde_json::to_value(&selection).unwrap();
        let expected = serde_json::json!({
            "group": "billing", "reason": "exhausted", "dead_lettered_from": 1_795_000_000_123_u64,
            "ids": [7], "state": "known_done",
        });
        assert_eq!(stored, expected);
        assert_eq!(serde_json::from_value::<Selection>(stored).unwrap(), selection);
        assert_eq!(serde_json::from_str::<Selection>("{}").unwrap(), Selection::new());
    }

    #[test]
    fn a_selection_within_streams_has_those_of_them_that_it_names() {
        let within = |selection: Selection| selection.within(&["a".to_owned(), "b".to_owned()]);
        let stored =
            |selection| serde_json::to_value(within(selection)).unwrap()["streams"].clone();
        assert_eq!(stored(Selection::new()), serde_json::json!(["a", "b"]));
        assert_eq!(stored(Selection::new().streams(["b", "c"])), serde_json::json!(["b"]));
        assert_eq!(stored(Selection::new().streams(["c"])), serde_json::json!([]));
    }

    #[test]
    fn a_filter_that_is_unknown_does_not_select_everything() {
        let misspelt = serde_json::from_str::<Selection>(r#"{"gruop": "billing"}"#);
        assert!(misspelt.is_err_and(|error| error.to_string().contains("gruop")));
    }

    #[test]
    fn states_are_bound_as_they_are_stored() {
        for state in
            [LetterState::Open, LetterState::Redriven, LetterState::KnownDone, LetterState::All]
        {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn the_error_of_an_invalid_selection_names_the_filter() {
        let nul = Selection::new().error_contains("a\0b").check();
        assert_eq!(nul, Err(SelectionError::Nul { filter: "error_contains" }));
        let nul = Selection::new().streams(["a", "b\0"]).check();
        assert_eq!(nul, Err(SelectionError::Nul { filter: "streams" }));
        let ids = (0..=10_000).map(LetterId::new);
        let count = Selection::new().ids(ids).check();
        assert_eq!(count, Err(SelectionError::TooMany { count: 10_001, max: 10_000 }));
        assert_eq!(Selection::new().stream("'; DROP TABLE x; --").check(), Ok(()));
    }

    #[test]
    fn times_before_1970_count_as_1970() {
        let early = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(
            Selection::new().dead_lettered_from(early),
            Selection::new().dead_lettered_from(UNIX_EPOCH)
        );
    }
}
