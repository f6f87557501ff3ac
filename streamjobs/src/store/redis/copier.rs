//! Copies entries out of an answer. Slices of the answer would keep all of it in memory for as long
//! as one of its jobs runs. A few entries share two pieces of memory, one for their bytes and one
//! for the fields.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::model::block::{BLOCK_BYTES, BLOCK_LENGTH_MAX};
use crate::model::entry::{Entry, EntryId};
use crate::store::{Delivery, Inlet};

/// Collects the entries of one answer.
pub(super) struct Copier<'b> {
    inlet: Inlet,
    /// The fields of the entry that is being read.
    pairs: Vec<(&'b [u8], &'b [u8])>,
    piece: BytesMut,
    /// The fields of the entries that are in the piece.
    fields: Vec<Field>,
    entries: Vec<Copied>,
    done: Vec<Delivery>,
}

struct Field {
    name: Name,
    value: Range<usize>,
}

enum Name {
    Known(&'static [u8]),
    Copied(Range<usize>),
}

/// An entry in the piece.
struct Copied {
    id: EntryId,
    delivery_count: u64,
    /// The place of its first field.
    begin: usize,
    /// The size of its fields, names included.
    bytes: usize,
}

impl<'b> Copier<'b> {
    /// A copier for about this many entries.
    pub(super) fn new(inlet: Inlet, entries: usize) -> Self {
        let few = entries.min(BLOCK_LENGTH_MAX);
        Self {
            inlet,
            pairs: Vec::new(),
            piece: BytesMut::new(),
            fields: Vec::with_capacity(few * FIELDS_USUAL),
            entries: Vec::with_capacity(few),
            done: Vec::with_capacity(entries),
        }
    }

    /// Adds a field to the entry.
    pub(super) fn add(&mut self, name: &'b [u8], value: &'b [u8]) {
        self.pairs.push((name, value));
    }

    /// Ends the entry. `rest` is about how many bytes of the answer come after it.
    pub(super) fn end(&mut self, id: EntryId, delivery_count: u64, rest: usize) {
        let bytes = self.pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let is_full = self.piece.capacity() - self.piece.len() < bytes;
        if is_full || self.entries.len() == BLOCK_LENGTH_MAX {
            self.close();
            self.piece = BytesMut::with_capacity(bytes.max(BLOCK_BYTES.min(bytes + rest)));
        }
        self.entries.push(Copied { id, delivery_count, begin: self.fields.len(), bytes });
        for (name, value) in self.pairs.drain(..) {
            let mut copy = |bytes: &[u8]| {
                let begin = self.piece.len();
                self.piece.extend_from_slice(bytes);
                begin..self.piece.len()
            };
            let name = known(name).map_or_else(|| Name::Copied(copy(name)), Name::Known);
            self.fields.push(Field { name, value: copy(value) });
        }
    }

    /// Turns the contents of the piece into entries.
    fn close(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let whole = std::mem::take(&mut self.piece).freeze();
        let mut end = self.fields.len();
        let field = |Field { name, value }| {
            let name = match name {
                Name::Known(known) => Bytes::from_static(known),
                Name::Copied(range) => whole.slice(range),
            };
            (name, whole.slice(value))
        };
        let fields = self.fields.drain(..).map(field).collect::<Arc<[_]>>();
        let first = self.done.len();
        for Copied { id, delivery_count, begin, bytes } in self.entries.drain(..).rev() {
            let entry = Entry::sharing(id, &fields, begin..end, bytes);
            self.done.push(Delivery { inlet: self.inlet, entry, delivery_count });
            end = begin;
        }
        if let Some(block) = self.done.get_mut(first..) {
            block.reverse();
        }
    }

    /// All entries, in their order.
    pub(super) fn finish(mut self) -> Vec<Delivery> {
        self.close();
        self.done
    }
}

/// Names that nearly every entry has, which need no copy.
fn known(name: &[u8]) -> Option<&'static [u8]> {
    match name {
        b"type" => Some(b"type"),
        b"data" => Some(b"data"),
        b"sj-id" => Some(b"sj-id"),
        _ => None,
    }
}

/// How many fields an entry without a key and a trace has.
const FIELDS_USUAL: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries with payloads of these sizes in bytes, copied.
    fn copied(sizes: &[usize]) -> Vec<Delivery> {
        let payloads = sizes.iter().map(|size| vec![b'x'; *size]).collect::<Vec<_>>();
        let mut copier = Copier::new(Inlet::LANE, sizes.len());
        for (number, payload) in (1_u64..).zip(&payloads) {
            copier.add(b"type", b"t");
            copier.add(b"other", b"");
            copier.add(b"data", payload);
            copier.end(EntryId::new(number, 0), number + 1, 100_000);
        }
        copier.finish()
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let sizes = (0..200).map(|number| number * 37 % 5_000).collect::<Vec<_>>();
        let deliveries = copied(&sizes);
        assert_eq!(deliveries.len(), sizes.len());
        for ((number, size), delivery) in (1..).zip(sizes).zip(&deliveries) {
            let Delivery { inlet, entry, delivery_count } = delivery;
            assert_eq!((*inlet, *delivery_count), (Inlet::LANE, number + 1));
            assert_eq!(entry.id(), EntryId::new(number, 0));
            let names = entry.fields().iter().map(|(name, _)| name.as_ref()).collect::<Vec<_>>();
            assert_eq!(names, [b"type".as_slice(), b"other", b"data"]);
            assert_eq!(entry.field("data").unwrap().len(), size);
            assert_eq!(entry.bytes(), 4 + 1 + 5 + 4 + size);
        }
    }

    #[test]
    fn a_large_entry_shares_its_memory_with_none() {
        let deliveries = copied(&[10, 20_000, 10, 10]);
        let fields = |place: usize| deliveries[place].entry.fields().as_ptr();
        let are_neighbours = |place| fields(place).wrapping_add(3) == fields(place + 1);
        assert_eq!([0, 1, 2].map(are_neighbours), [false, false, true]);
    }
}
