//! Notes of jobs that are done.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{GroupOptions, HandlerOptions};
use crate::model::done::KeepDone;

impl GroupOptions {
    /// How long notes of jobs that are done are kept, 1 s to 7 days; by default no job is noted.
    ///
    /// [`Group::finished`](crate::stream::Group::finished) and the dashboard list them, and the page of an event says
    /// when and where its job was done. A note takes about 200 bytes on the server. Each process writes the notes of
    /// its jobs about five times a second for each partition, up to 200 in one request. A process that dies right
    /// after an acknowledgement leaves no note of its job. See `docs/finished.md`.
    pub fn keep_done(mut self, time: Duration) -> Self {
        self.options.keep_done = Some(time);
        self
    }

    /// How many notes of jobs that are done are kept for each group and partition, 10,000 by default, 1,000,000 at
    /// most: the oldest are removed first. It has no effect without [`keep_done`](Self::keep_done).
    pub fn keep_done_max(mut self, most: NonZeroU32) -> Self {
        self.options.keep_done_max = Some(most);
        self
    }
}

/// Which notes are kept, if any.
pub(super) fn keep_done(attribute: &HandlerOptions, group: &GroupOptions) -> Option<KeepDone> {
    let over = &group.options;
    let time = over.keep_done.or(attribute.keep_done)?;
    Some(KeepDone::new(time, over.keep_done_max.or(attribute.keep_done_max)))
}
