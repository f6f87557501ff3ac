//! Memory for encoded events: several events of one thread share a piece of it.
//!
//! Otherwise, publishing many events would make and free a few small allocations for each. A piece is freed when all
//! events in it are gone. It is small, because one event can keep it alive.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

thread_local! {
    static PIECE: Cell<BytesMut> = Cell::default();
}

/// The bytes that this function writes.
pub(super) fn written<E>(write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<Bytes, E> {
    // The code that encodes an event can encode another event meanwhile, which then begins a piece of its own.
    let mut piece = PIECE.try_with(Cell::take).unwrap_or_default();
    if piece.capacity() < LEFT_MIN {
        piece = BytesMut::with_capacity(PIECE_BYTES);
    }
    write(&mut piece)?;
    let written = piece.split().freeze();
    // A large event gets a piece of its own.
    if written.len() <= PIECE_BYTES {
        // The thread may be about to end.
        let _ended = PIECE.try_with(|kept| kept.set(piece)).is_err();
    }
    Ok(written)
}

/// A copy of these bytes.
pub(super) fn copied(bytes: &[u8]) -> Bytes {
    let copy = |piece: &mut BytesMut| {
        piece.extend_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    };
    written(copy).unwrap_or_default()
}

/// The size of a piece: enough for about twenty typical events.
const PIECE_BYTES: usize = 4 * 1024;
/// With less than this left, the next event begins a new piece: most events fit into this much.
const LEFT_MIN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &str) -> Result<Bytes, ()> {
        written(|piece| {
            piece.extend_from_slice(of.as_bytes());
            Ok(())
        })
    }

    #[test]
    fn what_is_written_is_kept_apart_whatever_its_size() {
        let large = "x".repeat(3 * PIECE_BYTES);
        let words = ["a", "", large.as_str(), "b", "c"];
        let kept = words.repeat(200).iter().map(|word| text(word).unwrap()).collect::<Vec<_>>();
        assert!(kept.iter().zip(words.repeat(200)).all(|(kept, word)| kept == word.as_bytes()));
    }

    #[test]
    fn one_inside_of_another_and_a_failed_one_leave_no_trace() {
        let outer = written(|piece| {
            piece.extend_from_slice(b"before ");
            assert_eq!(text("inner").unwrap(), "inner");
            piece.extend_from_slice(b"after");
            Ok::<_, ()>(())
        });
        assert_eq!(outer.unwrap(), "before after");
        let failed = written(|piece| {
            piece.extend_from_slice(b"half");
            Err(())
        });
        assert!(failed.is_err());
        assert_eq!(copied(b"next"), "next");
    }
}
