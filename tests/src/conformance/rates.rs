//! Rates of groups.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::__store::{Rate, SetRate, Starts, StartsAsked, StartsGranted};

use super::{BoxError, Case, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! rates_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, rates:
            a_burst_may_start_at_once_and_the_others_an_interval_apart,
            what_was_not_used_is_granted_again_unless_others_were_granted_since,
            the_rate_of_the_process_that_joined_last_holds_for_all,
            an_operators_rate_precedes_the_codes_until_it_is_taken_back,
            a_clock_that_is_set_back_costs_an_interval_and_no_standstill,
            a_limited_group_is_granted_nothing_until_the_longest_wait_is_over,
            a_rate_belongs_to_one_group,
        }
    };
}

/// A slow rate: no case takes as long as its interval.
fn hourly(burst: u32) -> Rate {
    rate(1, Duration::from_secs(3600), burst)
}

fn rate(starts: u32, per: Duration, burst: u32) -> Rate {
    let count = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    Rate::new(count(starts), per).burst(count(burst))
}

fn asked(rate: Rate, wanted: u32) -> StartsAsked {
    StartsAsked { rate: Some(rate), wanted, joined: 0 }
}

async fn reserve(stage: &Stage, asked: StartsAsked) -> Result<StartsGranted, BoxError> {
    Ok(stage.store.reserve_starts(&stage.queue, asked).await?)
}

/// A part of the burst is reserved for late starts: at most a quarter of a second's worth.
pub async fn a_burst_may_start_at_once_and_the_others_an_interval_apart(stage: &Stage) -> Case {
    let seven = reserve(stage, asked(hourly(8), 9)).await?;
    let slack = Duration::from_millis(250);
    assert_eq!((seven.starts.count, seven.starts.slack), (8, slack), "within the horizon");
    assert_eq!(seven.starts.interval, Duration::from_secs(3600));
    // The last of eight is later by the slack.
    assert!(seven.starts.offset + 7 * 3_600_000_000 == 250_000, "{seven:?}");
    let none = reserve(stage, asked(hourly(8), 9)).await?;
    assert_eq!((none.starts, none.is_limited), (Starts::default(), false));
    let (hour, ahead) = (Duration::from_secs(3600), Duration::from_millis(250));
    assert!(none.wait <= hour - ahead && none.wait > hour - Duration::from_secs(60), "{none:?}");
    stage.raw.flush();
    let fast = reserve(stage, asked(rate(10, Duration::from_secs(1), 1), 100)).await?;
    assert_eq!((fast.starts.count, fast.starts.offset), (6, 0), "half a second ahead");
    assert_eq!(fast.starts.interval, Duration::from_millis(100));
    Ok(())
}

/// So a process can ask for as many as it has slots.
pub async fn what_was_not_used_is_granted_again_unless_others_were_granted_since(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let first = reserve(stage, asked(hourly(5), 3)).await?;
    assert_eq!(first.starts.count, 3);
    assert!(store.return_starts(queue, first.starts, 2).await?);
    assert!(!store.return_starts(queue, first.starts, 2).await?, "a repetition changes nothing");
    let second = reserve(stage, asked(hourly(5), 9)).await?;
    assert_eq!(second.starts.count, 4);
    stage.raw.flush();
    let first = reserve(stage, asked(hourly(5), 3)).await?;
    let second = reserve(stage, asked(hourly(5), 1)).await?;
    assert!(!store.return_starts(queue, first.starts, 3).await?, "the second came after it");
    assert!(store.return_starts(queue, second.starts, 1).await?);
    assert_eq!(reserve(stage, asked(hourly(5), 9)).await?.starts.count, 2);
    Ok(())
}

/// With a rate for each process, more starts would be granted than either rate allows.
pub async fn the_rate_of_the_process_that_joined_last_holds_for_all(stage: &Stage) -> Case {
    let per_minute = rate(1, Duration::from_secs(60), 9);
    let old = reserve(stage, asked(per_minute, 1)).await?;
    assert_eq!(old.starts.interval, Duration::from_secs(60));
    let as_before = |rate, joined| StartsAsked { rate: Some(rate), wanted: 1, joined };
    stage.pass(2).await?;
    let hour = Duration::from_secs(3600);
    let new = reserve(stage, asked(hourly(9), 1)).await?;
    assert!(new.joined > old.joined, "{new:?} {old:?}");
    assert_eq!(new.starts.interval, hour);
    let again = reserve(stage, as_before(per_minute, old.joined)).await?;
    assert_eq!((again.starts.interval, again.joined), (hour, old.joined), "the new one's");
    let again = reserve(stage, as_before(hourly(9), new.joined)).await?;
    assert_eq!((again.starts.interval, again.joined), (hour, new.joined));
    Ok(())
}

/// If the operator lifts the limit, everything is granted and nothing is counted.
pub async fn an_operators_rate_precedes_the_codes_until_it_is_taken_back(stage: &Stage) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let promoted = async || store.promote(queue, &stage.me, 0).await;
    assert_eq!(promoted().await?.rate, None);
    let set = SetRate::At(rate(1, Duration::from_secs(60), 4));
    assert!(store.set_rate(queue, Some(set)).await?);
    assert!(!store.set_rate(queue, Some(set)).await?, "it is set already");
    assert_eq!(promoted().await?.rate, Some(set));
    let granted = reserve(stage, asked(hourly(1), 9)).await?;
    assert_eq!((granted.starts.count, granted.starts.interval), (4, Duration::from_secs(60)));
    let without = StartsAsked { rate: None, wanted: 9, joined: 0 };
    assert_eq!(reserve(stage, without).await?.starts.count, 0, "code without a rate as well");
    assert!(store.set_rate(queue, Some(SetRate::Unlimited)).await?);
    let granted = reserve(stage, asked(hourly(1), 9)).await?;
    assert_eq!((granted.starts.count, granted.starts.interval), (9, Duration::ZERO));
    assert!(store.set_rate(queue, None).await?);
    assert!(!store.set_rate(queue, None).await?);
    assert_eq!(promoted().await?.rate, None);
    assert_eq!(reserve(stage, without).await?.starts.count, 9, "there is no rate");
    assert_eq!(reserve(stage, asked(hourly(1), 9)).await?.starts.count, 0, "its burst is used");
    Ok(())
}

/// The same cut is made if a rate was raised.
pub async fn a_clock_that_is_set_back_costs_an_interval_and_no_standstill(stage: &Stage) -> Case {
    assert_eq!(reserve(stage, asked(hourly(40), 40)).await?.starts.count, 40);
    let raised = rate(20, Duration::from_secs(1), 1);
    let granted = reserve(stage, asked(raised, 1)).await?;
    assert_eq!(granted.starts.count, 0);
    assert!(granted.wait <= Duration::from_millis(51), "{granted:?}");
    stage.pass(60).await?;
    assert_eq!(reserve(stage, asked(raised, 1)).await?.starts.count, 1, "after an interval");
    Ok(())
}

/// As if several jobs met a limit of the service that they call, and were told different times.
pub async fn a_limited_group_is_granted_nothing_until_the_longest_wait_is_over(
    stage: &Stage,
) -> Case {
    let (store, queue) = (&stage.store, &stage.queue);
    let promoted = async || store.promote(queue, &stage.me, 0).await;
    assert_eq!(promoted().await?.limited, None);
    let minute = Duration::from_secs(60);
    assert_eq!(store.limit_group(queue, minute).await?, minute);
    let longer = store.limit_group(queue, Duration::from_secs(1)).await?;
    assert!(longer > minute / 2 && longer <= minute, "{longer:?}");
    let granted = reserve(stage, asked(hourly(9), 9)).await?;
    assert!(granted.starts.count == 0 && granted.wait > minute / 2, "{granted:?}");
    assert!(granted.is_limited, "{granted:?}");
    assert!(promoted().await?.limited.is_some_and(|rest| rest > minute / 2 && rest <= minute));
    let year = Duration::from_secs(365 * 86_400);
    assert_eq!(store.limit_group(queue, year).await?, Duration::from_secs(86_400), "a day at most");
    assert!(store.set_rate(queue, None).await?, "an operator can end it");
    assert_eq!(promoted().await?.limited, None);
    assert_eq!(reserve(stage, asked(hourly(9), 9)).await?.starts.count, 9);
    store.limit_group(queue, Duration::from_millis(20)).await?;
    stage.pass(21).await?;
    assert_eq!(promoted().await?.limited, None);
    Ok(())
}

/// Groups do not wait for each other.
pub async fn a_rate_belongs_to_one_group(stage: &Stage) -> Case {
    let other = streamjobs::__store::Queue {
        stream: stage.queue.stream.clone(),
        group: streamjobs::GroupName::new("other")?,
    };
    assert_eq!(reserve(stage, asked(hourly(1), 9)).await?.starts.count, 1);
    let granted = stage.store.reserve_starts(&other, asked(hourly(1), 9)).await?;
    assert_eq!(granted.starts.count, 1);
    assert_eq!(reserve(stage, asked(hourly(1), 9)).await?.starts.count, 0);
    Ok(())
}
