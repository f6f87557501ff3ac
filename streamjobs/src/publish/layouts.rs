//! Which streams are spread over partitions, according to what the client was told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::model::entry::Fields;
use crate::model::error::ConnectError;
use crate::model::name::StreamName;
use crate::model::partition::Partitions;
use crate::store::Publish;

/// The partitions of each stream. A stream that is not named consists of itself.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    by_stream: HashMap<StreamName, Partitions>,
    /// The stream of each partition, and its number.
    whole: HashMap<StreamName, (StreamName, u16)>,
    /// How many events without a key were published.
    turn: AtomicU32,
}

impl Layouts {
    pub(crate) fn new(wanted: Vec<(String, u16)>) -> Result<Self, ConnectError> {
        let fault = |fault: &dyn std::error::Error| ConnectError::Setting(fault.to_string());
        let mut layouts = Self::default();
        for (stream, count) in wanted {
            let stream = StreamName::new(stream).map_err(|error| fault(&error))?;
            let partitions = Partitions::new(&stream, count).map_err(|error| fault(&error))?;
            for (name, number) in partitions.names().zip(0..) {
                layouts.whole.insert(name.clone(), (stream.clone(), number));
            }
            layouts.by_stream.insert(stream, partitions);
        }
        Ok(layouts)
    }

    /// Stores the numbers of partitions on the server, and fails where the server has more for a
    /// stream than this client was told. All numbers are read first, because a number that was stored never falls: if one
    /// of them does not fit, none is stored.
    pub(crate) async fn agree(&self, store: &impl Publish) -> Result<(), ConnectError> {
        for (stream, partitions) in &self.by_stream {
            fit(stream, present(store, stream, 0).await?, partitions.count())?;
        }
        for (stream, partitions) in &self.by_stream {
            let wanted = partitions.count();
            let present = present(store, stream, wanted).await?;
            fit(stream, present, wanted)?;
        }
        Ok(())
    }

    /// Each stream that was named, and how many partitions it has.
    #[cfg(feature = "testing")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&StreamName, u16)> {
        self.by_stream.iter().map(|(stream, partitions)| (stream, partitions.count()))
    }

    /// The partitions of a stream: itself alone, if none were named.
    pub(crate) fn names(&self, stream: &StreamName) -> Vec<StreamName> {
        let partitions = self.by_stream.get(stream);
        partitions.map_or_else(|| vec![stream.clone()], |known| known.names().cloned().collect())
    }

    /// How many partitions a stream has.
    pub(crate) fn count(&self, stream: &StreamName) -> u16 {
        self.by_stream.get(stream).map_or(1, Partitions::count)
    }

    /// Whether a stream has more partitions than itself.
    pub(crate) fn is_spread(&self, stream: &StreamName) -> bool {
        self.count(stream) > 1
    }

    /// The partition of an event: by its key, or in turn if it has no key. `None` if no partitions were set for the
    /// stream.
    pub(crate) fn of_event(&self, stream: &StreamName, event: &Fields) -> Option<&StreamName> {
        let partitions = self.by_stream.get(stream)?;
        Some(match key_of(event) {
            Some(key) => partitions.of_key(key),
            None => partitions.in_turn(self.turn.fetch_add(1, Ordering::Relaxed)),
        })
    }

    /// The partition of an event that is found again by a name: by its key, or by the name if it has no key. The name
    /// of an event that waits is its event id; the name of a unique event is its digest, of which the key is a part.
    /// The event of a schedule has the name of the schedule.
    pub(crate) fn of_named<'s>(
        &'s self,
        stream: &'s StreamName,
        event: &Fields,
        name: &str,
    ) -> &'s StreamName {
        let Some(partitions) = self.by_stream.get(stream) else { return stream };
        partitions.of_key(key_of(event).unwrap_or(name))
    }

    /// The stream that a stream is a partition of, which may be itself.
    pub(crate) fn whole<'s>(&'s self, stream: &'s StreamName) -> &'s StreamName {
        self.whole.get(stream).map_or(stream, |(whole, _)| whole)
    }

    /// The number of a stream that is one of several partitions.
    pub(crate) fn number(&self, stream: &StreamName) -> Option<u16> {
        let (whole, number) = self.whole.get(stream)?;
        self.is_spread(whole).then_some(*number)
    }
}

/// Fails if a stream has more partitions than a client was told.
fn fit(stream: &StreamName, present: u16, wanted: u16) -> Result<(), ConnectError> {
    if present <= wanted {
        return Ok(());
    }
    Err(ConnectError::Setting(format!(
        "stream {stream} has {present} partitions, and this client was told {wanted}; the number can only grow, and \
         has to be the same in each process"
    )))
}

/// The key that keeps an event together with related ones.
pub(crate) fn key_of(event: &Fields) -> Option<&str> {
    let key = event.iter().find(|(name, _)| name.as_ref() == KEY_FIELD);
    key.and_then(|(_, value)| std::str::from_utf8(value).ok())
}

/// How many partitions the server keeps for a stream.
pub(crate) async fn stored(store: &impl Publish, stream: &str) -> Result<u16, ConnectError> {
    let stream = StreamName::new(stream);
    let stream = stream.map_err(|error| ConnectError::Setting(error.to_string()))?;
    present(store, &stream, 0).await
}

/// How many partitions a stream has, once it has at least as many as are wanted.
async fn present(
    store: &impl Publish,
    stream: &StreamName,
    wanted: u16,
) -> Result<u16, ConnectError> {
    let present = store.partitions(stream, wanted).await;
    present.map_err(|source| ConnectError::Server {
        server: format!("the server of stream {stream}"),
        source: source.into(),
    })
}

const KEY_FIELD: &[u8] = b"sj-key";
