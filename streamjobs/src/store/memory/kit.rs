//! What the test kit reads of streams in memory.

use super::MemoryStore;
use crate::model::entry::{Entry, EntryId};
use crate::model::name::StreamName;
use crate::model::partition::Partitions;

impl MemoryStore {
    /// Gives a stream at least this many partitions, as a client that connects to a server does.
    pub(crate) fn keep_partitions(&self, stream: &StreamName, wanted: u16) {
        let mut state = self.lock();
        let count = state.partitions.entry(stream.as_str().to_owned()).or_insert(1);
        *count = wanted.max(*count);
    }

    /// The streams that a stream is spread over, in the order of its partitions.
    pub(crate) fn partitions_of(&self, stream: &StreamName) -> Vec<StreamName> {
        let count = self.lock().partitions.get(stream.as_str()).copied().unwrap_or(1);
        let spread = Partitions::new(stream, count).ok().filter(|_| count > 1);
        spread.map_or_else(|| vec![stream.clone()], |spread| spread.names().cloned().collect())
    }

    /// The entries of a stream, in order.
    pub(crate) fn entries(&self, stream: &StreamName) -> Vec<Entry> {
        let state = self.lock();
        let entries = state.streams.get(stream.as_str()).into_iter();
        let entries = entries.flat_map(|stream| &stream.entries);
        entries.map(|(id, fields)| Entry::new(*id, fields.clone())).collect()
    }

    /// The events of a stream that wait for their time, each with when it is due in milliseconds.
    pub(crate) fn waiting(&self, stream: &StreamName) -> Vec<(u64, Entry)> {
        let state = self.lock();
        let Some(later) = state.later.get(&stream.later_key()) else { return Vec::new() };
        let records = later.members.iter().filter_map(|(due, name)| {
            let (_, fields) = later.records.get(name)?;
            Some((*due, Entry::new(EntryId::ZERO, fields.clone())))
        });
        records.collect()
    }
}
