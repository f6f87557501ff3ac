//! Records what a queue does, for charts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::model::trend::TrendNote;
use crate::runtime::observe::QueueContext;
use crate::runtime::state::{TrendCounts, jittered, stopped_before};
use crate::store::StoreError;

/// The loop that records what one queue does. While there is nothing to record, it sends nothing.
#[derive(Debug)]
pub(crate) struct TrendWriter {
    pub(crate) context: Arc<QueueContext>,
    pub(crate) counts: Arc<TrendCounts>,
}

/// What was recorded so far.
#[derive(Debug, Default)]
struct Noted {
    totals: TrendNote,
    /// Whether the last note had a backlog; its end is noted as well.
    backlog: bool,
}

impl TrendWriter {
    /// Writes notes at the interval until the stop, which comes after the last verdict, and then writes once what is
    /// left.
    ///
    /// Several intervals add up to exactly a minute, so that each step of a minute gets the same number of
    /// notes from a process.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut noted, mut next) = (Noted::default(), Instant::now() + jittered(INTERVAL));
        loop {
            let stopped = stopped_before(&stop, sleep_until(next)).await;
            self.note(&mut noted).await;
            if stopped {
                return;
            }
            next = (next + INTERVAL).max(Instant::now());
        }
    }

    async fn note(&self, noted: &mut Noted) {
        let (report, store) = (&self.context.report, &self.context.store);
        let counters = report.counters();
        let totals = self.counts.totals(counters.succeeded, counters.failed);
        let note = totals.clone().since(&noted.totals);
        if note.is_empty() && !noted.backlog {
            return;
        }
        let answer = store.note_trend(self.context.queue(), &note).await;
        // Counts that the server may have are not sent again. Counts that it certainly does not have become
        // part of the next note.
        if answer.as_ref().err().is_none_or(StoreError::is_unconfirmed) {
            *noted = Noted { totals, backlog: note.waiting > 0 };
        } else {
            self.counts.see(note.waiting, note.oldest);
        }
        let _logged = report.ok_or_report("note what the group does", answer);
    }
}

/// How often a note is written. A minute is a multiple of it.
const INTERVAL: Duration = Duration::from_secs(15);
