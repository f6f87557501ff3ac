//! What a client knows about the primary, from all sentinels that it has asked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::address::Address;
use super::super::server::Tenure;
use super::ask::Named;
use super::url::SentinelUrl;

/// What is known about one primary.
pub(super) struct Known {
    pub(super) url: SentinelUrl,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The sentinel that answered last: its index among the seeds.
    first: usize,
    primary: Option<Primary>,
}

/// The server that was the primary at the last connect, or became it since.
struct Primary {
    named: Named,
    /// Cancelled when another server takes its place. There is more than one token if connections
    /// were opened at the same time, before the server was known.
    over: Vec<CancellationToken>,
}

/// What an answer means, compared with what is known.
pub(super) enum Judged {
    /// The server is the known primary.
    Same(Candidate),
    /// The server became the primary later, or no primary is known.
    Newer,
    /// An epoch is missing.
    Unclear,
    /// It is another server, without a newer epoch.
    Older,
}

/// A server that may be the primary, and what ends its tenure.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) named: Named,
    pub(super) over: CancellationToken,
    pub(super) is_known: bool,
}

impl Candidate {
    pub(super) fn new(named: Named) -> Self {
        Self { named, over: CancellationToken::new(), is_known: false }
    }

    pub(super) fn tenure(&self) -> Tenure {
        Tenure::new(self.over.clone())
    }
}

impl Known {
    pub(super) fn new(url: SentinelUrl) -> Self {
        Self { url, state: Mutex::default() }
    }

    /// The sentinels in the order in which to ask them: the one that answered last comes first.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &Address)> {
        let first = self.lock().first;
        let seeds = self.url.seeds.iter().enumerate();
        seeds.clone().skip(first).chain(seeds.take(first))
    }

    pub(super) fn judge(&self, named: &Named) -> Judged {
        let state = self.lock();
        let Some(primary) = &state.primary else { return Judged::Newer };
        if primary.named.is_at(named) {
            Judged::Same(primary.candidate())
        } else if primary.named.is_older_than(named) {
            Judged::Newer
        } else if primary.named.epoch.is_none() || named.epoch.is_none() {
            Judged::Unclear
        } else {
            Judged::Older
        }
    }

    /// The known primary.
    pub(super) fn primary(&self) -> Option<Candidate> {
        self.lock().primary.as_ref().map(Primary::candidate)
    }

    /// Records the server as the primary; connections to the former one must then be given up. Fails
    /// if a newer primary is known by now, unless `even_if_older` is set.
    pub(super) fn commit(&self, candidate: &Candidate, even_if_older: bool) -> bool {
        let Candidate { named, over, is_known } = candidate;
        let mut state = self.lock();
        if over.is_cancelled() {
            return false;
        }
        if let Some(primary) = &mut state.primary {
            if primary.named.is_at(named) {
                primary.named.epoch = primary.named.epoch.max(named.epoch);
                if !is_known {
                    primary.over.push(over.clone());
                }
                return true;
            }
            if named.is_older_than(&primary.named) && !even_if_older {
                return false;
            }
            primary.over.iter().for_each(CancellationToken::cancel);
        }
        let primary = Primary { named: named.clone(), over: vec![over.clone()] };
        let former = state.primary.replace(primary);
        drop(state);
        if let Some(Primary { named: former, .. }) = former {
            let name = &self.url.name;
            warn!(name, %former, primary = %named, "another server became the primary");
        }
        true
    }

    /// Asks this sentinel first from now on.
    pub(super) fn prefer(&self, index: usize) {
        self.lock().first = index;
    }

    /// Asks the sentinel after this one first from now on.
    pub(super) fn pass_over(&self, index: usize) {
        self.lock().first = (index + 1) % self.url.seeds.len();
    }

    /// Continues with the sentinel after this one, unless another one is asked first by now.
    pub(super) fn lose(&self, index: usize) {
        if self.lock().first == index {
            self.pass_over(index);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Primary {
    fn candidate(&self) -> Candidate {
        let over = self.over.first().cloned().unwrap_or_default();
        Candidate { named: self.named.clone(), over, is_known: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(port: u16, epoch: u64) -> Named {
        Named { host: "h".to_owned(), port, epoch: Some(epoch) }
    }

    #[test]
    fn another_primary_ends_the_tenure_of_the_one_before() {
        let candidate = |port, epoch| Candidate::new(named(port, epoch));
        let known = Known::new(SentinelUrl::new("a,b/jobs").unwrap());
        let (first, same) = (candidate(1, 1), candidate(1, 2));
        assert!(known.commit(&first, false) && known.commit(&same, false));
        assert!(known.commit(&known.primary().unwrap(), false));
        let (first, same) = (first.tenure().connection(), same.tenure().connection());
        assert!(!known.commit(&candidate(2, 1), false), "it is older");
        assert!(!first.is_cancelled() && !same.is_cancelled());
        let before = known.primary().unwrap();
        let second = candidate(2, 3);
        assert!(known.commit(&second, false));
        let second = second.tenure().connection();
        assert!(first.is_cancelled() && same.is_cancelled() && !second.is_cancelled());
        assert!(!known.commit(&before, true), "its tenure is over");
        let made_anew = candidate(3, 0);
        assert!(known.commit(&made_anew, true));
        assert!(second.is_cancelled() && !made_anew.tenure().connection().is_cancelled());
    }

    #[test]
    fn an_answer_is_newer_only_if_its_epoch_says_so() {
        let known = Known::new(SentinelUrl::new("a,b/jobs").unwrap());
        assert!(matches!(known.judge(&named(1, 1)), Judged::Newer), "nothing is known");
        assert!(known.primary().is_none(), "an answer alone changes nothing");
        assert!(known.commit(&Candidate::new(named(1, 2)), false));
        assert!(matches!(known.judge(&named(1, 1)), Judged::Same(_)));
        assert!(matches!(known.judge(&named(2, 1)), Judged::Older));
        assert!(matches!(known.judge(&named(2, 2)), Judged::Older));
        assert!(matches!(known.judge(&named(2, 3)), Judged::Newer));
        let without = Named { epoch: None, ..named(2, 0) };
        assert!(matches!(known.judge(&without), Judged::Unclear));
        assert!(known.commit(&Candidate::new(without), false));
        assert!(matches!(known.judge(&named(1, 9)), Judged::Unclear));
    }

    #[test]
    fn the_sentinel_that_answered_last_is_the_first() {
        let known = Known::new(SentinelUrl::new("a,b,c/jobs").unwrap());
        let order = || known.in_turn().map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        known.prefer(2);
        assert_eq!(order(), [2, 0, 1]);
        known.pass_over(2);
        assert_eq!(order(), [0, 1, 2]);
        known.pass_over(0);
        assert_eq!(order(), [1, 2, 0]);
        known.lose(0);
        assert_eq!(order(), [1, 2, 0], "it was not the first");
        known.lose(1);
        assert_eq!(order(), [2, 0, 1]);
    }
}
