use std::time::Duration;

use streamjobs::dead_letter::{ArchivedJob, DeadLetter, RedriveOutcome, TOKEN_KEPT, Taker};
use streamjobs::error::DeadLetterError;
use streamjobs::{ConsumerName, EntryId};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, Work, both, order, until};

fn taker() -> Taker {
    Taker::new(ConsumerName::unique("archive").unwrap())
}

/// Orders fail until the switch is turned.
fn switched() -> (Work, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let good = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = good.clone();
    let work = Work::new(move |_, _| {
        let good = good.load(std::sync::atomic::Ordering::SeqCst);
        async move { if good { Ok(()) } else { Err(streamjobs::JobError::dead("not now")) } }
    });
    (work, switch)
}

#[tokio::test]
async fn a_redriven_job_runs_again_for_its_group_alone_under_its_event_id() {
    let app = App::start().await;
    let ((work, switch), other) = (switched(), Work::fine());
    let runtime = both(&app, &work, &other).start().await.unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 1).await;
    switch.store(true, std::sync::atomic::Ordering::SeqCst);
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
    letters.redrive(letter.id).await.unwrap();
    work.wait_for(2).await;
    app.drained("work").await;
    let again = work.runs().remove(1);
    assert_eq!((again.attempt, again.event_id.as_str()), (1, published.event_id.as_str()));
    assert!(!again.first, "it was worked on before");
    assert_eq!((other.count(), app.server.length("{orders}:dead:work")), (1, 0));
    assert_eq!(app.server.length("orders"), 1, "the stream itself is untouched");
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_redriven_job_remembers_the_entry_that_was_published() {
    let app = App::start().await;
    let (seen, mut origins) = tokio::sync::mpsc::channel(4);
    let work = Work::new(move |_, job| {
        let seen = seen.clone();
        async move {
            seen.send(job.origin()).await.unwrap();
            Err(streamjobs::JobError::dead("no"))
        }
    });
    let runtime = app.runtime(&work).start().await.unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    assert_eq!(origins.recv().await.unwrap(), None);
    let letters = app.client.dead_letters("orders", "work").unwrap();
    for _ in 0..2 {
        until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 1).await;
        let letter = letters.list(None, 1).await.unwrap().letters.remove(0);
        assert_eq!(letter.origin, Some(published.entry_id));
        letters.redrive(letter.id).await.unwrap();
        assert_eq!(origins.recv().await.unwrap(), Some(published.entry_id));
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_read_one_by_one_and_purged() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(25).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 25).await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = letters.list(after, 10).await.unwrap();
        seen.extend(page.letters.iter().map(|letter| letter.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    assert_eq!(letters.get(seen[3]).await.unwrap().id, seen[3]);
    assert_eq!(letters.purge(&seen[..5]).await.unwrap(), 5);
    assert_eq!(letters.purge(&seen[..6]).await.unwrap(), 1, "the rest was gone already");
    assert!(matches!(letters.get(seen[0]).await, Err(DeadLetterError::Unknown { .. })));
    let answers = letters.redrive_all(seen[5..8].iter().copied()).await;
    let redriven = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    assert_eq!((answers.len(), redriven), (3, 2));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn what_is_asked_about_nothing_is_answered_plainly() {
    let app = App::start().await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    assert!(letters.list(None, 10).await.unwrap().letters.is_empty());
    let error = letters.redrive(EntryId::new(1, 1)).await.unwrap_err().to_string();
    assert_eq!(error, "group work on stream orders has no dead letter 1-1");
    assert!(app.client.dead_letters("", "work").is_err());
    app.server.kill();
    let error = letters.list(None, 10).await.unwrap_err();
    assert!(
        matches!(error, DeadLetterError::Server { .. }),
        "an unreachable server is no empty list"
    );
}

#[tokio::test]
async fn looking_for_letters_to_take_makes_no_key() {
    let app = App::start().await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    assert!(letters.take(&taker(), 10).await.unwrap().letters.is_empty());
    assert_eq!(app.server.query::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn an_archive_takes_letters_and_nothing_else_notices() {
    let app = App::start().await;
    let (work, switch) = switched();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(3).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 3).await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let by = taker();
    let taken = letters.take(&by, 2).await.unwrap().letters;
    assert_eq!(taken, letters.list(None, 2).await.unwrap().letters, "read as they are listed");
    assert_eq!(taken[0].digest(), letters.get(taken[0].id).await.unwrap().digest());
    let stream = app.client.stream("orders").unwrap();
    assert_eq!(stream.groups().await.unwrap().len(), 1, "the archive is no group of the stream");
    assert_eq!(stream.group("work").unwrap().info().await.unwrap().dead_letters, Some(3));
    assert!(app.client.doctor().await.is_ok());
    switch.store(true, std::sync::atomic::Ordering::SeqCst);
    letters.redrive(taken[0].id).await.unwrap();
    work.wait_for(4).await;
    let ids = taken.iter().map(|letter| letter.id).collect::<Vec<_>>();
    assert_eq!(letters.settle(&by, &ids).await.unwrap(), 1, "the other one was redriven");
    assert_eq!(letters.list(None, 9).await.unwrap().letters.len(), 1);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn letters_in_a_lost_answer_are_taken_again_after_the_lease() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(2).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 2).await;
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = streamjobs::Client::connect(proxy.url()).await.unwrap();
    let letters = client.dead_letters("orders", "work").unwrap();
    let by = taker().lease(Duration::from_millis(200));
    assert!(letters.take(&by.clone().lease(Duration::from_secs(60)), 0).await.is_ok());
    proxy.set(Mode::LoseReply);
    assert!(letters.take(&by, 9).await.is_err());
    assert_eq!(app.server.pending("{orders}:dead:work", "archive").len(), 2);
    proxy.set(Mode::Pass);
    let other = taker().lease(Duration::from_millis(200));
    let mut taken = Vec::new();
    eventually_async(DEADLINE, "taken again", async || {
        let letters = letters.take(&other, 9).await.map(|taken| taken.letters);
        taken.extend(letters.unwrap_or_default());
        taken.len() == 2
    })
    .await;
    let ids = taken.iter().map(|letter| letter.id).collect::<Vec<_>>();
    assert_eq!(letters.settle(&other, &ids).await.unwrap(), 2);
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_full_server_can_still_be_relieved_of_its_letters() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(2).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 2).await;
    let _ = runtime.shutdown().await;
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(app.client.publish(&order(9)).await.is_err());
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let (by, mut ids) = (taker(), Vec::new());
    for letter in letters.take(&by, 9).await.unwrap().letters {
        ids.push(letter.id);
    }
    assert_eq!(letters.settle(&by, &ids).await.unwrap(), 2);
}

#[tokio::test]
async fn names_of_takers_that_are_long_gone_are_removed() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let runtime = app.runtime(&work).start().await.unwrap();
    app.publish(2).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 2).await;
    let _ = runtime.shutdown().await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let names = || {
        let consumers = ["XINFO", "CONSUMERS", "{orders}:dead:work", "archive"];
        app.server.query::<Vec<redis::Value>>(&consumers).len()
    };
    for by in [taker(), taker()] {
        let taken = letters.take(&by, 1).await.unwrap().letters;
        assert_eq!(letters.settle(&by, &[taken[0].id]).await.unwrap(), 1);
    }
    assert!(letters.take(&taker(), 9).await.unwrap().letters.is_empty());
    assert!(names() >= 2, "no consumer is gone for long");
    let last = taker().lease(Duration::from_millis(5));
    eventually_async(DEADLINE, "no name but the last one's", async || {
        assert!(letters.take(&last, 9).await.unwrap().letters.is_empty());
        names() <= 1
    })
    .await;
}

/// One dead letter as an archive has it, gone from the server, and the switch that lets its job
/// succeed.
async fn archived(app: &App, work: &Work) -> DeadLetter {
    let runtime = app.runtime(work).start().await.unwrap();
    app.publish(1).await;
    until(DEADLINE, "dead-lettered", || app.server.length("{orders}:dead:work") == 1).await;
    let _ = runtime.shutdown().await;
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let by = taker();
    let letter = letters.take(&by, 1).await.unwrap().letters.remove(0);
    assert_eq!(letters.settle(&by, &[letter.id]).await.unwrap(), 1);
    letter
}

#[tokio::test]
async fn a_job_put_back_from_an_archive_is_the_job_that_a_redrive_gives() {
    let app = App::start().await;
    let (work, switch) = switched();
    let letter = archived(&app, &work).await;
    let (event_id, origin) = (letter.event_id.clone().unwrap(), letter.origin);
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let put = letters.redrive_archived(&letter.fields, &event_id, origin, "t-1", TOKEN_KEPT);
    let RedriveOutcome::Redriven(id) = put.await.unwrap() else { panic!("put before") };
    let again = letters.redrive_archived(&letter.fields, &event_id, origin, "t-1", TOKEN_KEPT);
    assert_eq!(again.await.unwrap(), RedriveOutcome::AlreadyRedriven);
    let kept: i64 = app.server.query(&["PTTL", "{orders}:redriven:work:{t-1}"]);
    assert!((6..=7).contains(&(kept / 86_400_000)), "{kept}");
    let lane = app.server.entries("{orders}:lane:work");
    assert_eq!((lane.len(), lane[0].id.clone()), (1, id.to_string()));
    assert_eq!(lane[0].text("sj-id").as_deref(), Some(event_id.as_str()));
    assert_eq!(lane[0].text("sj-origin"), origin.map(|origin| origin.to_string()));
    switch.store(true, std::sync::atomic::Ordering::SeqCst);
    let runtime = app.runtime(&work).start().await.unwrap();
    work.wait_for(2).await;
    app.drained("work").await;
    assert_eq!((work.runs()[1].attempt, work.runs()[1].event_id.as_str()), (1, event_id.as_str()));
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn a_job_whose_answer_was_lost_comes_back_once_under_its_token() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let letter = archived(&app, &work).await;
    let event_id = letter.event_id.clone().unwrap();
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = streamjobs::Client::connect(proxy.url()).await.unwrap();
    let letters = client.dead_letters("orders", "work").unwrap();
    proxy.set(Mode::LoseReply);
    let put =
        async || letters.redrive_archived(&letter.fields, &event_id, None, "t", TOKEN_KEPT).await;
    assert!(matches!(put().await, Err(DeadLetterError::Server { .. })));
    proxy.set(Mode::Pass);
    eventually_async(DEADLINE, "an answer", async || {
        put().await.is_ok_and(|put| put == RedriveOutcome::AlreadyRedriven)
    })
    .await;
    assert_eq!(app.server.length("{orders}:lane:work"), 1);
}

#[tokio::test]
async fn many_jobs_come_back_in_a_few_round_trips_also_to_a_server_that_forgot_the_script() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let letter = archived(&app, &work).await;
    let event_id = letter.event_id.clone().unwrap();
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let tokens = (0..300).map(|number| format!("t:{number}")).collect::<Vec<_>>();
    let (fields, nothing) = (&letter.fields, Vec::new());
    let job = |token| ArchivedJob { fields, event_id: &event_id, origin: letter.origin, token };
    let mut jobs = tokens.iter().map(|token| job(token)).collect::<Vec<_>>();
    jobs[7].fields = &nothing;
    jobs[8].token = "";
    assert!(letters.redrive_archived_all(&jobs[..1], TOKEN_KEPT).await[0].is_ok());
    app.server.command(&["SCRIPT", "FLUSH"]);
    let answers = letters.redrive_archived_all(&jobs, TOKEN_KEPT).await;
    assert_eq!(answers.len(), 300);
    assert!(matches!(answers[0], Ok(RedriveOutcome::AlreadyRedriven)));
    assert!(matches!(answers[7], Err(DeadLetterError::NothingToRun { .. })));
    assert!(matches!(answers[8], Err(DeadLetterError::Name(_))));
    let put =
        answers.iter().filter(|answer| matches!(answer, Ok(RedriveOutcome::Redriven(_)))).count();
    assert_eq!((put, app.server.length("{orders}:lane:work")), (297, 298));
}

#[tokio::test]
async fn a_job_that_cannot_come_back_changes_nothing() {
    let app = App::start().await;
    let (work, _switch) = switched();
    let letter = archived(&app, &work).await;
    let event_id = letter.event_id.clone().unwrap();
    let nobody = app.client.dead_letters("orders", "nobody").unwrap();
    let error = nobody
        .redrive_archived(&letter.fields, &event_id, None, "t", TOKEN_KEPT)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "there is no group nobody on stream orders");
    let keys = || app.server.query::<u64>(&["DBSIZE"]);
    let before = keys();
    app.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let letters = app.client.dead_letters("orders", "work").unwrap();
    let full = letters.redrive_archived(&letter.fields, &event_id, None, "t", TOKEN_KEPT).await;
    assert!(matches!(full, Err(DeadLetterError::Server { .. })));
    assert_eq!((keys(), app.server.length("{orders}:lane:work")), (before, 0));
    app.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let put = letters.redrive_archived(&letter.fields, &event_id, None, "t", TOKEN_KEPT).await;
    assert!(matches!(put, Ok(RedriveOutcome::Redriven(_))), "the token was not used up");
}
