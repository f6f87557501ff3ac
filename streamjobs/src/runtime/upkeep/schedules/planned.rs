//! Computes the firing of a due schedule.

use crate::model::name::StreamName;
use crate::model::schedule::{FirePlan, Schedule, Walk};
use crate::store::{Firing, Occurrence, Score, ServerTime};

/// Why a firing cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoNext;

/// Computes what a schedule publishes that was due at `expected`. There may be very many missed
/// occurrences, so other work of the thread gets its turn meanwhile.
pub(super) async fn firing(
    whole: &StreamName,
    schedule: &Schedule,
    digest: &str,
    expected: Score,
    now: ServerTime,
) -> Result<Firing, NoNext> {
    let mut walk = Walk::new(schedule.missed_policy(), expected.at, now.0);
    let next = |at| match schedule.next_after(at) {
        Ok(Some(next)) if next > at => Ok(next),
        _ => Err(NoNext),
    };
    let FirePlan { occurrences, missed, next } = loop {
        match walk.advance(STEPS, next)? {
            Some(plan) => break plan,
            None => tokio::task::yield_now().await,
        }
    };
    let name = schedule.name();
    let occurrences = occurrences.into_iter().enumerate().map(|(place, due)| {
        let id = Firing::occurrence_id(whole, name, schedule.occurrence(due));
        // Missed occurrences are all before the first of these.
        let before = if place == 0 { missed } else { 0 };
        let fields = schedule.entry(&id, due, before, now.0.saturating_sub(due));
        Occurrence { due, fields }
    });
    let occurrences = occurrences.collect();
    let (name, digest) = (name.clone(), digest.to_owned());
    let busy = schedule.overlap_policy().group().cloned();
    Ok(Firing { name, expected, digest, next, occurrences, missed, busy })
}

/// How many bytes the firing sends to the server.
pub(super) fn bytes_of(firing: &Firing) -> usize {
    let fields = firing.occurrences.iter().flat_map(|occurrence| &occurrence.fields);
    fields.map(|(name, value)| name.len() + value.len()).sum()
}

/// How many occurrences are computed before other work gets its turn: a few tenths of a
/// millisecond.
const STEPS: u32 = 256;
