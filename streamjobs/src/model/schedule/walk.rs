//! From the first occurrence that is due to the next one that is not: what is published, and what is missed.

use std::collections::VecDeque;

use super::missed::Missed;

/// The occurrences of a schedule that are due, walked through one by one.
///
/// The walk can be interrupted, because there may be very many occurrences and the caller's thread
/// has other work.
#[derive(Debug)]
pub(crate) struct Walk {
    missed_policy: Missed,
    now: u64,
    /// The newest occurrences that are due, as many as may be published.
    newest: VecDeque<u64>,
    missed: u64,
    steps: u32,
    /// The current occurrence.
    at: u64,
}

/// What one firing does. Times are those at which occurrences are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirePlan {
    pub(crate) occurrences: Vec<u64>,
    /// How many occurrences before these are not published.
    pub(crate) missed: u64,
    /// When the schedule is due next. That is before now if one firing cannot take all occurrences.
    pub(crate) next: u64,
}

impl Walk {
    /// Begins at the first occurrence that is due.
    pub(crate) fn new(missed: Missed, expected: u64, now: u64) -> Self {
        let newest = VecDeque::new();
        Self { missed_policy: missed, now, newest, missed: 0, steps: 0, at: expected }
    }

    /// Walks on for a number of steps; returns the plan once the next occurrence is after now.
    ///
    /// # Errors
    ///
    /// When `next` fails, because it cannot find the following occurrence.
    pub(crate) fn advance<E>(
        &mut self,
        steps: u32,
        next: impl Fn(u64) -> Result<u64, E>,
    ) -> Result<Option<FirePlan>, E> {
        for _ in 0..steps {
            let following = next(self.at)?;
            self.newest.push_back(self.at);
            if self.newest.len() > self.missed_policy.count_max() {
                self.newest.pop_front();
                self.missed += 1;
            }
            self.at = following;
            self.steps += 1;
            if self.at > self.now {
                return Ok(Some(self.plan()));
            }
            if self.steps >= STEPS_MAX {
                return Ok(Some(self.part()));
            }
        }
        Ok(None)
    }

    /// The plan when all occurrences are known.
    fn plan(&mut self) -> FirePlan {
        let oldest = self.now.saturating_sub(self.missed_policy.age_max());
        while self.newest.front().is_some_and(|at| *at < oldest) {
            self.newest.pop_front();
            self.missed += 1;
        }
        let next = self.newest.get(PUBLISHED_MAX).copied().unwrap_or(self.at);
        let occurrences = self.newest.iter().take(PUBLISHED_MAX).copied().collect();
        FirePlan { occurrences, missed: self.missed, next }
    }

    /// The plan when there are more occurrences than one walk counts. It publishes none, because none may be published
    /// before all are known.
    fn part(&mut self) -> FirePlan {
        let next = self.newest.front().copied().unwrap_or(self.at);
        FirePlan { occurrences: Vec::new(), missed: self.missed, next }
    }
}

/// The most occurrences of one firing.
const PUBLISHED_MAX: usize = 100;
/// The most occurrences that one walk counts: with one every second, those of more than eleven days.
const STEPS_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const START: u64 = 1_700_000_100_000;

    fn plan(missed: Missed, period: u64, expected: u64, now: u64) -> FirePlan {
        let mut walk = Walk::new(missed, expected, now);
        let next = |at: u64| Ok::<_, Infallible>(at + period);
        loop {
            let Ok(plan) = walk.advance(256, next);
            if let Some(plan) = plan {
                return plan;
            }
        }
    }

    fn all(max: u32, within: u64) -> Missed {
        let max = NonZeroU32::new(max).unwrap();
        Missed::All { max, within: Duration::from_millis(within) }
    }

    #[test]
    fn an_occurrence_in_time_is_published_under_each_policy() {
        for missed in [Missed::One, Missed::None, all(1, MINUTE)] {
            let plan = plan(missed, 5 * MINUTE, START, START + 700);
            let expected =
                FirePlan { occurrences: vec![START], missed: 0, next: START + 5 * MINUTE };
            assert_eq!(plan, expected, "{missed:?}");
        }
    }

    #[test]
    fn three_hours_of_five_minutes_are_none_one_or_all() {
        // 36 occurrences are due, and the last of them is 4 minutes old.
        let now = START + 35 * 5 * MINUTE + 4 * MINUTE;
        let (last, next) = (START + 35 * 5 * MINUTE, START + 36 * 5 * MINUTE);
        let one = plan(Missed::One, 5 * MINUTE, START, now);
        assert_eq!(one, FirePlan { occurrences: vec![last], missed: 35, next });
        let none = plan(Missed::None, 5 * MINUTE, START, now);
        assert_eq!(none, FirePlan { occurrences: vec![], missed: 36, next });
        let every = plan(all(100, 4 * HOUR), 5 * MINUTE, START, now);
        assert_eq!((every.occurrences.len(), every.missed, every.next), (36, 0, next));
        assert!(every.occurrences.is_sorted() && every.occurrences[0] == START);
        let bounded = plan(all(10, 4 * HOUR), 5 * MINUTE, START, now);
        assert_eq!((bounded.occurrences.len(), bounded.missed), (10, 26));
        assert_eq!(bounded.occurrences.last(), Some(&last));
        let young = plan(all(100, HOUR), 5 * MINUTE, START, now);
        assert_eq!((young.occurrences.len(), young.missed, young.next), (12, 24, next));
    }

    #[test]
    fn none_publishes_what_is_at_most_a_minute_old() {
        let plan = plan(Missed::None, 20_000, START, START + 150_000);
        assert_eq!(plan.occurrences, [100_000, 120_000, 140_000].map(|since| START + since));
        assert_eq!((plan.missed, plan.next), (5, START + 160_000));
    }

    #[test]
    fn many_occurrences_are_published_in_parts_and_none_is_left_out() {
        let (now, mut at, mut published) = (START + 250 * 1_000, START, Vec::new());
        while at <= now {
            let plan = plan(all(10_000, HOUR), 1_000, at, now);
            assert!(plan.occurrences.len() <= PUBLISHED_MAX && plan.missed == 0);
            published.extend(plan.occurrences);
            at = plan.next;
        }
        let expected = (0..=250).map(|second| START + second * 1_000);
        assert_eq!(published, expected.collect::<Vec<_>>());
    }

    #[test]
    fn more_than_a_million_are_counted_in_parts() {
        let (mut at, mut missed, mut published) = (START, 0, Vec::new());
        let now = START + 2_500_000 * 1_000;
        while at <= now {
            let plan = plan(all(3, HOUR), 1_000, at, now);
            missed += plan.missed;
            published.extend(plan.occurrences);
            at = plan.next;
        }
        let expected = [now - 2_000, now - 1_000, now];
        assert_eq!((published.as_slice(), missed), (&expected[..], 2_500_001 - 3));
    }
}
