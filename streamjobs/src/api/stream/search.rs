//! Entries that contain a text, from the newest back.

use super::error::StreamError;
use super::handle::{PAGE_MAX, Stream};
use crate::api::merge::Order;
use crate::api::span::AddressSpan;
use crate::model::entry::EntryAddress;
use crate::model::preview::EntryPreview;

/// What a [search](Stream::search) found, and what it has looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SearchPage {
    /// The entries that match, newest first, each with the beginnings of its values.
    pub entries: Vec<EntryPreview>,
    /// How many entries were compared.
    pub compared: usize,
    /// How many bytes of those entries were compared.
    pub bytes: u64,
    /// How many of those entries have a value that was too long and was compared only at its beginning.
    pub cut: usize,
    /// The last entry that was compared, which is the oldest.
    pub oldest: Option<EntryAddress>,
    /// Where the search goes on: before this entry. `None` at the beginning of the stream.
    pub next: Option<EntryAddress>,
}

impl Stream {
    /// The entries that contain a text in a value (payload, headers, event id, key, type), and the entry whose whole
    /// id is the text. The search goes back from the newest entry, or from `before`, and returns at most `limit`
    /// entries, and never more than 1,000.
    ///
    /// The text is compared as it is, byte for byte. The stream has no index, so entries are read: up to 10,000 of
    /// them, about 4 MiB, 20 requests, or entries that take 64 MiB on the server, whichever comes first. The page
    /// says where to go on. The first 16 KiB of each value are compared. An empty page is not necessarily the last.
    /// Waiting retries, scheduled events and dead letters are not entries of the stream.
    ///
    /// One request reads up to 500 entries or 1 MiB from each partition.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn search(
        &self,
        text: &str,
        before: Option<EntryAddress>,
        limit: usize,
    ) -> Result<SearchPage, StreamError> {
        self.search_by(before, limit, |entry| contains(entry, text.as_bytes())).await
    }

    /// The entries for which a function returns true; otherwise like [`search`](Self::search). It is for programs
    /// that do not show all of an entry, or that can read more of its payload.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn search_by(
        &self,
        before: Option<EntryAddress>,
        limit: usize,
        mut matches: impl FnMut(&EntryPreview) -> bool + Send,
    ) -> Result<SearchPage, StreamError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let (entries, compared, bytes, cut) = (Vec::new(), 0, 0, 0);
        let mut found = SearchPage { entries, compared, bytes, cut, oldest: None, next: before };
        let mut whole_bytes = 0;
        for request in 1.. {
            let everything = AddressSpan::EVERYTHING;
            let span = found.next.map_or(everything, |before| everything.before(before));
            let page = self.preview_page(span, Order::NewestFirst, AT_ONCE, VALUE_BYTES).await?;
            let (more, count) = (page.more_after.is_some(), page.entries.len());
            for (place, entry) in page.entries.into_iter().enumerate() {
                whole_bytes += entry.fields.iter().map(|field| field.bytes).sum::<u64>();
                found.compare(entry, &mut matches);
                let is_full = found.is_full(limit) || whole_bytes >= WHOLE_BYTES_MAX;
                if is_full && (more || place + 1 < count) {
                    return Ok(found);
                }
            }
            if !more {
                found.next = None;
            }
            if !more || request >= REQUESTS_MAX {
                break;
            }
        }
        Ok(found)
    }
}

impl SearchPage {
    fn compare(&mut self, entry: EntryPreview, matches: &mut impl FnMut(&EntryPreview) -> bool) {
        let sizes = entry.fields.iter().map(|field| field.name.len() + field.value.len());
        self.bytes += sizes.sum::<usize>() as u64;
        self.compared += 1;
        self.cut += usize::from(entry.fields.iter().any(|field| !field.is_whole()));
        self.oldest = Some(entry.address());
        self.next = self.oldest;
        if matches(&entry) {
            self.entries.push(entry);
        }
    }

    fn is_full(&self, limit: usize) -> bool {
        self.entries.len() >= limit || self.compared >= COMPARED_MAX || self.bytes >= BYTES_MAX
    }
}

fn contains(entry: &EntryPreview, text: &[u8]) -> bool {
    entry.address().to_string().as_bytes() == text
        || entry.fields.iter().any(|field| has(&field.value, text))
}

/// Whether the bytes contain the text.
fn has(bytes: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else { return true };
    let mut rest = bytes;
    while let Some(place) = rest.iter().position(|byte| byte == first) {
        let from = rest.get(place..).unwrap_or_default();
        if from.starts_with(text) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

/// The most entries of one request. The server takes a few milliseconds to look at this many.
const AT_ONCE: usize = 500;
/// How many bytes of each value are compared.
const VALUE_BYTES: usize = 16 * 1024;
const COMPARED_MAX: usize = 10_000;
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most bytes of whole entries, all of which the server reads: this takes a tenth of a second
/// of its time.
const WHOLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const REQUESTS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_contain_a_text_wherever_it_is() {
        for text in ["", "a", "aab", "b\u{e9}", "aaab\u{e9}"] {
            assert!(has("aaab\u{e9}".as_bytes(), text.as_bytes()), "{text}");
        }
        for text in ["x", "ba", "aaaa", "aaab\u{e9}c"] {
            assert!(!has("aaab\u{e9}".as_bytes(), text.as_bytes()), "{text}");
        }
        assert!(!has(b"", b"a") && has(b"\xff\x00a", b"\x00a"));
    }
}
