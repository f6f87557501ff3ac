//! The rate of a group, as operators change it.

use super::error::StreamError;
use super::group::Group;
use crate::model::rate::SetRate;

impl Group {
    /// Sets the rate of the group for every process, in place of the rate in the code; `None` restores the rate in
    /// the code. Returns true if the rate was different before. The call also ends a wait that a job has asked for
    /// with [`JobError::limited`](crate::JobError::limited).
    ///
    /// ```no_run
    /// # async fn example(client: streamjobs::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use streamjobs::Rate;
    ///
    /// let group = client.stream("orders")?.group("mail")?;
    /// group.set_rate(Some("50/1s".parse::<Rate>()?.into())).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A process follows the new rate with its next request for a start. A process that is waiting, or has no rate in
    /// its code, follows it within the promote interval: half a second by default, or six intervals in an idle group.
    /// The rate lasts until it is changed, and also applies to processes that start later. A group without a limit
    /// starts all the jobs that it can.
    ///
    /// # Errors
    ///
    /// When the rate cannot be kept, when the handle is to a partition other than the first, when there is no such
    /// group, or when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the rate may or may not be set. The call can be repeated.
    pub async fn set_rate(&self, rate: Option<SetRate>) -> Result<bool, StreamError> {
        if let Some(SetRate::At(rate)) = rate {
            let stream = self.stream.name().to_string();
            rate.check().map_err(|fault| StreamError::Rate { stream, fault })?;
        }
        // The first partition has the rate for all of them.
        let Some(first) = self.parts().into_iter().next() else { return Ok(false) };
        match first.number {
            Some(1..) => {
                Err(StreamError::RateOfPartition { stream: self.stream.name().to_string() })
            }
            Some(0) | None => first.set_rate(rate).await,
        }
    }
}
