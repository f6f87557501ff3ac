//! Trimming and deleting a stream.

use super::error::StreamError;
use super::handle::Stream;
use super::part::GroupPart;
use crate::api::parts::{Part, read_all, together};
use crate::insight::merge;
use crate::insight::view::GroupInfo;
use crate::model::name::GroupName;
use crate::store::StoreError;
use crate::store::admin::{Cut, Obstacle, Trim, Trimmed, Unfinished};

impl Stream {
    /// Trims the stream in whole nodes of about a hundred entries, which is cheap for the server: up to one node more
    /// than requested is kept.
    ///
    /// With [`Unfinished::Keep`], entries that a group has not acknowledged stay, and the result
    /// names that group. One call removes at most 100,000 entries and says whether there is more.
    ///
    /// On a stream with partitions, each is trimmed on its own, as by retention: with [`Cut::Length`] each keeps that
    /// many entries. The figures of the result are sums.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the entries may or may not be removed.
    pub async fn trim(&self, cut: Cut, unfinished: Unfinished) -> Result<Trimmed, StreamError> {
        self.trim_with(Trim { cut, exact: false, unfinished }).await
    }

    /// Trims the stream exactly, which is much more expensive than [`trim`](Self::trim). One call with
    /// [`Cut::Length`] and [`Unfinished::Keep`] removes at most 1,000 entries of each partition.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the entries may or may not be removed.
    pub async fn trim_exactly(
        &self,
        cut: Cut,
        unfinished: Unfinished,
    ) -> Result<Trimmed, StreamError> {
        self.trim_with(Trim { cut, exact: true, unfinished }).await
    }

    /// What [`trim_exactly`](Self::trim_exactly) would do if it were repeated until nothing is left to remove;
    /// nothing is changed. [`trim`](Self::trim) would remove up to one node less. At most 10,000 entries or 4 MiB of
    /// each partition are examined, and `more` says whether there may be more to remove.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn check_trim(
        &self,
        cut: Cut,
        unfinished: Unfinished,
    ) -> Result<Trimmed, StreamError> {
        let trim = Trim { cut, exact: true, unfinished };
        let check = async |part: &Part| {
            let checked = self.store.check_trim(&part.stream, trim).await;
            checked.map_err(|error| StreamError::server(&part.stream, "read", error))
        };
        Ok(merge::trimmed(read_all(self.parts.iter().map(check).collect()).await?))
    }

    async fn trim_with(&self, trim: Trim) -> Result<Trimmed, StreamError> {
        let trim = async |part: &Part| {
            let trimmed = self.store.trim(&part.stream, trim).await;
            trimmed.map_err(|error| StreamError::server(&part.stream, "trim", error))
        };
        let trimmed = together(self.parts.iter().map(trim).collect()).await;
        Ok(merge::trimmed(trimmed.into_iter().collect::<Result<Vec<_>, _>>()?))
    }

    /// Deletes the stream with all its groups, their retries and their dead letters; true if it
    /// existed. On a stream with partitions, all partitions are deleted, and then the number of
    /// partitions that the server stores. Clients that still run keep their number, and the next
    /// client that connects may store another number.
    ///
    /// With [`Unfinished::Keep`], the deletion is refused if there is unfinished work or a dead
    /// letter; with [`Unfinished::Lose`] both are deleted. Stop the processes of its groups first.
    ///
    /// # Errors
    ///
    /// When there is unfinished work or a live process, when the server has more partitions than this client was told
    /// of, or when it cannot be reached or refuses. In these cases some groups and partitions may already be deleted;
    /// calling again deletes the rest.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any part may or may not be deleted.
    pub async fn delete(&self, unfinished: Unfinished) -> Result<bool, StreamError> {
        let is_spread = self.parts.count() > 1;
        self.has_all_partitions().await?;
        let checks = self.parts.iter().map(|part| self.deletable(part, unfinished, is_spread));
        let groups = read_all(checks.collect()).await?;
        let deletions = self.parts.iter().zip(groups).map(async |(part, groups)| match groups {
            Some(groups) => self.delete_part(part, &groups, unfinished).await,
            None => Ok(false),
        });
        let deleted = together(deletions.collect()).await;
        let deleted = deleted.into_iter().collect::<Result<Vec<_>, _>>()?;
        if is_spread {
            // A partition that was added meanwhile would be left behind without a trace.
            self.has_all_partitions().await?;
            let forgotten = self.store.forget_partitions(self.name()).await;
            forgotten.map_err(|error| StreamError::server(self.name(), "delete", error))?;
        }
        Ok(deleted.contains(&true))
    }

    /// Refuses if the server has more partitions than this handle, because the others would be left behind unnoticed.
    /// A handle to a single partition covers only that partition.
    async fn has_all_partitions(&self) -> Result<(), StreamError> {
        if let [Part { number: Some(_), .. }] = self.parts.iter().as_slice() {
            return Ok(());
        }
        let known = self.parts.count();
        let stored = self.store.partitions(self.name(), 0).await;
        let stored = stored.map_err(|error| StreamError::server(self.name(), "delete", error))?;
        if stored > known {
            let stream = self.name().to_string();
            return Err(StreamError::MorePartitions { stream, known, stored });
        }
        Ok(())
    }

    /// The groups of a partition, unless something refuses its deletion; `None` if it does not exist.
    ///
    /// On a stream with one partition, only dead letters need a check: the removal of a group refuses the rest by
    /// itself.
    async fn deletable(
        &self,
        part: &Part,
        unfinished: Unfinished,
        is_spread: bool,
    ) -> Result<Option<Vec<GroupPart>>, StreamError> {
        let groups = match self.group_names_of(part).await {
            Err(StreamError::Missing { .. }) => return Ok(None),
            groups => groups?,
        };
        let groups = groups.into_iter().map(|group| GroupPart::new(&self.store, part, group));
        let groups = groups.collect::<Vec<_>>();
        if unfinished == Unfinished::Keep {
            let infos = self.groups_of(part).await?;
            infos.iter().try_for_each(|info| no_dead_letters(part, info))?;
        }
        if is_spread {
            for group in &groups {
                match group.check_destroy(unfinished).await {
                    // The group was removed meanwhile.
                    Ok(()) | Err(StreamError::GroupMissing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some(groups))
    }

    async fn delete_part(
        &self,
        part: &Part,
        groups: &[GroupPart],
        unfinished: Unfinished,
    ) -> Result<bool, StreamError> {
        for group in groups {
            match self.store.destroy_group(&group.queue, unfinished).await {
                Ok(permitted) => group.permitted(permitted)?,
                Err(StoreError::GroupMissing) => {}
                Err(error) => return Err(StreamError::server(&part.stream, "delete", error)),
            }
        }
        let names = groups.iter().map(|group| group.queue.group.clone());
        let names = names.collect::<Vec<GroupName>>();
        let deleted = self.store.delete_stream(&part.stream, &names).await;
        deleted.map_err(|error| StreamError::server(&part.stream, "delete", error))
    }
}

fn no_dead_letters(part: &Part, group: &GroupInfo) -> Result<(), StreamError> {
    let Some(dead_letters) = group.dead_letters.filter(|letters| *letters > 0) else {
        return Ok(());
    };
    let obstacle = Obstacle::Unfinished {
        group: group.group.clone(),
        pending: 0,
        undelivered: false,
        retrying: 0,
        dead_letters,
    };
    Err(StreamError::refused(part.stream.as_str(), obstacle))
}
