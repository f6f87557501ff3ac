//! Rows of several partitions in one order, reading only as much of each as is needed.

use std::collections::{BTreeSet, VecDeque};

use crate::api::parts::read_all;

/// Rows of one partition, in their order.
pub(super) trait Rows: Send {
    type Row: Send;
    /// The key by which the rows of all partitions are ordered. Rows with the same key come in the order of
    /// partitions.
    type Key: Ord + Copy + Send;
    type Error: Send;

    /// The next rows.
    fn read(
        &mut self,
        limit: usize,
    ) -> impl Future<Output = Result<Chunk<Self::Row>, Self::Error>> + Send;

    fn key(row: &Self::Row) -> Self::Key;

    /// Whether an error says that this partition has no such rows, though other partitions may have
    /// some.
    fn is_absence(error: &Self::Error) -> bool;
}

/// What one request has read.
#[derive(Debug)]
pub(super) struct Chunk<T> {
    pub(super) rows: Vec<T>,
    /// Whether there may be more.
    pub(super) has_more: bool,
}

/// In which direction rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    /// Everything in reverse, the order of partitions included.
    NewestFirst,
}

/// The rows of several partitions in one order.
pub(super) struct Merged<R: Rows> {
    inputs: Vec<Input<R>>,
    order: Order,
    /// The next row of each input that has one.
    heads: BTreeSet<(R::Key, usize)>,
    /// An input with no rows left in memory, though its partition may have more: until they are
    /// read, the next row is not known.
    short: Option<usize>,
    chunk_max: usize,
}

struct Input<R: Rows> {
    rows: R,
    ready: VecDeque<R::Row>,
    has_more: bool,
    /// Whether the last request has read less than it asked for, because the rows are large.
    ended_early: bool,
    absence: Option<R::Error>,
    chunk: usize,
}

impl<R: Rows> Merged<R> {
    /// For pages of this many rows. With one partition, a whole page is read at once.
    pub(super) fn for_page(partitions: Vec<R>, order: Order, limit: usize) -> Self {
        let share = (2 * limit).div_ceil(partitions.len().max(1));
        Self::new(partitions, order, share.clamp(CHUNK_MIN.min(limit), limit), limit)
    }

    /// For all rows, with at most this many in memory, but at least a few of each partition.
    pub(super) fn for_all(partitions: Vec<R>, chunk_max: usize, rows_max: usize) -> Self {
        let share = rows_max / partitions.len().max(1);
        let chunk = share.clamp(CHUNK_MIN, chunk_max);
        Self::new(partitions, Order::OldestFirst, chunk, chunk)
    }

    fn new(partitions: Vec<R>, order: Order, chunk: usize, chunk_max: usize) -> Self {
        let input = |rows| {
            let ready = VecDeque::new();
            Input { rows, ready, has_more: true, ended_early: false, absence: None, chunk }
        };
        let inputs = partitions.into_iter().map(input).collect();
        Self { inputs, order, heads: BTreeSet::new(), short: Some(0), chunk_max }
    }

    /// The next row, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<R::Row>, R::Error> {
        if self.short.is_some() {
            self.fill().await?;
        }
        Ok(self.take())
    }

    /// The rows of a page, and whether there may be more. The page ends early where rows are large.
    pub(super) async fn page(mut self, limit: usize) -> Result<(Vec<R::Row>, bool), R::Error> {
        self.fill().await?;
        let mut page = Vec::new();
        while page.len() < limit {
            if let Some(input) = self.short.and_then(|short| self.inputs.get(short)) {
                if input.ended_early {
                    break;
                }
                self.fill().await?;
            }
            let Some(row) = self.take() else { break };
            page.push(row);
        }
        let has_more = self.inputs.iter().any(|input| input.has_more || !input.ready.is_empty());
        Ok((page, has_more))
    }

    fn take(&mut self) -> Option<R::Row> {
        let (_, place) = match self.order {
            Order::OldestFirst => self.heads.pop_first(),
            Order::NewestFirst => self.heads.pop_last(),
        }?;
        let input = self.inputs.get_mut(place)?;
        let row = input.ready.pop_front();
        match input.ready.front() {
            Some(next) => {
                self.heads.insert((R::key(next), place));
            }
            None if input.has_more => self.short = Some(place),
            None => {}
        }
        row
    }

    /// Reads more of each partition of which little is left, so that many partitions are read
    /// together.
    async fn fill(&mut self) -> Result<(), R::Error> {
        let wanting = self.inputs.iter_mut().filter(|input| input.wants_more());
        let requests = wanting.map(|input| input.fill(self.chunk_max)).collect();
        read_all(requests).await?;
        if self.inputs.iter().all(|input| input.absence.is_some()) {
            let absence = self.inputs.first_mut().and_then(|input| input.absence.take());
            return absence.map_or(Ok(()), Err);
        }
        self.short = None;
        for (place, input) in self.inputs.iter().enumerate() {
            match input.ready.front() {
                Some(row) => {
                    self.heads.insert((R::key(row), place));
                }
                None if input.has_more => self.short = Some(place),
                None => {}
            }
        }
        Ok(())
    }
}

impl<R: Rows> Input<R> {
    fn wants_more(&self) -> bool {
        self.has_more && self.ready.len() * 2 <= self.chunk
    }

    async fn fill(&mut self, chunk_max: usize) -> Result<(), R::Error> {
        // An answer that skipped all of its rows has none, and says that there are more.
        loop {
            let chunk = match self.rows.read(self.chunk).await {
                Err(absence) if R::is_absence(&absence) => {
                    self.has_more = false;
                    self.absence = Some(absence);
                    return Ok(());
                }
                chunk => chunk?,
            };
            self.has_more = chunk.has_more;
            self.ended_early = chunk.has_more && chunk.rows.len() < self.chunk;
            self.chunk = self.chunk.saturating_mul(2).min(chunk_max);
            self.ready.extend(chunk.rows);
            if !self.ready.is_empty() || !self.has_more {
                return Ok(());
            }
        }
    }
}

/// Fewer rows of a partition than this are not worth a request.
const CHUNK_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Numbers of one partition, with the numbers of requests.
    struct Numbers {
        left: VecDeque<u32>,
        partition: u16,
        requests: usize,
        /// The most numbers in one answer.
        most: usize,
    }

    impl Rows for Numbers {
        type Row = (u32, u16);
        type Key = u32;
        type Error = Infallible;

        async fn read(&mut self, limit: usize) -> Result<Chunk<(u32, u16)>, Infallible> {
            self.requests += 1;
            let rows = self.left.drain(..limit.min(self.most).min(self.left.len()));
            let rows = rows.map(|number| (number, self.partition)).collect();
            Ok(Chunk { rows, has_more: !self.left.is_empty() })
        }

        fn key(row: &(u32, u16)) -> u32 {
            row.0
        }

        fn is_absence(_: &Infallible) -> bool {
            false
        }
    }

    fn numbers(partitions: &[&[u32]], most: usize) -> Vec<Numbers> {
        let numbers = |(left, partition): (&&[u32], u16)| Numbers {
            left: left.iter().copied().collect(),
            partition,
            requests: 0,
            most,
        };
        partitions.iter().zip(0..).map(numbers).collect()
    }

    #[tokio::test]
    async fn rows_come_in_one_order_and_equal_ones_in_that_of_partitions() {
        let inputs = numbers(&[&[1, 3, 3, 9], &[], &[1, 2, 3]], 100);
        let mut merged = Merged::for_all(inputs, 100, 1_000);
        let mut all = Vec::new();
        while let Some(row) = merged.next().await.unwrap() {
            all.push(row);
        }
        assert_eq!(all, [(1, 0), (1, 2), (2, 2), (3, 0), (3, 0), (3, 2), (9, 0)]);
        let newest = numbers(&[&[9, 3], &[3, 1]], 100);
        let (page, more) = Merged::for_page(newest, Order::NewestFirst, 9).page(9).await.unwrap();
        assert_eq!((page, more), (vec![(9, 0), (3, 1), (3, 0), (1, 1)], false));
    }

    #[tokio::test]
    async fn a_partition_that_has_everything_is_read_on_while_others_keep_their_rows() {
        let many = (0..500).collect::<Vec<_>>();
        let late = (1_000..1_500).collect::<Vec<_>>();
        let mut inputs = vec![&late[..]; 48];
        inputs[7] = &many;
        let merged = Merged::for_page(numbers(&inputs, 1_000), Order::OldestFirst, 400);
        let (page, more) = merged.page(400).await.unwrap();
        assert_eq!(page, (0..400).map(|number| (number, 7)).collect::<Vec<_>>());
        assert!(more);
    }

    #[tokio::test]
    async fn a_page_of_one_partition_is_one_request() {
        let all = (0..10).collect::<Vec<_>>();
        let mut merged = Merged::for_page(numbers(&[&all], 100), Order::OldestFirst, 5);
        merged.fill().await.unwrap();
        assert_eq!((merged.inputs[0].ready.len(), merged.inputs[0].rows.requests), (5, 1));
        let merged = Merged::for_page(numbers(&[&all], 100), Order::OldestFirst, 10);
        assert_eq!(merged.page(10).await.unwrap().0.len(), 10);
    }

    #[tokio::test]
    async fn a_page_ends_where_large_rows_end_an_answer() {
        let all = (0..100).collect::<Vec<_>>();
        let merged = Merged::for_page(numbers(&[&all, &all], 2), Order::OldestFirst, 50);
        let (page, more) = merged.page(50).await.unwrap();
        assert_eq!((page, more), (vec![(0, 0), (0, 1), (1, 0)], true));
    }
}
