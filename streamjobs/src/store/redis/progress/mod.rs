//! The progress of running jobs: a hash beside the stream.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::script::scripts;
use super::{RedisStore, milliseconds, reply};
use crate::model::entry::Inlet;
use crate::model::name::ConsumerName;
use crate::model::progress::{Progress, Reported};
use crate::store::inspect::PendingEntry;
use crate::store::progress::{FIELDS_MAX, KEPT_HOURS, NewProgress, field, of_attempt};
use crate::store::types::Result;
use crate::store::{JobProgress, Queue};

scripts! {
    READ_PROGRESS = "read_progress";
    WRITE_PROGRESS = "write_progress";
}

#[async_trait]
impl JobProgress for RedisStore {
    async fn write_progress(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        progress: &[NewProgress],
    ) -> Result<()> {
        let [stream, lane] = queue.keys();
        let keys = [&*stream, &lane, &queue.progress_key()];
        let keep = milliseconds(Duration::from_secs(KEPT_HOURS * 60 * 60));
        let add = |command: &mut Cmd| {
            command.arg(queue.group.as_str()).arg(consumer.as_str()).arg(keep).arg(FIELDS_MAX);
            for (hold, reported) in progress {
                command.arg(hold.inlet.as_str()).arg(hold.id.to_string()).arg(hold.delivery_count);
                command.arg(reported.as_ref().map(Reported::line).unwrap_or_default());
            }
        };
        let value = self.script(&WRITE_PROGRESS, &keys, add).await?;
        reply::number(value, WRITE_PROGRESS.name).map(drop)
    }

    async fn read_progress(
        &self,
        queue: &Queue,
        inlet: Inlet,
        rows: &[PendingEntry],
    ) -> Result<Vec<Option<Progress>>> {
        let name = READ_PROGRESS.name;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let fields = rows.iter().map(|row| field(inlet, row.id)).collect::<Vec<_>>();
        let value = self.run(&READ_PROGRESS, &[&queue.progress_key()], &fields).await?;
        let mut items = reply::items(value, name)?.into_iter();
        let now = reply::number(reply::next(&mut items, name)?, name)?;
        let stored = items.zip(rows).map(|(stored, row)| match stored {
            Value::Nil => Ok(None),
            stored => Ok(of_attempt(&reply::lossy(stored, name)?, now, row)),
        });
        stored.collect()
    }
}
