//! Values that share blocks of memory, so that no job needs an allocation of its own, which one thread would make and
//! another thread would free. Blocks are small, because a job that runs for long keeps its whole block alive.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

/// One of the values of a block.
pub(crate) struct InBlock<T> {
    block: Arc<[T]>,
    place: usize,
}

impl<T> InBlock<T> {
    /// A value with a block of its own.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn alone(value: T) -> Self {
        Self { block: Arc::new([value]), place: 0 }
    }

    /// This many values in one block, each made by the function.
    pub(crate) fn block(length: usize, make: impl Fn() -> T) -> impl Iterator<Item = Self> {
        all((0..length).map(|_| make()).collect())
    }

    /// Puts values into blocks, in their order. A block has at most [`BLOCK_LENGTH_MAX`] values, and more than one
    /// only if together they have at most [`BLOCK_BYTES`].
    pub(crate) fn in_blocks(
        values: Vec<T>,
        bytes: impl Fn(&T) -> usize,
    ) -> impl Iterator<Item = Vec<Self>> {
        let mut values = values.into_iter().peekable();
        std::iter::from_fn(move || {
            let mut free = BLOCK_BYTES;
            let mut block = vec![values.next()?];
            free = free.saturating_sub(block.iter().map(&bytes).sum());
            while block.len() < BLOCK_LENGTH_MAX {
                let Some(value) = values.next_if(|value| bytes(value) <= free) else { break };
                free -= bytes(&value);
                block.push(value);
            }
            Some(all(block.into()).collect())
        })
    }

    /// A reference that keeps nothing alive.
    pub(crate) fn downgrade(&self) -> WeakInBlock<T> {
        WeakInBlock { block: Some(Arc::downgrade(&self.block)), place: self.place }
    }
}

/// Every value of a block.
fn all<T>(block: Arc<[T]>) -> impl Iterator<Item = InBlock<T>> {
    (0..block.len()).map(move |place| InBlock { block: Arc::clone(&block), place })
}

impl<T> Clone for InBlock<T> {
    fn clone(&self) -> Self {
        Self { block: Arc::clone(&self.block), place: self.place }
    }
}

impl<T> Deref for InBlock<T> {
    type Target = T;

    #[expect(clippy::indexing_slicing, reason = "every place is made from the length of its block")]
    fn deref(&self) -> &T {
        &self.block[self.place]
    }
}

impl<T: fmt::Debug> fmt::Debug for InBlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A reference to a value that may be gone.
#[derive(Debug)]
pub(crate) struct WeakInBlock<T> {
    block: Option<Weak<[T]>>,
    place: usize,
}

impl<T> WeakInBlock<T> {
    /// A reference to nothing.
    #[cfg(test)]
    pub(crate) fn gone() -> Self {
        Self { block: None, place: 0 }
    }

    /// The value, if any value of its block is still in use.
    pub(crate) fn upgrade(&self) -> Option<InBlock<T>> {
        let block = self.block.as_ref()?.upgrade()?;
        Some(InBlock { block, place: self.place })
    }
}

/// Adjacent values of a block.
pub(crate) struct BlockSlice<T> {
    block: Arc<[T]>,
    begin: u32,
    length: u32,
}

impl<T> BlockSlice<T> {
    /// The values of a block from a place on, as far as the block has them.
    pub(crate) fn of(block: &Arc<[T]>, begin: usize, length: usize) -> Self {
        let begin = begin.min(block.len());
        let length = length.min(block.len() - begin);
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { block: Arc::clone(block), begin: narrow(begin), length: narrow(length) }
    }
}

impl<T> From<Vec<T>> for BlockSlice<T> {
    fn from(values: Vec<T>) -> Self {
        let length = values.len();
        Self::of(&values.into(), 0, length)
    }
}

impl<T> Clone for BlockSlice<T> {
    fn clone(&self) -> Self {
        Self { block: Arc::clone(&self.block), begin: self.begin, length: self.length }
    }
}

impl<T> Deref for BlockSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let (begin, length) = (self.begin as usize, self.length as usize);
        self.block.get(begin..begin + length).unwrap_or_default()
    }
}

/// How many values a block has at most.
pub(crate) const BLOCK_LENGTH_MAX: usize = 32;
/// The largest block of several values: enough for about twenty typical entries, and small enough that one slow job may
/// keep it alive.
pub(crate) const BLOCK_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_small_and_a_large_value_is_alone() {
        let lengths = |sizes: &[usize]| {
            let blocks = InBlock::in_blocks(sizes.to_vec(), |bytes| *bytes);
            blocks.map(|block| block.iter().map(|value| **value).collect()).collect::<Vec<Vec<_>>>()
        };
        assert_eq!(lengths(&[2_000, 2_000, 96, 1]), [vec![2_000, 2_000, 96], vec![1]]);
        assert_eq!(lengths(&[1, 9_000, 2]), [vec![1], vec![9_000], vec![2]]);
        assert_eq!(lengths(&[0; 40]).iter().map(Vec::len).collect::<Vec<_>>(), [32, 8]);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn a_value_lives_as_long_as_its_block() {
        let mut block = InBlock::in_blocks(vec!["a", "b"], |_| 1).next().unwrap();
        let (first, second) = (block[0].downgrade(), block[1].downgrade());
        block.pop();
        assert_eq!(second.upgrade().as_deref(), Some(&"b"), "the first is in use");
        drop(block);
        assert!(first.upgrade().is_none() && second.upgrade().is_none());
        assert_eq!(*InBlock::alone(7), 7);
    }

    #[test]
    fn slices_of_one_block_are_apart() {
        let block = Arc::from([1, 2, 3]);
        let slice = |begin, length| BlockSlice::of(&block, begin, length).to_vec();
        assert_eq!((slice(0, 1), slice(1, 2)), (vec![1], vec![2, 3]));
        assert_eq!((slice(2, 9), slice(9, 1)), (vec![3], vec![]));
    }
}
