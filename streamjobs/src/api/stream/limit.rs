//! The limit of a group over all processes, as operators change it.

use std::num::NonZeroU32;

use super::error::StreamError;
use super::group::Group;
use crate::insight::view::ConsumerInfo;
use crate::model::limit::SetLimit;

impl Group {
    /// Sets the number of the group's `concurrency_total` or `concurrency_per_key` for every process, in place of the
    /// number in the code. Returns true if the number that was set before was another one, or if none was set, in any
    /// partition.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::num::NonZeroU32;
    ///
    /// let group = client.stream("payments")?.group("statements")?;
    /// let eight = NonZeroU32::new(8).ok_or("zero")?;
    /// group.set_limit(eight, "alice", "the printer has a second tray").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The number applies from each process's next request on, so at once. A lower number stops no running job: fewer
    /// jobs start until enough have ended. With a higher number, waiting jobs start within the processes' promote
    /// interval, half a second by default, or six intervals in an idle group. It lasts until it is changed or
    /// [reset](Self::reset_limit), applies to processes that start later, and is stored with who set it and why:
    /// [`GroupInfo::limit`](super::GroupInfo::limit) has all of it.
    ///
    /// The option is the one in the code of the live process that started last, among those with a limit over all
    /// processes. If the code gets the other option
    /// later, the number no longer applies. Order per key and fair shares have no number. A handle of one partition
    /// sets the number there alone.
    ///
    /// # Errors
    ///
    /// When that process has neither of the two options, or is of an older version, when there is no such process, when `by` is empty or has more than 200 bytes, when `why` is
    /// empty or has more than 1,000, when there is no such group, or when the server cannot be reached or refuses. In
    /// the last case, some partitions may have the new number.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the number may or may not be set, in each partition. The call can be repeated.
    pub async fn set_limit(
        &self,
        limit: NonZeroU32,
        by: &str,
        why: &str,
    ) -> Result<bool, StreamError> {
        let names = || (self.stream.name().to_string(), self.name.to_string());
        let fits = |text: &str, most| (1..=most).contains(&text.len());
        if !fits(by, BY_BYTES_MAX) || !fits(why, WHY_BYTES_MAX) {
            let (stream, group) = names();
            return Err(StreamError::LimitReason { stream, group });
        }
        let consumers = self.consumers().await?;
        let latest = ConsumerInfo::latest_with_limit(&consumers);
        let Some(code) = latest.and_then(|consumer| consumer.limit) else {
            let (stream, group) = names();
            return Err(StreamError::NoLimit { stream, group });
        };
        let (by, why) = (by.to_owned(), why.to_owned());
        // The server notes the time.
        let set = SetLimit { option: code.option, limit, from: code.limit, by, why, at: 0 };
        let set = &set;
        let changed = self.each(|part| async move { part.set_limit(Some(set)).await });
        Ok(changed.await?.contains(&true))
    }

    /// Restores the number of the group's limit in the code, in every process. Returns true if another one was set, in
    /// any partition. It takes effect as [`set_limit`](Self::set_limit) does.
    ///
    /// # Errors
    ///
    /// When there is no such group, or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// As [`set_limit`](Self::set_limit).
    pub async fn reset_limit(&self) -> Result<bool, StreamError> {
        let changed = self.each(|part| async move { part.set_limit(None).await });
        Ok(changed.await?.contains(&true))
    }
}

const BY_BYTES_MAX: usize = 200;
const WHY_BYTES_MAX: usize = 1_000;
