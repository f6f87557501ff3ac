//! Marks of cancelled jobs: a sorted set beside the stream.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::model::name::{EventId, GroupName, StreamName};
use crate::store::cancels::{KEPT_DAYS, MARKS_MAX, marks_of, member};
use crate::store::types::Result;
use crate::store::{CancelMarks, Cancels, StoreError};

scripts! {
    CANCEL = "cancel";
    CANCEL_MARKS = "cancel_marks";
    UNCANCEL = "uncancel";
}

#[async_trait]
impl Cancels for RedisStore {
    async fn cancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<u64> {
        let keep = milliseconds(Duration::from_secs(KEPT_DAYS * 24 * 60 * 60));
        let arguments = (member(group, event_id), keep, MARKS_MAX);
        let value = self.run(&CANCEL, &[&stream.cancelled_key()], arguments).await?;
        reply::number(value, CANCEL.name)
    }

    async fn uncancel(
        &self,
        stream: &StreamName,
        group: Option<&GroupName>,
        event_id: &EventId,
    ) -> Result<bool> {
        let keys = [&*stream.cancelled_key()];
        let value = self.run(&UNCANCEL, &keys, member(group, event_id)).await?;
        reply::flag(&value, UNCANCEL.name)
    }

    async fn cancel_marks(
        &self,
        stream: &StreamName,
        after: u64,
        limit: usize,
    ) -> Result<CancelMarks> {
        let keys = [&*stream.cancelled_key()];
        let value = self.run(&CANCEL_MARKS, &keys, (after, limit)).await?;
        let members = reply::items(value, CANCEL_MARKS.name)?;
        let members = members.chunks_exact(2).map(numbered).collect::<Result<Vec<_>>>()?;
        Ok(marks_of(members, limit))
    }
}

/// A member and its number.
fn numbered(pair: &[Value]) -> Result<(String, u64)> {
    let name = CANCEL_MARKS.name;
    let [member, number] = pair else { return Err(StoreError::Protocol { command: name }) };
    let number = reply::text(number.clone(), name)?.parse::<f64>();
    // Another client can have set any number. A number that is no time cancels no job.
    let number = number.map_or(0, |number| number.max(0.0) as u64);
    Ok((reply::lossy(member.clone(), name)?, number))
}
