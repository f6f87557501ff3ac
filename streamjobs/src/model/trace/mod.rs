//! The trace that an event belongs to, and the spans that this crate opens.

pub(crate) mod span;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::model::entry::{Entry, Fields};

/// The W3C trace context in which an event was published, as it travels in the entry.
///
/// It is stored in the fields `sj-trace` (`traceparent`), `sj-trace-state` (`tracestate`) and
/// `sj-baggage` (`baggage`), and stays with the job through retries, dead letters and redrives.
/// Handlers read it with [`Job::trace_context`](crate::Job::trace_context), publishers set it with
/// [`ClientBuilder::trace_context`](crate::ClientBuilder::trace_context).
///
/// ```
/// use streamjobs::TraceContext;
///
/// let context = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?;
/// assert!(context.is_sampled());
/// assert!(TraceContext::new("00-not-a-trace-01").is_err());
/// # Ok::<_, streamjobs::TraceContextError>(())
/// ```
///
/// `Debug` shows `traceparent` alone, because baggage may hold user data.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    tracestate: Option<Arc<str>>,
    baggage: Option<Arc<str>>,
}

/// A string or an id that is not a trace context. The message says what is wrong and never repeats
/// the input.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not a trace context: {0}")]
pub struct TraceContextError(&'static str);

impl TraceContext {
    /// Reads a `traceparent`: version, trace id, span id and flags in hexadecimal.
    ///
    /// If the version is newer than this crate knows, only the parts that every version has are
    /// read.
    ///
    /// # Errors
    ///
    /// When the string has a wrong length or a wrong character, version `ff`, or an id of zeros only.
    pub fn new(traceparent: &str) -> Result<Self, TraceContextError> {
        let bytes = traceparent.as_bytes();
        let version = part::<1>(bytes, 0)?;
        match (version, bytes.len(), bytes.get(TRACEPARENT_LENGTH)) {
            ([0xff], ..) => return Err(TraceContextError("version ff is invalid")),
            ([0], length, _) if length != TRACEPARENT_LENGTH => return Err(WRONG_LENGTH),
            (_, length, _) if length > TRACEPARENT_LENGTH_MAX => return Err(WRONG_LENGTH),
            (_, _, Some(letter)) if *letter != b'-' => return Err(WRONG_LENGTH),
            _ => {}
        }
        if [2, 35, 52].iter().any(|place| bytes.get(*place) != Some(&b'-')) {
            return Err(TraceContextError("a separator is missing"));
        }
        let [flags] = part::<1>(bytes, 53)?;
        Self::from_ids(part(bytes, 3)?, part(bytes, 36)?, flags)
    }

    /// A context from the parts that a tracing library knows.
    ///
    /// # Errors
    ///
    /// When one of the ids has zeros only, which means that there is no trace.
    pub fn from_ids(
        trace_id: [u8; 16],
        span_id: [u8; 8],
        flags: u8,
    ) -> Result<Self, TraceContextError> {
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceContextError("an id has zeros only"));
        }
        Ok(Self { trace_id, span_id, flags, tracestate: None, baggage: None })
    }

    /// Adds a `tracestate`, in which tracing vendors keep data of their own: at most 512 bytes of
    /// visible ASCII.
    ///
    /// # Errors
    ///
    /// When the value is empty, too long, or has other characters.
    pub fn with_tracestate(mut self, tracestate: &str) -> Result<Self, TraceContextError> {
        self.tracestate = Some(header(tracestate, TRACESTATE_BYTES_MAX)?);
        Ok(self)
    }

    /// Adds `baggage`, the application's own names and values: at most 8,192 bytes of visible
    /// ASCII. Every client that may read the stream can read it.
    ///
    /// # Errors
    ///
    /// When the value is empty, too long, or has other characters.
    pub fn with_baggage(mut self, baggage: &str) -> Result<Self, TraceContextError> {
        self.baggage = Some(header(baggage, BAGGAGE_BYTES_MAX)?);
        Ok(self)
    }

    /// The trace id.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span in which the event was published.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The flags; the lowest bit says whether the trace is recorded.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the publisher recorded its part of the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The `traceparent`, to pass on to another system.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// The `tracestate`, if there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The `baggage`, if there is one.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Reads the context of an entry. A field that cannot be read counts as absent, because an entry of another
    /// client must not fail because of its trace.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let mut context = Self::new(entry.text(TRACE)?).ok()?;
        let kept = |name, bytes_max| header(entry.text(name)?, bytes_max).ok();
        context.tracestate = kept(TRACE_STATE, TRACESTATE_BYTES_MAX);
        context.baggage = kept(BAGGAGE, BAGGAGE_BYTES_MAX);
        Some(context)
    }

    /// Writes the context into the fields of an entry, as far as it is set.
    pub(crate) fn write(&self, fields: &mut Fields) {
        let mut push = |name: &'static str, value: String| {
            fields.push((Bytes::from_static(name.as_bytes()), value.into()));
        };
        push(TRACE, self.to_string());
        if let Some(tracestate) = &self.tracestate {
            push(TRACE_STATE, tracestate.as_ref().to_owned());
        }
        if let Some(baggage) = &self.baggage {
            push(BAGGAGE, baggage.as_ref().to_owned());
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(traceparent: &str) -> Result<Self, TraceContextError> {
        Self::new(traceparent)
    }
}

tokio::task_local! {
    static JOB: Arc<TraceContext>;
}

/// Runs a job's future so that what it publishes belongs to the job's trace.
pub(crate) async fn within<F: Future>(context: Option<Arc<TraceContext>>, job: F) -> F::Output {
    match context {
        Some(context) => JOB.scope(context, job).await,
        None => job.await,
    }
}

/// The context of the job in which this is called.
pub(crate) fn of_job() -> Option<Arc<TraceContext>> {
    JOB.try_with(Arc::clone).ok()
}

/// The hexadecimal bytes at an offset of the string. Capital letters are not allowed.
fn part<const N: usize>(text: &[u8], place: usize) -> Result<[u8; N], TraceContextError> {
    let mut bytes = [0; N];
    let digits = text.get(place..place + 2 * N).ok_or(WRONG_LENGTH)?;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().try_fold(0, |value, letter| {
            let digit = match letter {
                b'0'..=b'9' => letter - b'0',
                b'a'..=b'f' => letter - b'a' + 10,
                _ => return Err(TraceContextError("a character is not hexadecimal")),
            };
            Ok(value << 4 | digit)
        })?;
    }
    Ok(bytes)
}

/// A string that can be passed on as a header unchanged.
fn header(text: &str, bytes_max: usize) -> Result<Arc<str>, TraceContextError> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(WRONG_LENGTH);
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(TraceContextError("a character is not visible ASCII"));
    }
    Ok(text.into())
}

const TRACE: &str = "sj-trace";
const TRACE_STATE: &str = "sj-trace-state";
const BAGGAGE: &str = "sj-baggage";
const WRONG_LENGTH: TraceContextError = TraceContextError("its length is wrong");
const TRACEPARENT_LENGTH: usize = 55;
/// A longer `traceparent` of a later version is not read.
const TRACEPARENT_LENGTH_MAX: usize = 512;
const TRACESTATE_BYTES_MAX: usize = 512;
const BAGGAGE_BYTES_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::EntryId;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn entry(fields: &[(&'static str, &'static [u8])]) -> Entry {
        let field = |(name, value): &(&'static str, &'static [u8])| {
            (Bytes::from_static(name.as_bytes()), Bytes::from_static(value))
        };
        Entry::new(EntryId::new(1, 0), fields.iter().map(field).collect())
    }

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        let context = TraceContext::new(PARENT).unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!((context.flags(), context.span_id()[0]), (1, 0xb7));
        let again = TraceContext::from_ids(context.trace_id(), context.span_id(), 1);
        assert_eq!(again, Ok(context));
    }

    #[test]
    fn of_a_later_version_the_known_parts_are_read() {
        let later = format!("cc{}-more", &PARENT[2..]);
        assert_eq!(TraceContext::new(&later).unwrap().traceparent(), PARENT);
        let alone = format!("cc{}", &PARENT[2..]);
        assert!(TraceContext::new(&alone).is_ok());
    }

    #[test]
    fn an_invalid_traceparent_is_refused() {
        let changed = |from: &str, to: &str| PARENT.replacen(from, to, 1);
        let bad = [
            String::new(),
            "00".to_owned(),
            PARENT[..54].to_owned(),
            format!("{PARENT}-"),
            format!("{PARENT}0"),
            format!("cc{}x", &PARENT[2..]),
            format!("cc{}-{}", &PARENT[2..], "x".repeat(1_000)),
            changed("00-", "ff-"),
            changed("00-", "0g-"),
            changed("0af7", "0AF7"),
            changed("-b7ad", "_b7ad"),
            changed("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            changed("b7ad6b7169203331", &"0".repeat(16)),
            changed("-01", "-0é"),
            "é".repeat(27),
        ];
        for text in bad {
            assert!(TraceContext::new(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn fields_of_an_entry_that_cannot_be_read_count_as_absent() {
        let parent = ("sj-trace", PARENT.as_bytes());
        assert_eq!(TraceContext::of(&entry(&[("sj-baggage", b"a=b")])), None);
        assert_eq!(TraceContext::of(&entry(&[("sj-trace", b"\xff\xfe")])), None);
        let bad = [parent, ("sj-trace-state", b"a\r\nb"), ("sj-baggage", "é".as_bytes())];
        assert_eq!(TraceContext::of(&entry(&bad)), TraceContext::new(PARENT).ok());
        let good = [parent, ("sj-trace-state", b"a=1,b=2"), ("sj-baggage", b"user=7")];
        let read = TraceContext::of(&entry(&good)).unwrap();
        assert_eq!((read.tracestate(), read.baggage()), (Some("a=1,b=2"), Some("user=7")));
        let mut written = Fields::new();
        read.write(&mut written);
        assert_eq!(written, entry(&good).into_fields());
    }

    #[test]
    fn debug_shows_no_baggage() {
        let context = TraceContext::new(PARENT).unwrap().with_baggage("user=canary").unwrap();
        assert!(!format!("{context:?}").contains("canary"));
    }
}
