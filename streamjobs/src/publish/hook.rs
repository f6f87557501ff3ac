//! A function of the application that sees each event before it is sent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::cause::BoxError;
use crate::model::entry::Fields;
use crate::model::header;
use crate::model::name::{EventId, StreamName};

/// An event that is about to be sent, as [`ClientBuilder::on_publish`](crate::ClientBuilder::on_publish) sees it.
pub struct Outgoing<'e> {
    pub(super) stream: &'e StreamName,
    pub(super) event_id: &'e EventId,
    pub(super) fields: &'e mut Fields,
}

/// The function.
#[derive(Clone)]
pub(super) struct PublishHook(pub(super) Arc<Hook>);

pub(super) type Hook = dyn Fn(&mut Outgoing<'_>) -> Result<(), BoxError> + Send + Sync;

impl Outgoing<'_> {
    /// The stream that gets it.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        self.stream
    }

    /// Its event id.
    #[must_use]
    pub fn event_id(&self) -> &EventId {
        self.event_id
    }

    /// Its event type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.text("sj-key")
    }

    /// The value of a header that was set before.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text(&header::field(name)?)
    }

    /// Sets a header, which [`Job::header`](crate::Job::header) reads in each attempt, including attempts after
    /// retries and redrives. It replaces a header of the same name, and counts towards the client's
    /// [`payload_bytes_max`](crate::ClientBuilder::payload_bytes_max).
    ///
    /// # Errors
    ///
    /// When the name is not 1 to 64 small letters, digits, `-`, `_` and `.` of ASCII.
    pub fn set_header(
        &mut self,
        name: &str,
        value: impl Into<String>,
    ) -> Result<(), HeaderNameError> {
        let field = header::field(name).ok_or(HeaderNameError)?;
        self.fields.retain(|(name, _)| name != field.as_bytes());
        self.fields.push((Bytes::from(field), Bytes::from(value.into())));
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name.as_bytes());
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// Shows everything but the payload.
impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("stream", &self.stream)
            .field("event_type", &self.event_type())
            .field("event_id", &self.event_id)
            .finish_non_exhaustive()
    }
}

/// The name of a header is not 1 to 64 small letters, digits, `-`, `_` and `.` of ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a header has 1 to 64 characters of a-z, 0-9, \"-\", \"_\" and \".\"")]
#[non_exhaustive]
pub struct HeaderNameError;
