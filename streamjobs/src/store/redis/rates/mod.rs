//! Rates of groups: for each group a hash that expires, and two fields of the group's own hash.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::store::rates::{LIMITED_MAX, Rates, SetRate, Starts, StartsAsked};
use crate::store::types::Result;
use crate::store::{Queue, StartsGranted, StoreError};

scripts! {
    LIMIT_GROUP = "limit_group";
    RESERVE_STARTS = "reserve_starts";
    RETURN_STARTS = "return_starts";
    SET_RATE = "set_rate";
}

#[async_trait]
impl Rates for RedisStore {
    async fn reserve_starts(&self, queue: &Queue, asked: StartsAsked) -> Result<StartsGranted> {
        let name = RESERVE_STARTS.name;
        let keys = [&*queue.rate_key(), &queue.group_key()];
        let rate = asked.rate.map_or_else(String::new, |rate| rate.stored());
        let value = self.run(&RESERVE_STARTS, &keys, (asked.wanted, rate, asked.joined)).await?;
        let [count, offset, interval, slack, tat, wait, joined, is_limited] =
            reply::tuple(value, name)?;
        let faulty = || StoreError::Protocol { command: name };
        let micros = |value| reply::number(value, name).map(Duration::from_micros);
        let interval = reply::text(interval, name)?.parse::<f64>().map_err(|_| faulty())?;
        let starts = Starts {
            count: u32::try_from(reply::size(&count, name)?).map_err(|_| faulty())?,
            offset: reply::text(offset, name)?.parse().map_err(|_| faulty())?,
            interval: Duration::try_from_secs_f64(interval / 1e6).map_err(|_| faulty())?,
            slack: micros(slack)?,
            tat: reply::number(tat, name)?,
        };
        Ok(StartsGranted {
            starts,
            wait: micros(wait)?,
            is_limited: reply::flag(&is_limited, name)?,
            joined: reply::number(joined, name)?,
        })
    }

    async fn return_starts(&self, queue: &Queue, starts: Starts, count: u32) -> Result<bool> {
        let interval = format!("{:.6}", starts.interval.as_secs_f64() * 1e6);
        let keys = [&*queue.rate_key()];
        let value = self.run(&RETURN_STARTS, &keys, (starts.tat, count, interval)).await?;
        reply::flag(&value, RETURN_STARTS.name)
    }

    async fn limit_group(&self, queue: &Queue, delay: Duration) -> Result<Duration> {
        let delay = milliseconds(delay.min(LIMITED_MAX));
        let value: Value = self.run(&LIMIT_GROUP, &[&queue.group_key()], delay).await?;
        reply::number(value, LIMIT_GROUP.name).map(Duration::from_millis)
    }

    async fn set_rate(&self, queue: &Queue, rate: Option<SetRate>) -> Result<bool> {
        let rate = rate.map_or_else(String::new, |rate| rate.stored());
        let value = self.run(&SET_RATE, &[&queue.group_key()], rate).await?;
        reply::flag(&value, SET_RATE.name)
    }
}
