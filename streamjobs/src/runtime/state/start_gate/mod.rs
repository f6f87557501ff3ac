//! When jobs of a group may start: by its rate, and while the service that they call has asked the group to
//! wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::model::outcome::LIMITED_MAX;
use crate::runtime::state::grant::Grant;
use crate::runtime::state::lock;
use crate::store::{Queue, Rate, SetRate, StartsAsked, StartsGranted, Store, StoreError};

/// The gate of one group in this process, for all partitions of its stream.
///
/// A job that waits here occupies no slot, and its entry is not read: other processes can take it. The server
/// says when to ask again, and no request is made before.
#[derive(Debug)]
pub(crate) struct StartGate {
    store: Arc<dyn Store>,
    /// The group's queue on the first partition.
    queue: Queue,
    /// The rate in the code.
    rate: Option<Rate>,
    /// Whether there is anything to wait for. Checked before each read.
    applies: AtomicBool,
    state: Mutex<GateState>,
    /// Held while the server is asked, so that there is one request at a time.
    asking: tokio::sync::Mutex<()>,
    changed: Notify,
    claimed: Notify,
}

#[derive(Debug, Default)]
struct GateState {
    /// The rate that an operator has set.
    set: Option<SetRate>,
    /// Until when the service that the jobs call has asked the group to wait, by the server's answers: each
    /// promotion corrects it.
    limited: Option<Instant>,
    /// The time until which the group has to wait, as a job of this process was told. The server
    /// does not know it yet.
    limited_here: Option<Instant>,
    /// How often the server has told this process of a wait in another answer than a promotion's.
    told: u64,
    grant: Grant,
    /// The server grants nothing before this moment, because of the rate, or was asked in vain just now.
    opens_at: Option<Instant>,
    /// The pause after the last request, if it failed.
    failed_pause: Duration,
    /// When this process joined, by the server's answer.
    joined: u64,
    /// Whether the last start was taken for a read, not for a claim.
    was_read: bool,
}

/// What a process knew when it sent a promotion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownBefore {
    told: u64,
}

/// Starts that were taken for a read or a claim.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct TakenStarts {
    pub(crate) count: usize,
    grant: u64,
    /// The number in the grant after the last start taken.
    upto: u32,
}

impl TakenStarts {
    const NONE: Self = Self { count: 0, grant: 0, upto: 0 };
}

/// What starts are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartsFor {
    Read,
    Claim,
}

impl StartGate {
    pub(crate) fn new(store: Arc<dyn Store>, queue: Queue, rate: Option<Rate>) -> Self {
        Self {
            store,
            queue,
            rate,
            applies: AtomicBool::new(rate.is_some()),
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            claimed: Notify::new(),
        }
    }

    /// Whether jobs may have to wait for their start.
    pub(crate) fn applies(&self) -> bool {
        self.applies.load(Ordering::Relaxed)
    }

    /// Whether the group has a rate, from the code or from an operator.
    pub(crate) fn has_rate(&self) -> bool {
        self.applies() && self.has_rate_with(&lock(&self.state))
    }

    fn has_rate_with(&self, state: &GateState) -> bool {
        match state.set {
            Some(SetRate::At(_)) => true,
            Some(SetRate::Unlimited) => false,
            None => self.rate.is_some(),
        }
    }

    /// What is known before a promotion is sent; its answer is [heard](Self::heard) with it.
    pub(crate) fn before_promotion(&self) -> KnownBefore {
        KnownBefore { told: lock(&self.state).told }
    }

    /// Takes what a promotion reports about the group. Returns whether jobs have to wait that did not before.
    /// On a stream with partitions, the first partition reports it.
    ///
    /// A wait of which this process was told after the promotion was sent may be missing in its answer. So such
    /// an answer ends and shortens no wait; the next one does.
    pub(crate) fn heard(
        &self,
        on: &Queue,
        before: KnownBefore,
        set: Option<SetRate>,
        limited: Option<Duration>,
    ) -> bool {
        if *on != self.queue {
            return false;
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        let waited = self.opens_at(&state, now).is_some();
        let had_rate = self.has_rate_with(&state);
        let mut changes = false;
        if state.set != set {
            state.set = set;
            // The remaining starts were granted under another rate.
            Self::forget(&mut state);
            changes = true;
        }
        let reported = limited.map(|rest| now + rest);
        let is_current = state.told == before.told;
        let until = if is_current { reported } else { reported.max(state.limited) };
        let previous = std::mem::replace(&mut state.limited, until);
        changes |= previous.is_some() != until.is_some();
        let applies = self.has_rate_with(&state) || Self::limited_until(&state).is_some();
        self.applies.store(applies, Ordering::Relaxed);
        let waits = self.opens_at(&state, now).is_some();
        let has_rate = self.has_rate_with(&state);
        drop(state);
        if changes {
            self.changed.notify_waiters();
        }
        (waits && !waited) || (has_rate && !had_rate)
    }

    /// Records that a job of this process was told by the service that it calls to come again later: the whole
    /// group waits. The promoters tell the server.
    pub(crate) fn limit_here(&self, delay: Duration) {
        let mut state = lock(&self.state);
        let until = Instant::now() + delay.min(LIMITED_MAX);
        state.limited_here = state.limited_here.max(Some(until));
        self.applies.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Tells the server the longest wait that jobs of this process were told; from then on the server decides.
    /// Returns whether there was such a wait.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or refuses; in that case it has to be told again.
    pub(crate) async fn tell_limit(&self) -> Result<bool, StoreError> {
        let now = Instant::now();
        let untold = if self.applies() { lock(&self.state).limited_here } else { None };
        let Some(until) = untold.filter(|until| *until > now) else { return Ok(false) };
        let rest = self.store.limit_group(&self.queue, until - now).await?;
        let mut state = lock(&self.state);
        Self::told(&mut state, Instant::now() + rest);
        state.limited_here.take_if(|here| *here <= until);
        Ok(true)
    }

    fn told(state: &mut GateState, until: Instant) {
        state.limited = state.limited.max(Some(until));
        state.told += 1;
    }

    fn limited_until(state: &GateState) -> Option<Instant> {
        state.limited.max(state.limited_here)
    }

    /// When to check again; `None` means now.
    fn opens_at(&self, state: &GateState, now: Instant) -> Option<Instant> {
        let by_rate = state.opens_at.filter(|_| self.has_rate_with(state));
        Self::limited_until(state).max(by_rate).filter(|until| *until > now)
    }

    /// Whether no start can be granted now, as far as is known.
    pub(crate) fn is_shut(&self) -> bool {
        self.opens_at(&lock(&self.state), Instant::now()).is_some()
    }

    /// Waits until a start may be granted.
    ///
    /// Cancel safe: nothing is taken.
    pub(crate) async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            let Some(until) = self.opens_at(&lock(&self.state), Instant::now()) else { break };
            tokio::select! {
                () = sleep_until(until) => {}
                () = changed => {}
            }
        }
        self.end_of_limit();
    }

    /// Without a rate, nothing needs checking once the group waits no longer.
    fn end_of_limit(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.limited.take_if(|until| *until <= now);
        state.limited_here.take_if(|until| *until <= now);
        let applies = self.has_rate_with(&state) || Self::limited_until(&state).is_some();
        self.applies.store(applies, Ordering::Relaxed);
    }

    /// Leaves the next start to claims that wait, if the last start was for a read. Waits only a moment,
    /// because they may be waiting for slots instead.
    pub(crate) async fn leave_to_claims(&self) {
        let claimed = self.claimed.notified();
        if lock(&self.state).was_read {
            let _late = timeout(CLAIMS_FIRST, claimed).await;
        }
    }

    /// Takes starts whose time has come, at most `wanted`, and asks the server for more if this process has none.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or refuses; in that case no job may start, and the next request is made after a
    /// pause.
    pub(crate) async fn take(
        &self,
        wanted: usize,
        reason: StartsFor,
    ) -> Result<TakenStarts, StoreError> {
        let most = u32::try_from(wanted).unwrap_or(u32::MAX);
        let _asking = self.asking.lock().await;
        let (asked, taken) = self.take_granted(most, reason);
        if let Some(taken) = taken {
            return Ok(taken);
        }
        let set = lock(&self.state).set;
        let answer = self.ask(asked).await.inspect_err(|_| self.pause_after_failure())?;
        let answered = Instant::now();
        {
            let mut state = lock(&self.state);
            (state.joined, state.failed_pause) = (answer.joined, Duration::ZERO);
            if answer.is_limited {
                // The next promotion says whether an operator, or the server's clock, has ended it.
                Self::told(&mut state, answered + answer.wait.max(WAIT_MIN));
                return Ok(TakenStarts::NONE);
            }
            // Without a rate, the interval is zero: the rate was lifted just now.
            if answer.starts.count > 0 && answer.starts.interval.is_zero() {
                return Ok(TakenStarts { count: wanted, grant: 0, upto: 0 });
            }
            let number = state.grant.number + 1;
            state.grant = Grant { starts: answer.starts, answered, used: 0, late: 0, number };
            // If an operator has set another rate meanwhile, the wait may be that of the former one.
            if answer.starts.count == 0 && state.set != set {
                return Ok(TakenStarts::NONE);
            }
            if answer.starts.count == 0 {
                state.opens_at = Some(answered + answer.wait.max(WAIT_MIN));
                return Ok(TakenStarts::NONE);
            }
        }
        let (_, taken) = self.take_granted(most, reason);
        Ok(taken.unwrap_or(TakenStarts::NONE))
    }

    async fn ask(&self, asked: StartsAsked) -> Result<StartsGranted, StoreError> {
        self.give_late_back().await?;
        self.store.reserve_starts(&self.queue, asked).await
    }

    /// Lets all callers wait before the next request. Otherwise each partition would fail by a request of its own, and
    /// keep slots from other streams meanwhile.
    fn pause_after_failure(&self) {
        let mut state = lock(&self.state);
        state.failed_pause = (state.failed_pause * 2).clamp(FAILED_PAUSE_MIN, FAILED_PAUSE_MAX);
        state.opens_at = Some(Instant::now() + state.failed_pause);
    }

    /// Returns starts whose time went by unused, so that the next start is allowed at once and not an interval later.
    async fn give_late_back(&self) -> Result<(), StoreError> {
        let (grant, late) = {
            let mut state = lock(&self.state);
            (state.grant, std::mem::take(&mut state.grant.late))
        };
        self.return_to_server(grant, late).await
    }

    /// Returns the last starts of a grant. If the server has certainly not taken them, they are returned before
    /// this process asks for others.
    async fn return_to_server(&self, of: Grant, count: u32) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        let returned = self.store.return_starts(&self.queue, of.starts, count).await;
        if returned.as_ref().is_err_and(|error| !error.is_unconfirmed()) {
            let grant = &mut lock(&self.state).grant;
            if grant.number == of.number {
                grant.late = grant.late.max(count);
            }
        }
        returned.map(drop)
    }

    /// Takes starts that were granted before; `None` if the server must be asked.
    fn take_granted(&self, wanted: u32, reason: StartsFor) -> (StartsAsked, Option<TakenStarts>) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let asked = StartsAsked { rate: self.rate, wanted, joined: state.joined };
        let taken = |count: u32, grant: Grant| {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            Some(TakenStarts { count, grant: grant.number, upto: grant.used })
        };
        if self.opens_at(&state, now).is_some() {
            return (asked, taken(0, Grant::default()));
        }
        if !self.has_rate_with(&state) {
            return (asked, taken(wanted, Grant::default()));
        }
        let count = state.grant.take(now, wanted);
        if count == 0 && state.grant.rest() == 0 {
            return (asked, None);
        }
        state.opens_at = match state.grant.rest() {
            0 => None,
            _ => Some(state.grant.time_of(state.grant.used)),
        };
        if count > 0 {
            state.was_read = reason == StartsFor::Read;
        }
        let granted = taken(count, state.grant);
        drop(state);
        if count > 0 && reason == StartsFor::Claim {
            self.claimed.notify_waiters();
        }
        (asked, granted)
    }

    /// Puts back unused starts for the next read. Returns whether they can be used.
    ///
    /// Only the last starts taken can be put back. If other starts were taken after them, the unused starts would
    /// come too close to later starts.
    pub(crate) fn put_back(&self, taken: TakenStarts, unused: usize) -> bool {
        let unused = u32::try_from(unused).unwrap_or(u32::MAX);
        let mut state = lock(&self.state);
        let grant = &mut state.grant;
        if grant.number != taken.grant || grant.used != taken.upto {
            return false;
        }
        (grant.used, grant.late) = (grant.used.saturating_sub(unused), 0);
        state.opens_at = None;
        true
    }

    /// Returns all granted and unused starts to the server, because this process has nothing to start, or
    /// stops. Other processes can get them, unless some have asked since.
    pub(crate) async fn give_all_back(&self) -> Result<(), StoreError> {
        if !self.applies() {
            return Ok(());
        }
        let (grant, rest) = {
            let mut state = lock(&self.state);
            (state.grant, Self::forget(&mut state))
        };
        self.return_to_server(grant, rest).await
    }

    /// Gives up the rest of the grant. Returns how many starts were left.
    fn forget(state: &mut GateState) -> u32 {
        let rest = state.grant.rest() + std::mem::take(&mut state.grant.late);
        state.grant.used = state.grant.starts.count;
        state.opens_at = None;
        rest
    }
}

const WAIT_MIN: Duration = Duration::from_millis(1);
/// The pause after the first of several requests for starts that fail. It doubles with each.
const FAILED_PAUSE_MIN: Duration = Duration::from_millis(500);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(8);
/// How long a read waits for claims that take the next start.
const CLAIMS_FIRST: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
