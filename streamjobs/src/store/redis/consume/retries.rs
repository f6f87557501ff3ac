//! Scheduling the retries of failed jobs, many in one call.

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::{SCHEDULE_RETRIES, add_owner, add_settled, fence_result};
use crate::model::name::ConsumerName;
use crate::store::redis::net::accepted;
use crate::store::redis::{DELAY_MAX, RedisStore, milliseconds, packed, reply};
use crate::store::types::Result;
use crate::store::{FenceResult, Inlet, NewRetry, Queue, StoreError};

impl RedisStore {
    /// Schedules retries. Returns an answer for each. If a call fails, each of its jobs gets the error.
    pub(super) async fn schedule(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        retries: &[NewRetry],
    ) -> Vec<Result<FenceResult>> {
        let called = calls(retries).into_iter().map(async |Call { inlet, jobs }| {
            let answered = self.schedule_in_one_call(queue, consumer, inlet, &jobs).await;
            (answered.map(Vec::into_iter), jobs)
        });
        let mut answers = retries.iter().map(|_| Err(lacking())).collect::<Vec<_>>();
        for (mut answered, jobs) in join_all(called).await {
            for (place, _) in jobs {
                let answer = match &mut answered {
                    Ok(values) => values.next().map_or_else(|| Err(lacking()), of_one_job),
                    Err(error) => Err(error.copy()),
                };
                if let Some(at_its_place) = answers.get_mut(place) {
                    *at_its_place = answer;
                }
            }
        }
        answers
    }

    /// The script's answers for jobs of one inlet, each with the job's index among all jobs.
    async fn schedule_in_one_call(
        &self,
        queue: &Queue,
        consumer: &ConsumerName,
        inlet: Inlet,
        jobs: &[(usize, &NewRetry)],
    ) -> Result<Vec<Value>> {
        let (key, dead) = (queue.key(inlet), queue.dead_key());
        let keys = [&*key, &dead, &queue.retry_key(), &queue.retry_records_key()];
        let add = |command: &mut Cmd| {
            add_owner(command, queue, consumer, inlet);
            for (_, retry) in jobs {
                add_settled(command, retry.hold, retry.stand_in);
                command.arg(milliseconds(retry.delay).min(DELAY_MAX));
                command.arg(packed::job(&retry.job));
            }
        };
        reply::items(self.script(&SCHEDULE_RETRIES, &keys, add).await?, SCHEDULE_RETRIES.name)
    }
}

/// One call of the script.
#[derive(Debug)]
struct Call<'a> {
    inlet: Inlet,
    /// The jobs with their indexes among all jobs, in the order of their entries: the script reads the
    /// pending list in ranges.
    jobs: Vec<(usize, &'a NewRetry)>,
}

fn calls(retries: &[NewRetry]) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    for inlet in Inlet::ALL {
        let jobs = retries.iter().enumerate().filter(|(_, retry)| retry.hold.inlet == inlet);
        let mut jobs = jobs.collect::<Vec<_>>();
        jobs.sort_by_key(|(_, retry)| retry.hold.id);
        calls.extend(jobs.chunks(JOBS_MAX).map(|jobs| Call { inlet, jobs: jobs.to_vec() }));
    }
    calls
}

fn of_one_job(answer: Value) -> Result<FenceResult> {
    fence_result(accepted(answer)?, SCHEDULE_RETRIES.name)
}

fn lacking() -> StoreError {
    StoreError::Protocol { command: SCHEDULE_RETRIES.name }
}

/// How many jobs one call has at most: the server does nothing else meanwhile, for less than a millisecond.
const JOBS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::entry::{EntryId, Fields};
    use crate::store::Hold;

    fn retry(inlet: Inlet, number: u64) -> NewRetry {
        let hold = Hold { inlet, id: EntryId::new(number, 0), delivery_count: 1 };
        NewRetry { hold, stand_in: None, delay: Duration::ZERO, job: Fields::new() }
    }

    #[test]
    fn a_call_has_jobs_of_one_inlet_in_the_order_of_their_entries_and_not_too_many() {
        let mut retries = vec![retry(Inlet::LANE, 9), retry(Inlet::STREAM, 7)];
        retries.extend((0..100).rev().map(|number| retry(Inlet::STREAM, number)));
        let calls = calls(&retries);
        let sizes = calls.iter().map(|call| (call.inlet, call.jobs.len())).collect::<Vec<_>>();
        assert_eq!(sizes, [(Inlet::STREAM, 100), (Inlet::STREAM, 1), (Inlet::LANE, 1)]);
        for call in &calls {
            assert!(call.jobs.is_sorted_by_key(|(_, retry)| retry.hold.id));
        }
        let mut places = calls.iter().flat_map(|call| &call.jobs).map(|(place, _)| *place);
        let mut seen = places.by_ref().collect::<Vec<_>>();
        seen.sort_unstable();
        assert_eq!(seen, (0..102).collect::<Vec<_>>());
    }
}
