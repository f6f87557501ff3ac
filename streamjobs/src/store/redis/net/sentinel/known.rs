//! What a client knows of the primary, from all sentinels that it has asked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::super::address::Address;
use super::super::server::Tenure;
use super::ask::Named;
use super::url::SentinelUrl;

/// What is known of one primary.
pub(super) struct Known {
    pub(super) url: SentinelUrl,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The sentinel that answered last: its place among the seeds.
    first: usize,
    primary: Option<Primary>,
}

/// The server that was named last.
struct Primary {
    named: Named,
    /// Cancelled when another server takes its place.
    over: CancellationToken,
}

impl Known {
    pub(super) fn new(url: SentinelUrl) -> Self {
        Self { url, state: Mutex::default() }
    }

    /// The sentinels, the one that answered last first.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &Address)> {
        let first = self.lock().first;
        let seeds = self.url.seeds.iter().enumerate();
        seeds.clone().skip(first).chain(seeds.take(first))
    }

    /// Takes an answer over: if it names another server than before, the connections to that one
    /// are to be left. Returns how long the named one may be used, or `None` if the answer is older than
    /// what is known already.
    pub(super) fn note(&self, index: usize, named: &Named, even_if_older: bool) -> Option<Tenure> {
        let mut state = self.lock();
        let known = state.primary.as_mut();
        if let Some(primary) = known {
            if primary.named.is_at(named) {
                primary.named.epoch = primary.named.epoch.max(named.epoch);
                let tenure = Tenure::new(primary.over.clone());
                state.first = index;
                return Some(tenure);
            }
            if named.is_older_than(&primary.named) && !even_if_older {
                return None;
            }
            primary.over.cancel();
        }
        let over = CancellationToken::new();
        state.primary = Some(Primary { named: named.clone(), over: over.clone() });
        state.first = index;
        Some(Tenure::new(over))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_primary_ends_the_tenure_of_the_one_before() {
        let named = |port, epoch| Named { host: "h".to_owned(), port, epoch: Some(epoch) };
        let known = Known::new(SentinelUrl::new("a,b/jobs").unwrap());
        let first = known.note(0, &named(1, 1), false).unwrap().connection();
        let same = known.note(0, &named(1, 2), false).unwrap().connection();
        assert!(!first.is_cancelled() && !same.is_cancelled());
        assert!(known.note(1, &named(2, 1), false).is_none(), "it is older");
        assert!(!first.is_cancelled());
        let second = known.note(1, &named(2, 3), false).unwrap().connection();
        assert!(first.is_cancelled() && same.is_cancelled() && !second.is_cancelled());
        let made_anew = known.note(0, &named(3, 0), true).unwrap().connection();
        assert!(second.is_cancelled() && !made_anew.is_cancelled());
    }

    #[test]
    fn the_sentinel_that_answered_last_is_the_first() {
        let known = Known::new(SentinelUrl::new("a,b,c/jobs").unwrap());
        let order = || known.in_turn().map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        let named = Named { host: "h".to_owned(), port: 1, epoch: None };
        known.note(2, &named, false).unwrap();
        assert_eq!(order(), [2, 0, 1]);
    }
}
