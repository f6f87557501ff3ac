//! Limits over all processes whose number an operator has set.

use streamjobs::__store::holds::{HoldScope, SetLimit};
use streamjobs::__store::{Delivery, Finished, Inlet, Left};

use super::holds::{KEY, finish, names, publish, rule, sweep, sweep_all, take};
use super::{BoxError, Case, Stage};

/// Makes a test of every case in this file.
#[macro_export]
macro_rules! set_limits_cases {
    ($test:meta, $stage:expr) => {
        $crate::conformance_tests! { @each $test, $stage, set_limits:
            a_number_that_an_operator_sets_applies_to_the_next_step,
            a_lower_number_stops_no_job_and_lets_none_go_on_until_enough_have_ended,
            a_raised_number_lets_lines_go_on_with_the_next_sweep_or_end,
            a_raised_number_reaches_the_lines_of_all_keys_in_one_sweep,
            a_limit_of_the_group_follows_the_number_that_is_set,
            no_order_and_no_other_option_follows_a_number,
            a_set_limit_is_reported_with_who_set_it_and_when,
        }
    };
}

fn set(scope: &str, limit: u32) -> Result<SetLimit, BoxError> {
    let text = format!("{scope} {limit} 0 {{\"from\":1,\"by\":\"al ice\",\"why\":\"{{}}\"}}");
    Ok(SetLimit::stored(&text).ok_or("it is a stored limit")?)
}

async fn change(stage: &Stage, to: Option<(&str, u32)>) -> Result<bool, BoxError> {
    let set = to.map(|(scope, limit)| set(scope, limit)).transpose()?;
    Ok(stage.store.set_limit(&stage.queue, set.as_ref()).await?)
}

/// Ends jobs and returns how many went from lines to the lane.
async fn end(stage: &Stage, limit: u32, jobs: &[Delivery]) -> Result<usize, BoxError> {
    let mut fed = 0;
    for job in jobs {
        fed += finish(stage, rule(HoldScope::Key, limit)?, job).await?.fed;
    }
    Ok(fed)
}

/// It is reset to that of the code.
pub async fn a_number_that_an_operator_sets_applies_to_the_next_step(stage: &Stage) -> Case {
    let one = rule(HoldScope::Key, 1)?;
    assert!(change(stage, Some(("key", 3))).await?);
    assert!(!change(stage, Some(("key", 3))).await?, "it is set already");
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "b:1"]).await?;
    let taken = take(stage, Inlet::STREAM, one).await?;
    assert_eq!((names(&taken.deliveries), taken.parked), (vec!["a:1", "a:2", "a:3", "b:1"], 1));
    assert!(change(stage, None).await?);
    assert!(!change(stage, None).await?, "none is set");
    assert_eq!(end(stage, 1, &taken.deliveries).await?, 1, "with the last of them");
    Ok(())
}

/// Jobs that run keep their places.
pub async fn a_lower_number_stops_no_job_and_lets_none_go_on_until_enough_have_ended(
    stage: &Stage,
) -> Case {
    let three = rule(HoldScope::Key, 3)?;
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "a:5"]).await?;
    let taken = take(stage, Inlet::STREAM, three).await?.deliveries;
    assert_eq!(names(&taken), ["a:1", "a:2", "a:3"]);
    assert!(change(stage, Some(("key", 1))).await?);
    let swept = sweep(stage, Some(three)).await?;
    assert_eq!((swept.ended, swept.fed, swept.parked), (0, 0, 2));
    let [one, two, three] = &taken[..] else { return Err("three run".into()) };
    assert_eq!(end(stage, 3, &[one.clone(), two.clone()]).await?, 0);
    assert_eq!(end(stage, 3, std::slice::from_ref(three)).await?, 1);
    assert_eq!(
        names(&take(stage, Inlet::LANE, rule(HoldScope::Key, 3)?).await?.deliveries),
        ["a:4"]
    );
    Ok(())
}

/// As the processes sweep when they learn of it.
pub async fn a_raised_number_lets_lines_go_on_with_the_next_sweep_or_end(stage: &Stage) -> Case {
    let one = rule(HoldScope::Key, 1)?;
    publish(stage, &["a:1", "a:2", "a:3", "a:4", "b:1", "b:2", "b:3"]).await?;
    let taken = take(stage, Inlet::STREAM, one).await?.deliveries;
    assert_eq!(names(&taken), ["a:1", "b:1"]);
    assert_eq!(sweep(stage, Some(one)).await?.fed, 0);
    assert!(change(stage, Some(("key", 2))).await?);
    let [_, b] = &taken[..] else { return Err("two run".into()) };
    assert_eq!(finish(stage, one, b).await?, Finished { acknowledged: 1, fed: 2 });
    assert_eq!(sweep(stage, Some(one)).await?.fed, 1);
    let mut fed = take(stage, Inlet::LANE, one).await?.deliveries;
    fed.sort_by_key(|job| job.entry.text("name").map(str::to_owned));
    assert_eq!(names(&fed), ["a:2", "b:2", "b:3"]);
    Ok(())
}

/// There are more lines than the server returns at once, and more jobs than one call lets go on.
pub async fn a_raised_number_reaches_the_lines_of_all_keys_in_one_sweep(stage: &Stage) -> Case {
    let (one, keys) = (rule(HoldScope::Key, 1)?, 300);
    let jobs = (0..keys * 4).map(|number| format!("key-{}:{number}", number % keys));
    let jobs = jobs.collect::<Vec<_>>();
    publish(stage, &jobs.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut running = 0;
    loop {
        let taken = take(stage, Inlet::STREAM, one).await?;
        running += taken.deliveries.len();
        if taken.left == Left::Drained {
            break;
        }
    }
    assert_eq!(running, keys);
    assert!(change(stage, Some(("key", 3))).await?);
    assert_eq!(sweep_all(stage, one).await?, keys * 2);
    assert_eq!(sweep_all(stage, one).await?, 0);
    Ok(())
}

/// What it does not admit stays in the stream.
pub async fn a_limit_of_the_group_follows_the_number_that_is_set(stage: &Stage) -> Case {
    let one = rule(HoldScope::Group, 1)?;
    publish(stage, &["a:1", "a:2", "b:1", "b:2"]).await?;
    let first = take(stage, Inlet::STREAM, one).await?;
    assert_eq!((names(&first.deliveries), first.left), (vec!["a:1"], Left::Full));
    change(stage, Some(("group", 3))).await?;
    let more = take(stage, Inlet::STREAM, one).await?;
    assert_eq!((names(&more.deliveries), more.left), (vec!["a:2", "b:1"], Left::Full));
    change(stage, Some(("group", 1))).await?;
    let none = take(stage, Inlet::STREAM, one).await?;
    assert_eq!((none.deliveries.len(), none.left), (0, Left::Full));
    Ok(())
}

/// Another client can have written anything.
pub async fn no_order_and_no_other_option_follows_a_number(stage: &Stage) -> Case {
    change(stage, Some(("key", 3))).await?;
    publish(stage, &["a:1", "a:2"]).await?;
    let taken = take(stage, Inlet::STREAM, KEY).await?;
    assert_eq!((names(&taken.deliveries), taken.parked), (vec!["a:1"], 1), "an order");
    assert_eq!(sweep(stage, Some(KEY)).await?.fed, 0);
    let [first] = &taken.deliveries[..] else { return Err("one runs".into()) };
    assert_eq!(finish(stage, KEY, first).await?, Finished { acknowledged: 1, fed: 1 });
    change(stage, Some(("group", 3))).await?;
    publish(stage, &["b:1", "b:2"]).await?;
    let taken = take(stage, Inlet::STREAM, rule(HoldScope::Key, 1)?).await?;
    assert_eq!((names(&taken.deliveries), taken.parked), (vec!["b:1"], 1), "another option");
    Ok(())
}

/// Promotions tell every process the number.
pub async fn a_set_limit_is_reported_with_who_set_it_and_when(stage: &Stage) -> Case {
    let promoted = async || stage.store.promote(&stage.queue, &stage.me, 0).await;
    assert_eq!(promoted().await?.limit, None);
    assert_eq!(stage.store.group_facts(&stage.queue).await?.limit, None);
    let before = stage.now().await?;
    change(stage, Some(("group", 7))).await?;
    assert_eq!(promoted().await?.limit.map(|set| set.limit.get()), Some(7));
    let told = stage.store.group_facts(&stage.queue).await?.limit.ok_or("it is set")?;
    assert_eq!((told.limit.get(), told.from.get()), (7, 1));
    assert_eq!((told.by.as_str(), told.why.as_str()), ("al ice", "{}"));
    assert!(told.at >= before.0 && told.at <= stage.now().await?.0, "{told:?}");
    Ok(())
}
