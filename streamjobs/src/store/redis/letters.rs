//! Takes dead letters for an archive.

use redis::Cmd;

use super::acknowledge::{IDS_MAX, add_ids};
use super::connection::Link;
use super::{RedisStore, milliseconds, reply};
use crate::entry::EntryId;
use crate::store::letters::{LEASES_KEPT, Letters, TakenLetters, Taker, WITHHELD};
use crate::store::operate::ALIVE;
use crate::store::{Queue, Reply, StoreError, script};

impl Letters for RedisStore {
    fn take_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        limit: usize,
    ) -> Reply<'a, TakenLetters> {
        Box::pin(take(&self.link, queue, by, limit))
    }

    fn settle_letters<'a>(
        &'a self,
        queue: &'a Queue,
        by: &'a Taker,
        ids: &'a [EntryId],
    ) -> Reply<'a, usize> {
        Box::pin(settle(&self.link, queue, by, ids))
    }
}

async fn take(
    link: &Link,
    queue: &Queue,
    by: &Taker,
    limit: usize,
) -> Result<TakenLetters, StoreError> {
    let name = script::TAKE_LETTERS.name;
    if limit == 0 {
        return Ok(TakenLetters::default());
    }
    let kept = by.lease_time().saturating_mul(LEASES_KEPT);
    let (dead, hash) = (queue.stream.dead_key(&queue.group), queue.stream.group_key(&queue.group));
    let add = |command: &mut Cmd| {
        command.arg(by.group_name()).arg(by.consumer().as_str());
        command.arg(milliseconds(by.lease_time())).arg(limit.min(IDS_MAX));
        command.arg(&[ALIVE, WITHHELD, kept].map(milliseconds));
    };
    let value = link.script(&script::TAKE_LETTERS, &[&dead, &hash], add).await?;
    let [letters, gone] = reply::tuple(value, name)?;
    Ok(TakenLetters { letters: reply::entries(letters, name)?, gone: reply::size(&gone, name)? })
}

async fn settle(
    link: &Link,
    queue: &Queue,
    by: &Taker,
    ids: &[EntryId],
) -> Result<usize, StoreError> {
    let dead = queue.stream.dead_key(&queue.group);
    let mut settled = 0;
    for chunk in ids.chunks(IDS_MAX) {
        let add = |command: &mut Cmd| add_ids(command.arg(by.group_name()), chunk);
        let value = link.script(&script::SETTLE_LETTERS, &[&dead], add).await?;
        settled += reply::size(&value, script::SETTLE_LETTERS.name)?;
    }
    Ok(settled)
}
