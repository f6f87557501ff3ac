//! Rates of groups in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::granted::{exact, micros};
use super::state::{MemoryState, milliseconds};
use crate::model::rate::{Asked, Pace, given_back};
use crate::store::Queue;
use crate::store::rates::{
    LIMITED_MAX, RateFacts, Rates, SetRate, Starts, StartsAsked, StartsGranted,
};
use crate::store::types::Result;

impl MemoryState {
    /// For how much longer no job of the group starts. If the clock was set back since, the wait
    /// begins again.
    pub(super) fn limited(&mut self, queue: &Queue) -> Option<Duration> {
        let now = self.now();
        let limited = self.record(queue).limited.as_mut()?;
        if now < limited.0 {
            *limited = (now, now + (limited.1 - limited.0));
        }
        let rest = Duration::from_millis(limited.1.saturating_sub(now));
        (!rest.is_zero()).then_some(rest)
    }

    /// The rate of a group, as far as it is known.
    pub(super) fn rate_facts(&mut self, queue: &Queue) -> RateFacts {
        let (clock, limited) = (self.now_micros(), self.limited(queue));
        let set = self.record(queue).rate;
        let upto = self.rates.get(&queue.rate_key()).copied().unwrap_or_default();
        let declared = upto.declared.map(|(rate, ..)| rate);
        let ahead = exact(upto.tat.saturating_sub(clock));
        let rate = match set {
            Some(SetRate::At(rate)) => Some(rate),
            Some(SetRate::Unlimited) => None,
            None => declared,
        };
        let next = rate.map_or(0.0, |rate| ahead - Pace::of(&rate).tolerance);
        let [next, ahead] = [next, ahead].map(|time| Duration::from_micros(micros(time)));
        RateFacts { declared, set, next, ahead, limited }
    }

    fn reserve_starts(&mut self, queue: &Queue, asked: StartsAsked) -> StartsGranted {
        let clock = self.now_micros();
        let joined = if asked.joined == 0 { clock } else { asked.joined };
        let nothing = StartsGranted { joined, ..StartsGranted::default() };
        if let Some(wait) = self.limited(queue) {
            return StartsGranted { wait, is_limited: true, ..nothing };
        }
        let set = self.record(queue).rate;
        let upto = self.rates.entry(queue.rate_key()).or_default();
        let stored = upto.declared(clock).filter(|(_, by)| *by > joined).map(|(rate, _)| rate);
        let declares = asked.rate.filter(|_| stored.is_none());
        let declared = asked.rate.and(stored).or(declares);
        let rate = match set {
            Some(SetRate::At(rate)) => Some(rate),
            Some(SetRate::Unlimited) => None,
            None => declared,
        };
        let Some(rate) = rate else {
            let starts = Starts { count: asked.wanted, ..Starts::default() };
            return StartsGranted { starts, ..nothing };
        };
        let pace = Pace::of(&rate);
        let reserved =
            pace.reserve(exact(upto.tat), Asked { now: exact(clock), wanted: asked.wanted });
        if reserved.granted == 0 {
            // Starts may have been returned since.
            upto.tat = upto.tat.min(micros(reserved.tat));
            return StartsGranted { wait: Duration::from_micros(micros(reserved.wait)), ..nothing };
        }
        upto.tat = micros(reserved.tat);
        if let Some(rate) = declares {
            upto.declared = Some((rate, joined, clock));
        }
        let starts = Starts {
            count: reserved.granted,
            offset: reserved.offset.ceil() as i64,
            interval: Duration::from_secs_f64(pace.interval / 1e6),
            slack: Duration::from_micros(micros(pace.slack)),
            tat: upto.tat,
        };
        StartsGranted { starts, ..nothing }
    }
}

#[async_trait]
impl Rates for MemoryStore {
    async fn reserve_starts(&self, queue: &Queue, asked: StartsAsked) -> Result<StartsGranted> {
        self.step("reserve_starts", |state| Ok(state.reserve_starts(queue, asked))).await
    }

    async fn return_starts(&self, queue: &Queue, starts: Starts, count: u32) -> Result<bool> {
        self.step("return_starts", |state| {
            let upto = state.rates.get_mut(&queue.rate_key());
            let Some(upto) = upto.filter(|upto| upto.tat == starts.tat) else { return Ok(false) };
            let interval = starts.interval.as_secs_f64() * 1e6;
            upto.tat = micros(given_back(exact(starts.tat), count, interval));
            Ok(true)
        })
        .await
    }

    async fn limit_group(&self, queue: &Queue, delay: Duration) -> Result<Duration> {
        self.step("limit_group", |state| {
            let delay = delay.min(LIMITED_MAX);
            let (now, rest) = (state.now(), state.limited(queue).unwrap_or_default().max(delay));
            state.record(queue).limited = Some((now, now + milliseconds(rest)));
            Ok(rest)
        })
        .await
    }

    async fn set_rate(&self, queue: &Queue, rate: Option<SetRate>) -> Result<bool> {
        self.step("set_rate", |state| {
            let record = state.record(queue);
            let waited = record.limited.take().is_some();
            let before = std::mem::replace(&mut record.rate, rate);
            Ok(before != rate || waited)
        })
        .await
    }
}
