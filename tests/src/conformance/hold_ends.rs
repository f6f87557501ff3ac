//! What goes on when jobs with a limit end.

use streamjobs::__store::holds::HoldRule;
use streamjobs::__store::{Finished, Inlet, Left};

use super::holds::{
    KEY, drained, fail, finish, is_empty, only, promote, publish, retry_of, sweep, take,
};
use super::{Case, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! hold_ends_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, hold_ends:
            an_end_that_is_told_twice_lets_one_job_go_on,
            a_retry_that_says_so_keeps_its_place_where_others_give_it_back,
            the_end_of_many_jobs_lets_a_job_of_each_key_go_on,
        }
    };
}

/// As if the answer to the first call was lost.
pub async fn an_end_that_is_told_twice_lets_one_job_go_on(stage: &Stage) -> Case {
    publish(stage, &["a:1", "a:2", "a:3"]).await?;
    let first = only(take(stage, Inlet::STREAM, KEY).await?)?;
    assert_eq!(finish(stage, KEY, &first).await?, Finished { acknowledged: 1, fed: 1 });
    assert_eq!(finish(stage, KEY, &first).await?, Finished { acknowledged: 0, fed: 0 });
    let second = only(take(stage, Inlet::LANE, KEY).await?)?;
    assert_eq!(second.entry.text("name"), Some("a:2"));
    Ok(())
}

/// As the retry of a job that a stop cut off: it has not failed.
pub async fn a_retry_that_says_so_keeps_its_place_where_others_give_it_back(stage: &Stage) -> Case {
    let skip = HoldRule { blocks: false, ..KEY };
    publish(stage, &["a:1", "a:2"]).await?;
    let first = only(take(stage, Inlet::STREAM, skip).await?)?;
    fail(stage, &first, &retry_of(&first)).await?;
    assert_eq!(sweep(stage, Some(skip)).await?.ended, 0, "it is in the retry set");
    assert!(take(stage, Inlet::LANE, skip).await?.deliveries.is_empty());
    assert_eq!(promote(stage).await?, 1);
    assert_eq!(sweep(stage, Some(skip)).await?.ended, 0, "it is in the lane");
    assert_eq!(drained(stage, skip).await?, ["a:1", "a:2"]);
    assert!(is_empty(stage, skip).await?);
    Ok(())
}

/// As a batch of as many jobs ends them.
pub async fn the_end_of_many_jobs_lets_a_job_of_each_key_go_on(stage: &Stage) -> Case {
    const KEYS: usize = 250;
    let names = (0..2 * KEYS).map(|number| format!("{}:{number}", number % KEYS));
    let names = names.collect::<Vec<_>>();
    publish(stage, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut places = Vec::new();
    while places.len() < KEYS {
        let taken = take(stage, Inlet::STREAM, KEY).await?.deliveries;
        assert!(!taken.is_empty(), "one of each key is admitted, not {}", places.len());
        places.extend(taken.iter().map(|delivery| (delivery.inlet, delivery.entry.id())));
    }
    while take(stage, Inlet::STREAM, KEY).await?.left != Left::Drained {}
    let ended = stage.store.finish(&stage.queue, KEY, &places).await?;
    assert_eq!(ended, Finished { acknowledged: KEYS, fed: KEYS });
    let mut next = 0;
    while next < KEYS {
        let taken = take(stage, Inlet::LANE, KEY).await?.deliveries.len();
        assert!(taken > 0, "a job of each key goes on, not of {next}");
        next += taken;
    }
    Ok(())
}
