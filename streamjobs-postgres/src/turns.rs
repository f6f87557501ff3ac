//! A small share of the connections, for readers that may stop waiting at any time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// Limits how many readers use a connection at once, so that the other connections stay free for
/// jobs.
pub(crate) struct Turns {
    free: Semaphore,
    /// For each reader that left in the middle of a statement, the latest time at which the server
    /// ends that statement.
    left: Mutex<Vec<Instant>>,
    statement_max: Duration,
}

/// The right to use a connection.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    permit: Option<SemaphorePermit<'a>>,
    is_asking: bool,
}

impl Turns {
    /// This many turns, for statements that the server ends after a time.
    pub(crate) fn new(number: usize, statement_max: Duration) -> Self {
        Self { free: Semaphore::new(number), left: Mutex::default(), statement_max }
    }

    /// Waits for a turn; `None` if no turn becomes free within the limit.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a turn that was not returned is free.
    pub(crate) async fn take(&self, limit: Duration) -> Option<Turn<'_>> {
        let until = Instant::now() + limit;
        loop {
            let next = self.restore();
            let wait = next.map_or(until, |next| next.min(until));
            match timeout_at(wait, self.free.acquire()).await {
                Ok(permit) => {
                    return Some(Turn { turns: self, permit: permit.ok(), is_asking: false });
                }
                Err(_) if Instant::now() >= until => return None,
                Err(_) => {}
            }
        }
    }

    /// Gives back the turns whose statements have ended by now; returns when the next statement
    /// ends.
    fn restore(&self) -> Option<Instant> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (Instant::now(), left.len());
        left.retain(|ended| *ended > now);
        self.free.add_permits(before - left.len());
        left.iter().min().copied()
    }
}

impl Turn<'_> {
    /// Notes that a statement was sent, or that it was answered.
    pub(crate) fn asks(&mut self, is_asking: bool) {
        self.is_asking = is_asking;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take().filter(|_| self.is_asking) {
            // The server does not notice that the reader is gone before the statement ends.
            permit.forget();
            let ended = Instant::now() + self.turns.statement_max;
            self.turns.left.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_free_at_once_when_its_reader_has_its_answer() {
        let turns = Turns::new(1, 9 * SECOND);
        let mut turn = turns.take(SECOND).await.unwrap();
        assert!(turns.take(SECOND).await.is_none());
        turn.asks(true);
        turn.asks(false);
        drop(turn);
        assert!(turns.take(Duration::ZERO).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_whose_reader_left_is_free_when_the_server_has_ended_its_statement() {
        let turns = Turns::new(2, 9 * SECOND);
        let start = Instant::now();
        for _ in 0..2 {
            turns.take(SECOND).await.unwrap().asks(true);
        }
        assert!(turns.take(SECOND).await.is_none());
        let _one = turns.take(20 * SECOND).await.unwrap();
        assert_eq!(start.elapsed(), 9 * SECOND);
        let _other = turns.take(Duration::ZERO).await.unwrap();
        assert!(turns.take(SECOND).await.is_none(), "there are two and no more");
    }
}
