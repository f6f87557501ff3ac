//! Alerts: each is told once when it begins and once when it is over, by callback and by channel.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamjobs::config::{AlertRules, Retention};
use streamjobs::runtime::{Alert, Alerts};
use streamjobs::stream::{Condition, Problem};
use streamjobs::{Client, JobError, RuntimeBuilder};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

use crate::app::{App, DEADLINE, Gate, Work, until};

/// What was told, by callback.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Alert>>>);

impl Told {
    fn of(&self, kind: Condition) -> Vec<bool> {
        let alerts = self.0.lock().unwrap();
        alerts.iter().filter(|alert| alert.condition == kind).map(|alert| alert.raised).collect()
    }

    /// Waits until it is over. A reading that goes up and down may begin and end several times.
    async fn until_over(&self, kind: Condition) {
        until(DEADLINE, &format!("{kind:?} is over"), || self.of(kind).last() == Some(&false))
            .await;
        assert!(self.of(kind).is_sorted_by(|one, next| one != next), "{kind:?} is told once");
    }

    async fn until(&self, kind: Condition, expected: &[bool]) {
        until(DEADLINE, &format!("{kind:?} {expected:?}"), || self.of(kind) == expected).await;
    }
}

fn watched(builder: RuntimeBuilder, rules: AlertRules) -> (RuntimeBuilder, Told) {
    let told = Told::default();
    let heard = told.clone();
    let builder = builder.watch_interval(Duration::from_millis(20)).alerts(rules);
    (builder.on_alert(move |alert| heard.0.lock().unwrap().push(alert.clone())), told)
}

/// Rules under which whatever happens is over soon.
fn rules() -> AlertRules {
    AlertRules::new().clear_after(Duration::from_millis(100))
}

async fn next(alerts: &mut Alerts, kind: Condition) -> Alert {
    let search = async {
        loop {
            let alert = alerts.next().await.unwrap();
            if alert.condition == kind {
                return alert;
            }
        }
    };
    tokio::time::timeout(DEADLINE, search).await.unwrap()
}

/// Waits until no read waits on the server and none is on its way: a pause has taken effect, and what
/// comes goes to others.
async fn no_read_waits(app: &App) {
    let waits = || app.server.client_list().iter().any(|client| client.flags.contains('b'));
    let (mut reads, mut quiet) = (0, 0);
    until(DEADLINE, "no read waits any more", || {
        let before = std::mem::replace(&mut reads, app.calls("xreadgroup"));
        quiet = if waits() || before != reads { 0 } else { quiet + 1 };
        quiet == QUIET_LOOKS
    })
    .await;
}

const QUIET_LOOKS: usize = 5;

#[tokio::test]
async fn a_backlog_and_what_is_pending_are_told_once_and_are_over_below_half() {
    let app = App::start().await;
    let gate = Gate::default();
    let rules = rules().backlog(50).pending(10);
    let (builder, told) = watched(app.runtime(&Work::gated(&gate)), rules);
    let runtime = builder.start().await.unwrap();
    let mut alerts = runtime.alerts();
    app.publish(200).await;
    let alert = next(&mut alerts, Condition::Backlog).await;
    assert_eq!(
        (alert.stream.as_str(), alert.group.as_str(), alert.raised),
        ("orders", "work", true)
    );
    assert!(alert.to_string().contains("entries wait"), "{alert}");
    told.until(Condition::Pending, &[true]).await;
    gate.open();
    app.drained("work").await;
    told.until(Condition::Backlog, &[true, false]).await;
    told.until_over(Condition::Pending).await;
    assert!(!next(&mut alerts, Condition::Backlog).await.raised);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn ages_of_what_waits_and_of_what_is_pending_are_told() {
    let app = App::start().await;
    let short = Duration::from_millis(300);
    let rules = rules().oldest_waiting(short).oldest_pending(short);
    let gate = Gate::default();
    let (builder, told) = watched(app.runtime(&Work::gated(&gate)), rules);
    let runtime = builder.start().await.unwrap();
    app.publish(30).await;
    told.until(Condition::OldestWaiting, &[true]).await;
    assert!(told.of(Condition::OldestPending).is_empty(), "what is held is renewed");
    gate.open();
    app.drained("work").await;
    told.until(Condition::OldestWaiting, &[true, false]).await;
    runtime.pause("work").unwrap();
    app.client.stream("orders").unwrap().group("work").unwrap().pause().await.unwrap();
    no_read_waits(&app).await;
    app.publish(1).await;
    let words = ["XREADGROUP", "GROUP", "work", "stranger", "COUNT", "1", "STREAMS", "orders", ">"];
    app.server.command(&words);
    told.until(Condition::OldestPending, &[true]).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn dead_letters_losses_and_lost_groups_are_told_until_it_is_quiet() {
    let app = App::start().await;
    let work = Work::new(|order, _| async move {
        if order.id == "0" { Err(JobError::dead("no")) } else { Ok(()) }
    });
    let (builder, told) = watched(app.runtime(&work), rules());
    let runtime = builder.start().await.unwrap();
    app.publish(1).await;
    told.until(Condition::DeadLetters, &[true, false]).await;
    app.server.command(&["XGROUP", "DESTROY", "orders", "work"]);
    told.until(Condition::GroupLost, &[true, false]).await;
    app.client.stream("orders").unwrap().group("work").unwrap().pause().await.unwrap();
    until(DEADLINE, "paused", || runtime.health().queues[0].paused).await;
    no_read_waits(&app).await;
    app.publish(20).await;
    app.server.command(&["XTRIM", "orders", "MAXLEN", "=", "2"]);
    told.until(Condition::TrimmedUnread, &[true, false]).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn claims_from_the_dead_and_reads_that_fail_are_told() {
    let app = App::start().await;
    let work = Work::fine();
    let (builder, told) = watched(app.runtime(&work), rules().claims_per_minute(5));
    let runtime = builder.start().await.unwrap();
    runtime.pause("work").unwrap();
    no_read_waits(&app).await;
    app.publish(10).await;
    let words = ["XREADGROUP", "GROUP", "work", "dead", "COUNT", "10", "STREAMS", "orders", ">"];
    app.server.command(&words);
    for row in app.server.pending("orders", "work") {
        app.server.age("orders", "work", &row.id, Duration::from_secs(60));
    }
    runtime.resume("work").unwrap();
    told.until(Condition::Claims, &[true]).await;
    app.drained("work").await;
    app.server.kill();
    until(DEADLINE, "no read", || told.of(Condition::NoRead).last() == Some(&true)).await;
    app.server.restart().unwrap();
    told.until_over(Condition::NoRead).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_group_that_holds_trimming_up_is_told_by_name_and_nothing_is_lost() {
    let server = RedisServer::start().unwrap();
    let history = NonZeroU64::new(100).unwrap();
    let client = Client::builder(&server.url())
        .retention("orders", Retention::History(history))
        .connect()
        .await
        .unwrap();
    let app = App { server, client };
    app.server.command(&["XGROUP", "CREATE", "orders", "sleeping", "0", "MKSTREAM"]);
    let (builder, told) = watched(app.runtime(&Work::fine()), rules());
    let runtime = builder.start().await.unwrap();
    app.publish(1_000).await;
    app.drained("work").await;
    told.until(Condition::StreamLength, &[true]).await;
    told.until(Condition::TrimBlocked, &[true]).await;
    let named = told.0.lock().unwrap().iter().any(|alert| alert.text.contains("group sleeping"));
    assert!(named);
    assert_eq!(app.server.length("orders"), 1_000);
    app.server.command(&["XGROUP", "SETID", "orders", "sleeping", "$"]);
    told.until(Condition::StreamLength, &[true, false]).await;
    told.until(Condition::TrimBlocked, &[true, false]).await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn the_first_read_of_a_quiet_stream_has_its_time() {
    let app = App::start().await;
    let (builder, told) = watched(app.runtime(&Work::fine()), rules());
    let runtime = builder.start().await.unwrap();
    let has_read = || runtime.health().queues.iter().all(|queue| queue.last_read.is_some());
    until(DEADLINE, "the first read has ended", has_read).await;
    assert_eq!(told.of(Condition::NoRead), [] as [bool; 0]);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_callback_that_panics_ends_no_loop() {
    let app = App::start().await;
    let builder = app.runtime(&Work::new(|_, _| async { Err(JobError::dead("no")) }));
    let builder = builder.watch_interval(Duration::from_millis(20));
    let runtime = builder.on_alert(|alert| panic!("{alert}")).start().await.unwrap();
    let mut alerts = runtime.alerts();
    app.publish(1).await;
    assert!(next(&mut alerts, Condition::DeadLetters).await.raised);
    app.publish(1).await;
    app.drained("work").await;
    assert!(runtime.health().is_healthy());
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn dead_letters_are_kept_unless_a_bound_is_set() {
    let app = App::start().await;
    let reject = Work::new(|_, _| async { Err(JobError::dead("no")) });
    let runtime = app.runtime(&reject).start().await.unwrap();
    app.publish(600).await;
    app.drained("work").await;
    until(DEADLINE, "cleaned some times", || app.calls("xinfo|consumers") > 5).await;
    assert_eq!(app.server.length("{orders}:dead:work"), 600);
    let _ = runtime.shutdown().await;
    let bound = NonZeroU64::new(200).unwrap();
    let runtime = app.runtime(&reject).dead_letters_max(bound).start().await.unwrap();
    let letters = || app.server.length("{orders}:dead:work");
    until(DEADLINE, "trimmed", || (200..400).contains(&letters())).await;
    until(DEADLINE, "counted", || {
        let gone = usize::try_from(runtime.counters().letters_trimmed).unwrap();
        gone + letters() == 600
    })
    .await;
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_group_is_paused_and_resumed_in_every_process_by_any_client() {
    let app = App::start().await;
    let work = Work::fine();
    let (one, two) =
        (app.runtime(&work).start().await.unwrap(), app.runtime(&work).start().await.unwrap());
    let group = app.client.stream("orders").unwrap().group("work").unwrap();
    assert!(group.pause().await.unwrap() && !group.pause().await.unwrap());
    let paused = |runtime: &streamjobs::Runtime| runtime.health().queues[0].paused;
    until(DEADLINE, "paused", || paused(&one) && paused(&two)).await;
    no_read_waits(&app).await;
    app.publish(20).await;
    eventually_async(DEADLINE, "seen", async || {
        let problems = group.diagnose().await.unwrap().problems;
        matches!(problems[..], [Problem::Paused { .. }])
    })
    .await;
    assert_eq!((work.count(), group.info().await.unwrap().backlog.entries), (0, 20));
    assert!(group.resume().await.unwrap());
    work.wait_for(20).await;
    let nobody = app.client.stream("orders").unwrap().group("nobody").unwrap();
    assert!(nobody.pause().await.is_err(), "a pause of a group that is not there is a trap");
    let _ = (one.shutdown().await, two.shutdown().await);
}
