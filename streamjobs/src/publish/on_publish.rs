//! Publishing with a function of the application that sees each event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::client::{Client, ClientBuilder};
use super::encoded::check_size;
use super::hook::{Outgoing, PublishHook};
use crate::model::cause::{BoxError, panic_text};
use crate::model::entry::Fields;
use crate::model::error::PublishError;
use crate::model::name::{EventId, StreamName};

impl ClientBuilder {
    /// Sets a function that sees each event before it is sent. It may set headers, or refuse the event: the call
    /// fails with [`PublishError::Refused`], and the event is certainly not stored. Several functions are called in
    /// the order in which they were set, until one of them refuses. A panic refuses the event as an error does.
    ///
    /// It is called once for each event of each publishing call of this client, including calls with several events
    /// and calls for unique, debounced, delayed and encoded events. A relay publishes the events of its outbox with
    /// the client that it was given: a row whose event is refused stays, like a row that is too large. The function
    /// is not called when a schedule fires, for retries and redrives, or when a scheduled event becomes due.
    ///
    /// The function runs in the call, on its thread: it should be fast and must not block. Without a function,
    /// nothing is called.
    ///
    /// ```no_run
    /// # async fn example(url: &str, tenant: String) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::Client;
    ///
    /// let client = Client::builder(url).on_publish(move |event| {
    ///     event.set_header("tenant", tenant.as_str())?;
    ///     Ok(())
    /// });
    /// let client = client.connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_publish(
        mut self,
        hook: impl Fn(&mut Outgoing<'_>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.push(PublishHook(Arc::new(hook)));
        self
    }
}

impl Client {
    /// The fields of an entry, after the functions of the application.
    pub(super) fn hooked(
        &self,
        stream: &StreamName,
        event_id: &EventId,
        mut fields: Fields,
    ) -> Result<Fields, PublishError> {
        let hooks = self.hooks();
        if hooks.is_empty() {
            return Ok(fields);
        }
        let mut event = Outgoing { stream, event_id, fields: &mut fields };
        for PublishHook(hook) in hooks {
            // A relay that unwinds would read the same row again and again.
            let called = catch_unwind(AssertUnwindSafe(|| hook(&mut event)));
            let called = called.unwrap_or_else(|panic| {
                Err(format!("a function of the application has panicked: {}", panic_text(panic))
                    .into())
            });
            called.map_err(|source| PublishError::Refused {
                stream: stream.to_string(),
                event_id: event_id.clone(),
                source,
            })?;
        }
        let event_type = event.event_type().to_owned();
        check_size(stream, &event_type, &fields, self.payload_bytes_max())?;
        Ok(fields)
    }
}
