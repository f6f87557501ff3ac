//! What a group did over hours and days.

use super::error::StreamError;
use super::group::Group;
use super::part::GroupPart;
use crate::model::trend::{Trend, TrendRange};

impl Group {
    /// What the group did over the last 6 hours in steps of a minute, or over the last 7 days in steps of 15 minutes:
    /// jobs that were done, attempts that failed, how many entries waited and for how long, and how long jobs waited
    /// and ran, with percentiles.
    ///
    /// Processes of the group note these figures every 15 seconds, by the server's clock, while they have something
    /// to note; see [`RuntimeBuilder::trends`](crate::RuntimeBuilder::trends). So events of these seconds can be
    /// counted in the next step, the last 15 seconds of a process that died can be missing, and a note whose answer
    /// was lost is counted if the server had received it. Steps in which no process noted anything are left out, and
    /// so are all steps of a group that does not exist. Jobs of processes of an earlier version are not included.
    ///
    /// It sends one request to each partition, which answers with 360 or 672 steps at most.
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::stream::TrendRange;
    ///
    /// let billing = client.stream("orders")?.group("billing")?;
    /// for point in billing.trend(TrendRange::SixHours).await?.points {
    ///     println!("{} done, 95 % within {:?}", point.done, point.run_time.percentile(0.95));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn trend(&self, range: TrendRange) -> Result<Trend, StreamError> {
        let read = |part: GroupPart| async move {
            let steps = part.store.trend(&part.queue, range).await;
            steps.map_err(|error| part.failed("read the trend of a group of", error))
        };
        Ok(Trend::new(range, self.read(read).await?))
    }
}
