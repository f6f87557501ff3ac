//! Reads deliveries from the bytes of an answer without building values: deliveries are most of what a process
//! receives.
//!
//! Supports version 2 of the protocol only, which the reader's connection uses.

use smallvec::SmallVec;

use crate::model::entry::{EntryId, IdReader};
use crate::store::redis::copier::Copier;
use crate::store::{Delivery, Inlet};

/// The bytes do not follow the protocol, or are not the kind of answer that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

type Scanned<T> = Result<T, Malformed>;

/// Finds the end of one answer while its bytes are still arriving. It reads each byte once.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    at: usize,
    /// How many elements are missing until the answer is complete, those of nested arrays included, so that no
    /// stack is needed.
    left: usize,
}

impl FrameScanner {
    /// A scanner for an answer that begins at the first byte.
    pub(crate) fn new() -> Self {
        Self::of(1)
    }

    /// A scanner for this many answers, the first of which begins at the first byte.
    pub(crate) fn of(answers: usize) -> Self {
        Self { at: 0, left: answers }
    }

    /// Where the answer ends, or `None` if it is not complete yet. Each call gets the bytes of the call before,
    /// and those that have arrived since.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Scanned<Option<usize>> {
        while self.left > 0 {
            let (end, more) = match short_line(bytes, self.at) {
                Some((b'$', length, end)) => (bulk_end(bytes, end, length)?, 0),
                Some((b'*', length, end)) => (Some(end), length),
                _ => {
                    let Some(head) = Head::at(bytes, self.at)? else { return Ok(None) };
                    match head.element {
                        Element::Bulk(Some(length)) => (bulk_end(bytes, head.end, length)?, 0),
                        Element::Array(Some(length)) => (Some(head.end), length),
                        _ => (Some(head.end), 0),
                    }
                }
            };
            let Some(end) = end else { return Ok(None) };
            self.at = end;
            self.left = (self.left - 1).checked_add(more).ok_or(Malformed)?;
        }
        Ok(Some(self.at))
    }
}

/// The kind of an element, from its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// A status, an error or a number, which is this line alone.
    Line,
    /// A string: the number of bytes after the line.
    Bulk(Option<usize>),
    /// An array: the number of elements after the line.
    Array(Option<usize>),
}

#[derive(Clone, Copy, Debug)]
struct Head {
    element: Element,
    /// Where the line ends, its line break included.
    end: usize,
}

impl Head {
    #[inline(never)]
    fn at(bytes: &[u8], at: usize) -> Scanned<Option<Self>> {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((&kind, line)) = rest.split_first() else { return Ok(None) };
        let element = match kind {
            b'+' | b'-' | b':' => {
                let first = line.get(..LINE_MAX).unwrap_or(line);
                let Some(length) = first.windows(2).position(|two| two == b"\r\n") else {
                    return if line.len() >= LINE_MAX { Err(Malformed) } else { Ok(None) };
                };
                return Ok(Some(Self { element: Element::Line, end: at + 1 + length + 2 }));
            }
            b'$' => Element::Bulk,
            b'*' => Element::Array,
            _ => return Err(Malformed),
        };
        let Some((length, digits)) = length(line)? else { return Ok(None) };
        Ok(Some(Self { element: element(length), end: at + 1 + digits }))
    }
}

/// The line at a place, if it is a kind and a length of one to three digits, as nearly every line of a delivery
/// is. Returns the kind, the length, and where the line ends. `None` for any other line, and near the end of
/// the bytes.
#[inline]
fn short_line(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let &[kind, a, b, c, d, e] = bytes.get(at..)?.first_chunk()?;
    let a = digit(a)?;
    if [b, c] == *b"\r\n" {
        return Some((kind, a, at + 4));
    }
    let ab = 10 * a + digit(b)?;
    if [c, d] == *b"\r\n" {
        return Some((kind, ab, at + 5));
    }
    ([d, e] == *b"\r\n").then_some((kind, 10 * ab + digit(c)?, at + 6))
}

#[inline]
fn digit(byte: u8) -> Option<usize> {
    byte.is_ascii_digit().then(|| usize::from(byte - b'0'))
}

/// A length, and how many bytes its line takes. A length of -1 means that there is no value.
fn length(line: &[u8]) -> Scanned<Option<(Option<usize>, usize)>> {
    let mut length = 0_usize;
    for (place, byte) in line.iter().enumerate() {
        match byte {
            b'0'..=b'9' if place < DIGITS_MAX => length = length * 10 + usize::from(byte - b'0'),
            b'\r' if place > 0 => return end_of_line(line, place, Some(length)),
            b'-' if place == 0 => return absent(line),
            _ => return Err(Malformed),
        }
    }
    Ok(None)
}

fn absent(line: &[u8]) -> Scanned<Option<(Option<usize>, usize)>> {
    match line.get(1) {
        None => Ok(None),
        Some(b'1') => end_of_line(line, 2, None),
        Some(_) => Err(Malformed),
    }
}

fn end_of_line(
    line: &[u8],
    place: usize,
    length: Option<usize>,
) -> Scanned<Option<(Option<usize>, usize)>> {
    match (line.get(place), line.get(place + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some((length, place + 2))),
        (None, _) | (Some(b'\r'), None) => Ok(None),
        _ => Err(Malformed),
    }
}

/// Where a string ends, its line break included.
fn bulk_end(bytes: &[u8], begin: usize, length: usize) -> Scanned<Option<usize>> {
    match bytes.get(begin + length..begin + length + 2) {
        Some(b"\r\n") => Ok(Some(begin + length + 2)),
        Some(_) => Err(Malformed),
        None => Ok(None),
    }
}

/// Reads the elements of a complete answer one after the other.
struct Walk<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Walk<'b> {
    #[inline]
    fn head(&mut self) -> Scanned<Element> {
        let (element, end) = match short_line(self.bytes, self.at) {
            Some((b'$', length, end)) => (Element::Bulk(Some(length)), end),
            Some((b'*', length, end)) => (Element::Array(Some(length)), end),
            _ => {
                let head = Head::at(self.bytes, self.at)?.ok_or(Malformed)?;
                (head.element, head.end)
            }
        };
        self.at = end;
        Ok(element)
    }

    /// The length of an array; `None` if there is no value.
    fn array(&mut self) -> Scanned<Option<usize>> {
        match self.head()? {
            Element::Array(length) => Ok(length),
            Element::Bulk(None) => Ok(None),
            Element::Bulk(Some(_)) | Element::Line => Err(Malformed),
        }
    }

    /// How many bytes are left.
    fn rest(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn array_of(&mut self, length: usize) -> Scanned<()> {
        (self.array()? == Some(length)).then_some(()).ok_or(Malformed)
    }

    fn bulk(&mut self) -> Scanned<&'b [u8]> {
        let Element::Bulk(Some(length)) = self.head()? else { return Err(Malformed) };
        let end = bulk_end(self.bytes, self.at, length)?.ok_or(Malformed)?;
        let bulk = self.bytes.get(self.at..self.at + length).ok_or(Malformed)?;
        self.at = end;
        Ok(bulk)
    }
}

/// Whether the answer is a refusal.
pub(crate) fn is_refusal(answer: &[u8]) -> bool {
    answer.first() == Some(&b'-')
}

/// Ids of new entries. A single id takes no memory of its own.
pub(crate) type Ids = SmallVec<[EntryId; 1]>;

/// The ids, if every answer is an id; `None` if any answer is something else.
pub(crate) fn ids(answers: &[u8]) -> Option<Ids> {
    let mut walk = Walk { bytes: answers, at: 0 };
    let mut ids = Ids::with_capacity(answers.len() / ID_BYTES);
    let mut reader = IdReader::default();
    while walk.at < answers.len() {
        ids.push(reader.read(walk.bulk().ok()?)?);
    }
    Some(ids)
}

/// The entries that a read of one stream delivered; empty if its wait ended without any.
pub(crate) fn deliveries(answer: &[u8], inlet: Inlet) -> Scanned<Vec<Delivery>> {
    let mut walk = Walk { bytes: answer, at: 0 };
    match walk.array()? {
        None | Some(0) => return Ok(Vec::new()),
        Some(1) => walk.array_of(2)?,
        // The read named only one stream.
        Some(_) => return Err(Malformed),
    }
    let _stream = walk.bulk()?;
    let count = walk.array()?.ok_or(Malformed)?;
    // Limited by the size of the answer, so that a wrong count cannot reserve much memory.
    let mut copier = Copier::new(inlet, count.min(answer.len() / ENTRY_BYTES_MIN));
    let mut ids = IdReader::default();
    for _ in 0..count {
        entry(&mut walk, &mut ids, &mut copier)?;
    }
    Ok(copier.finish())
}

/// Reads one entry, unless its payload was trimmed.
fn entry<'b>(walk: &mut Walk<'b>, ids: &mut IdReader<'b>, copier: &mut Copier<'b>) -> Scanned<()> {
    walk.array_of(2)?;
    let id = ids.read(walk.bulk()?).ok_or(Malformed)?;
    let Some(length) = walk.array()? else { return Ok(()) };
    if length % 2 != 0 {
        return Err(Malformed);
    }
    for _ in 0..length / 2 {
        copier.add(walk.bulk()?, walk.bulk()?);
    }
    copier.end(id, 1, walk.rest());
    Ok(())
}

/// The longest line that is accepted: statuses and errors are shorter.
const LINE_MAX: usize = 16 * 1024;
/// The most digits of a length: enough for every length that a server accepts, and too few to overflow.
const DIGITS_MAX: usize = 12;
/// The shortest entry: `*2`, an id of three bytes, and no fields.
const ENTRY_BYTES_MIN: usize = 17;
/// How many bytes an id of this century takes, with the lines around it.
const ID_BYTES: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::reply;

    const READ: &[u8] = b"*1\r\n*2\r\n$6\r\norders\r\n*3\r\n\
        *2\r\n$3\r\n5-1\r\n*8\r\n$4\r\ntype\r\n$1\r\nt\r\n$1\r\nb\r\n$1\r\n1\r\n$1\r\na\r\n$0\r\n\r\n$1\r\nb\r\n$2\r\n\xff\x00\r\n\
        *2\r\n$3\r\n5-2\r\n*-1\r\n\
        *2\r\n$3\r\n5-3\r\n*2\r\n$0\r\n\r\n$2\r\n\r\n\r\n";

    fn end(bytes: &[u8]) -> Scanned<Option<usize>> {
        FrameScanner::new().end(bytes)
    }

    #[test]
    fn entries_are_read_as_the_client_crate_reads_them() {
        let read = deliveries(READ, Inlet::LANE).unwrap();
        let value = redis::parse_redis_value(READ).unwrap();
        let expected = reply::read(value, Inlet::LANE, "XREADGROUP").unwrap();
        let shown = |deliveries: &[Delivery]| {
            let one = |one: &Delivery| (one.hold(), one.entry.fields().to_vec());
            deliveries.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(shown(&read), shown(&expected));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn lengths_of_any_number_of_digits_are_read() {
        for length in [0, 7, 10, 36, 99, 100, 141, 999, 1_000, 9_999, 10_000, 123_456] {
            let bulk = [format!("${length}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat();
            assert_eq!(end(&bulk), Ok(Some(bulk.len())), "{length}");
            assert_eq!(end(&bulk[..bulk.len() - 1]), Ok(None), "{length}");
        }
        for wire in [b"$1:\r\nabcdefgh".as_slice(), b"$12/\r\nabcdefgh", b"$1234\rxabcdefgh"] {
            assert_eq!(end(wire), Err(Malformed), "{}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn nothing_is_an_answer_too() {
        for nothing in [b"*-1\r\n".as_slice(), b"$-1\r\n", b"*0\r\n"] {
            assert!(deliveries(nothing, Inlet::STREAM).unwrap().is_empty());
            assert_eq!(end(nothing), Ok(Some(nothing.len())));
        }
    }

    #[test]
    fn an_answer_in_pieces_of_any_size_ends_where_it_ends() {
        let two = [READ, b":1\r\n"].concat();
        for piece in 1..READ.len() {
            let mut scanner = FrameScanner::new();
            let mut ends = (0..=two.len()).step_by(piece).chain([two.len()]);
            let found = ends.find_map(|length| scanner.end(&two[..length]).unwrap());
            assert_eq!(found, Some(READ.len()), "in pieces of {piece}");
        }
        for length in 0..READ.len() {
            assert_eq!(end(&READ[..length]), Ok(None));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_without_waiting_for_more() {
        for wire in [
            b"%1\r\n".as_slice(),
            b"HTTP/1.1 400",
            b"*x\r\n",
            b"*\r\n",
            b"$-2\r\n",
            b"$3\rx",
            b"$3\r\nabcd\r\n",
            b"*9999999999999\r\n",
            b"*2\r\n:1\r\n*-7\r\n",
        ] {
            assert_eq!(end(wire), Err(Malformed), "{}", String::from_utf8_lossy(wire));
        }
        assert_eq!(end(&[b'+'; LINE_MAX + 1]), Err(Malformed));
    }

    #[test]
    fn answers_to_something_else_are_malformed() {
        for wire in [
            b":1\r\n".as_slice(),
            b"+OK\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n*2\r\n$1\r\nx\r\n:1\r\n",
            b"*1\r\n*2\r\n$1\r\nx\r\n*1\r\n*2\r\n$1\r\nx\r\n*0\r\n",
            b"*1\r\n*2\r\n$1\r\nx\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*1\r\n$1\r\na\r\n",
            b"*1\r\n*2\r\n$1\r\nx\r\n*999999999\r\n",
        ] {
            let read = deliveries(wire, Inlet::STREAM);
            assert_eq!(read.err(), Some(Malformed), "{}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn an_entry_keeps_its_own_bytes_alone() {
        let mut read = deliveries(READ, Inlet::STREAM).unwrap();
        let fields = read.remove(0).entry.fields().to_vec();
        drop(read);
        let first = fields[0].1.as_ptr() as usize;
        let last = fields[3].1.as_ptr() as usize;
        assert!(last - first < 16, "all in one buffer");
    }
}
