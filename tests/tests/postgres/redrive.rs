//! Redriving archived dead letters: each job goes back once; pace, stop, resume and audit.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use streamjobs::dead_letter::TOKEN_KEPT;
use streamjobs::{Client, EventId};
use streamjobs_postgres::Postgres;
use streamjobs_postgres::letters::{
    DeadLetters, LetterState, OutcomeState, Redrive, RedriveError, RedriveId, RedriveState,
    Request, Selection,
};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{PgServer, Role};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use crate::app::{commits, watch_commits};
use crate::rows::{Archive, Row, redis};

const LANE: &str = "{orders}:lane:billing";
const DEADLINE: Duration = Duration::from_secs(30);

fn request() -> Request {
    Request::new("alice", "the bank is back, ticket 4711")
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// The event ids in the lane, in its order.
fn lane(server: &RedisServer) -> Vec<String> {
    server.entries(LANE).iter().map(|entry| entry.text("sj-id").unwrap()).collect()
}

fn events(numbers: impl IntoIterator<Item = i64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("e-{number}")).collect()
}

fn counts(redrive: &Redrive) -> (RedriveState, u64, u64, u64, u64) {
    (redrive.state, redrive.letters, redrive.done, redrive.failed, redrive.skipped)
}

#[tokio::test]
async fn a_redrive_puts_back_what_matches_and_says_who_and_why() {
    let (archive, server, client) = Archive::with_redis().await;
    let ids = archive.fill(3).await;
    Row { error: Some("address unknown"), ..Row::new(4) }.insert(&archive.pool).await;
    let declined = Selection::new().error_contains("declined");
    let report = archive.letters.redrive(declined.clone(), request()).start(&client).await.unwrap();
    assert_eq!(counts(&report), (RedriveState::Finished, 3, 3, 0, 0));
    assert_eq!(lane(&server), events([1, 2, 3]));
    let entry = &server.entries(LANE)[0];
    assert_eq!(entry.text("data").as_deref(), Some("{\"amount\":7}"));
    assert_eq!((entry.text("sj-origin").as_deref(), entry.text("sj-attempt")), (Some("1-1"), None));

    let audit = archive.letters.redrives(None, 10).await.unwrap();
    assert_eq!(audit, std::slice::from_ref(&report));
    assert_eq!(
        (audit[0].by.as_str(), audit[0].why.as_str()),
        ("alice", "the bank is back, ticket 4711")
    );
    assert_eq!(serde_json::from_value::<Selection>(audit[0].selection.clone()).unwrap(), declined);
    assert!(audit[0].finished_at >= Some(audit[0].requested_at));
    let outcomes = archive.letters.outcomes(report.id, None, 10).await.unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.letter).collect::<Vec<_>>(), ids);
    assert!(outcomes.iter().all(|outcome| outcome.state == OutcomeState::Done));
    assert_eq!(outcomes[0].entry_id.unwrap().to_string(), entry.id);
    let open = archive.letters.list(&Selection::new(), None, 10).await.unwrap().letters;
    assert_eq!(
        open.iter().map(|letter| letter.event_id.as_deref()).collect::<Vec<_>>(),
        [Some("e-4")]
    );
}

#[tokio::test]
async fn one_letter_is_put_back_once_and_again_only_when_that_is_said() {
    let (archive, server, client) = Archive::with_redis().await;
    let ids = archive.fill(2).await;
    let one = || Selection::new().ids([ids[1]]);
    let redrive = |selection| archive.letters.redrive(selection, request());
    let first = redrive(one()).start(&client).await.unwrap();
    let second = redrive(one()).start(&client).await.unwrap();
    assert_eq!((counts(&first).2, counts(&second)), (1, (RedriveState::Finished, 0, 0, 0, 0)));
    assert_eq!(lane(&server), events([2]));
    for selection in [one().state(LetterState::All), Selection::new().state(LetterState::Redriven)]
    {
        let refused = redrive(selection).start(&client).await;
        assert!(matches!(refused, Err(RedriveError::NotOpen)), "{refused:?}");
    }
    let refused = redrive(Selection::new().group("billing")).again().start(&client).await;
    assert!(matches!(refused, Err(RedriveError::NotOpen)), "{refused:?}");
    let again = redrive(one()).again().start(&client).await.unwrap();
    assert_eq!(counts(&again), (RedriveState::Finished, 1, 1, 0, 0));
    assert_eq!(lane(&server), events([2, 2]));
}

#[tokio::test]
async fn a_request_needs_who_and_why() {
    let (archive, _server, client) = Archive::with_redis().await;
    let long = "x".repeat(1_001);
    for (by, why) in [("", "y"), ("x", " "), ("x", "y\0"), (long.as_str(), "y")] {
        let redrive = archive.letters.redrive(Selection::new(), Request::new(by, why));
        let refused = redrive.start(&client).await;
        assert!(matches!(refused, Err(RedriveError::Request { .. })), "{refused:?}");
    }
    assert_eq!(archive.number("SELECT count(*) FROM streamjobs.redrives").await, 0);
}

#[tokio::test]
async fn a_dry_run_reports_and_changes_nothing() {
    let (archive, server, _client) = Archive::with_redis().await;
    archive.fill(12).await;
    Row { group: "mail", fields: Vec::new(), ..Row::new(13) }.insert(&archive.pool).await;
    let plan = archive.letters.redrive(Selection::new(), request()).dry_run().await.unwrap();
    assert_eq!((plan.letters, plan.not_runnable), (13, 1));
    let groups = plan.by_group.iter().map(|group| (group.group.as_str(), group.letters));
    assert_eq!(groups.collect::<Vec<_>>(), [("billing", 12), ("mail", 1)]);
    let sample = plan.sample.iter().map(|letter| letter.event_id.clone().unwrap());
    assert_eq!(sample.collect::<Vec<_>>(), events(1..=10));
    let written = "SELECT (SELECT count(*) FROM streamjobs.redrives)
        + (SELECT count(*) FROM streamjobs.dead_letters WHERE redriven_at IS NOT NULL)";
    assert_eq!(archive.number(written).await, 0);
    assert_eq!(server.length(LANE), 0);
}

#[tokio::test]
async fn a_letter_that_cannot_be_put_back_fails_and_stays_as_it_was() {
    let (archive, server, client) = Archive::with_redis().await;
    let rows = [
        Row { group: "gone", ..Row::new(1) },
        Row { stream: "nowhere", ..Row::new(2) },
        Row { fields: Vec::new(), ..Row::new(3) },
        Row { event_id: None, ..Row::new(4) },
        Row { group: "no{group}", ..Row::new(5) },
        Row::new(6),
    ];
    for row in rows {
        row.insert(&archive.pool).await;
    }
    let report = archive.letters.redrive(Selection::new(), request()).start(&client).await.unwrap();
    assert_eq!(counts(&report), (RedriveState::Finished, 6, 1, 5, 0));
    assert_eq!(lane(&server), events([6]));
    let outcomes = archive.letters.outcomes(report.id, None, 10).await.unwrap();
    let errors = outcomes.iter().map(|outcome| outcome.error.clone().unwrap_or_default());
    let errors = errors.collect::<Vec<_>>();
    assert_eq!(errors[0], "there is no group gone on stream orders");
    assert_eq!(errors[1], "there is no group billing on stream nowhere");
    assert_eq!(errors[2..4], ["its payload was trimmed", "its event has no id"]);
    assert!(errors[4].contains("group"), "{errors:?}");
    assert_eq!(archive.letters.count(&Selection::new()).await.unwrap(), 5);
    assert_eq!(server.length("nowhere"), 0);
}

#[tokio::test]
async fn a_redrive_stops_at_its_limit_of_failures_and_can_be_resumed() {
    let (archive, server, client) = Archive::with_redis().await;
    for number in 1..=10 {
        Row { group: if number <= 7 { "gone" } else { "billing" }, ..Row::new(number) }
            .insert(&archive.pool)
            .await;
    }
    let redrive = archive.letters.redrive(Selection::new(), request()).stop_after(count(3));
    let stopped = redrive.start(&client).await.unwrap();
    assert_eq!(counts(&stopped), (RedriveState::Stopped, 10, 0, 3, 0));
    assert_eq!(stopped.waiting(), 7);
    let stopped = archive.letters.resume(stopped.id, &client).await.unwrap();
    assert_eq!(counts(&stopped), (RedriveState::Stopped, 10, 0, 6, 0));
    let ended = archive.letters.resume(stopped.id, &client).await.unwrap();
    assert_eq!(counts(&ended), (RedriveState::Finished, 10, 3, 7, 0));
    assert_eq!(lane(&server), events([8, 9, 10]));
    let same = archive.letters.resume(stopped.id, &client).await.unwrap();
    assert_eq!(same, ended, "a redrive that ended is returned unchanged");
    assert_eq!(server.length(LANE), 3);
}

/// Asserts a lower bound only: on a slow machine it takes longer, never shorter.
#[tokio::test]
async fn a_rate_bounds_how_fast_all_processes_together_put_back() {
    let (archive, server, client) = Archive::with_redis().await;
    archive.fill(20).await;
    let redrive = archive.letters.redrive(Selection::new(), request()).rate(count(50));
    let id = redrive.record().await.unwrap();
    let begin = Instant::now();
    let (letters, other) = (archive.letters.clone(), client.clone());
    let (one, two) = tokio::join!(letters.resume(id, &client), letters.resume(id, &other));
    // Four batches of five and three pauses of a tenth of a second.
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(lane(&server), events(1..=20));
}

#[tokio::test]
async fn two_processes_that_resume_one_request_put_each_job_back_once() {
    let (archive, server, client) = Archive::with_redis().await;
    archive.fill(450).await;
    let id = archive.letters.redrive(Selection::new(), request()).record().await.unwrap();
    let clients = [client.clone(), Client::connect(&server.url()).await.unwrap(), client];
    let resumed = clients.iter().map(|client| archive.letters.resume(id, client));
    for report in futures_util::future::join_all(resumed).await {
        assert_eq!(counts(&report.unwrap()), (RedriveState::Finished, 450, 450, 0, 0));
    }
    assert_eq!(lane(&server), events(1..=450));
}

#[tokio::test]
async fn two_requests_for_the_same_letters_put_each_job_back_once() {
    let (archive, server, client) = Archive::with_redis().await;
    archive.fill(250).await;
    put_back_by_two_requests(&archive.letters, &client).await;
    assert_eq!(server.length(LANE), 250);
}

#[tokio::test]
async fn the_request_is_on_disk_before_a_job_goes_back() {
    let archive = Archive::start().await;
    watch_commits(&archive.database, "redrives").await;
    archive.fill(1).await;
    let options = archive.database.options(Role::Run).options([("synchronous_commit", "off")]);
    let postgres = Postgres::open(PgPoolOptions::new().connect_lazy_with(options)).await.unwrap();
    postgres.dead_letters().redrive(Selection::new(), request()).record().await.unwrap();
    assert_eq!(commits(&archive.pool).await, ["on"]);
}

#[tokio::test]
async fn sessions_that_are_serializable_by_default_change_nothing() {
    let (server, client) = redis().await;
    let postgres = PgServer::start().unwrap();
    let archive = Archive::on(&postgres).await;
    archive.fill(250).await;
    let strict = [("default_transaction_isolation", "serializable")];
    let options = archive.database.options(Role::Run).options(strict);
    let pool = PgPoolOptions::new().connect_lazy_with(options);
    let letters = Postgres::open(pool).await.unwrap().dead_letters();
    put_back_by_two_requests(&letters, &client).await;
    assert_eq!(server.length(LANE), 250);
    let log = postgres.log();
    assert!(!log.contains("could not serialize"), "{log}");
}

async fn put_back_by_two_requests(letters: &DeadLetters, client: &Client) {
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(letters.redrive(Selection::new(), request()).record().await.unwrap());
    }
    let resumed = ids.iter().map(|id| letters.resume(*id, client));
    let reports = futures_util::future::join_all(resumed).await;
    let reports = reports.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let done = reports.iter().map(|report| report.done).sum::<u64>();
    let skipped = reports.iter().map(|report| report.skipped).sum::<u64>();
    assert_eq!((done, skipped), (250, 250));
}

/// Starts a redrive of all dead letters and drops it after Redis has put a batch back and before
/// the reply arrives, as if its process had crashed there.
async fn killed_in_the_middle(archive: &Archive, server: &RedisServer) -> RedriveId {
    let proxy = FaultProxy::start(server).unwrap();
    let client = without_replies(&proxy).await;
    let id = archive.letters.redrive(Selection::new(), request()).record().await.unwrap();
    tokio::select! {
        ended = archive.letters.resume(id, &client) => panic!("it ended: {ended:?}"),
        () = put_back_without_reply(&proxy, server) => {}
    }
    id
}

/// A client whose replies about redriven jobs the proxy does not pass on. The script is loaded
/// before, so that the first reply is not NOSCRIPT.
async fn without_replies(proxy: &FaultProxy) -> Client {
    let client = Client::connect(proxy.url()).await.unwrap();
    let gone = client.dead_letters("orders", "gone").unwrap();
    let (fields, event) = (vec![("type".into(), "t".into())], EventId::new("e").unwrap());
    gone.redrive_archived(&fields, &event, None, "t", TOKEN_KEPT).await.unwrap_err();
    proxy.set(Mode::HoldReplyTo(String::from("amount")));
    client
}

async fn put_back_without_reply(proxy: &FaultProxy, server: &RedisServer) {
    let put = async || proxy.held() > 0 && server.length(LANE) > 0;
    eventually_async(DEADLINE, "a batch is put back without a reply", put).await;
}

#[tokio::test]
async fn a_redrive_killed_in_the_middle_is_resumed_and_puts_each_job_back_once() {
    let (archive, server, client) = Archive::with_redis().await;
    archive.fill(250).await;
    let id = killed_in_the_middle(&archive, &server).await;
    let put = server.length(LANE);
    assert!((1..250).contains(&put), "{put} were put back before");
    assert_eq!(archive.number("SELECT done FROM streamjobs.redrives").await, 0);
    let report = archive.letters.resume(id, &client).await.unwrap();
    assert_eq!(counts(&report), (RedriveState::Finished, 250, 250, 0, 0));
    assert_eq!(lane(&server), events(1..=250));
    let outcomes = archive.letters.outcomes(id, None, 1_000).await.unwrap();
    let unknown = outcomes.iter().filter(|outcome| outcome.entry_id.is_none()).count();
    assert_eq!(unknown, put, "their entry ids were lost with the reply");
}

#[tokio::test]
async fn a_database_that_dies_before_the_commit_makes_no_job_go_back_twice() {
    let (postgres, (server, _)) = (PgServer::start().unwrap(), redis().await);
    let (archive, proxy) = (Archive::on(&postgres).await, FaultProxy::start(&server).unwrap());
    archive.fill(150).await;
    let client = without_replies(&proxy).await;
    let redriving = archive.letters.redrive(Selection::new(), request());
    let die = async {
        put_back_without_reply(&proxy, &server).await;
        postgres.kill();
        proxy.set(Mode::Pass);
        postgres.restart().unwrap();
    };
    let (report, ()) = tokio::join!(redriving.start(&client), die);
    assert_eq!(counts(&report.unwrap()), (RedriveState::Finished, 150, 150, 0, 0));
    assert_eq!(lane(&server), events(1..=150));
}

#[tokio::test]
async fn a_redrive_goes_on_when_redis_comes_back() {
    let archive = Archive::start().await;
    let server = RedisServer::builder().append_only(true).start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    let client = Client::connect(&server.url()).await.unwrap();
    archive.fill(120).await;
    server.kill();
    let letters = archive.letters.clone();
    let redriving = letters.redrive(Selection::new(), request());
    let restart = async {
        eventually_async(DEADLINE, "the redrive is recorded", async || {
            archive.number("SELECT count(*) FROM streamjobs.redrives").await == 1
        })
        .await;
        server.restart().unwrap();
    };
    let (report, ()) = tokio::join!(redriving.start(&client), restart);
    assert_eq!(counts(&report.unwrap()), (RedriveState::Finished, 120, 120, 0, 0));
    assert_eq!(lane(&server), events(1..=120));
}

#[tokio::test]
async fn a_cancelled_redrive_puts_nothing_more_back() {
    let (archive, server, client) = Archive::with_redis().await;
    archive.fill(30).await;
    let redrive = archive.letters.redrive(Selection::new(), request()).rate(count(20));
    let id = redrive.record().await.unwrap();
    let cancel = async {
        eventually_async(DEADLINE, "it has begun", async || server.length(LANE) > 0).await;
        let cancelled = archive.letters.cancel(id).await.unwrap();
        (cancelled, server.length(LANE))
    };
    let (report, (cancelled, put)) = tokio::join!(archive.letters.resume(id, &client), cancel);
    assert_eq!(report.unwrap(), cancelled);
    assert_eq!(cancelled.state, RedriveState::Cancelled);
    assert_eq!((cancelled.done, put, server.length(LANE)), (put as u64, put, put));
    assert!((1..30).contains(&put));
    let resumed = archive.letters.resume(id, &client).await.unwrap();
    assert_eq!((resumed.state, server.length(LANE)), (RedriveState::Cancelled, put));
    let unknown = archive.letters.cancel(RedriveId::new(99)).await;
    assert!(matches!(unknown, Err(RedriveError::Unknown { .. })), "{unknown:?}");
    let unknown = archive.letters.resume(RedriveId::new(99), &client).await;
    assert!(matches!(unknown, Err(RedriveError::Unknown { .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_letter_that_was_deleted_before_its_turn_is_skipped() {
    let (archive, server, client) = Archive::with_redis().await;
    archive.fill(3).await;
    let id = archive.letters.redrive(Selection::new(), request()).record().await.unwrap();
    let delete = "DELETE FROM streamjobs.dead_letters WHERE event_id = 'e-2'";
    sqlx::query(delete).execute(&archive.pool).await.unwrap();
    let known = "UPDATE streamjobs.dead_letters SET known_done = true WHERE event_id = 'e-3'";
    sqlx::query(known).execute(&archive.pool).await.unwrap();
    let report = archive.letters.resume(id, &client).await.unwrap();
    assert_eq!(counts(&report), (RedriveState::Finished, 3, 1, 0, 2));
    assert_eq!(lane(&server), events([1]));
    let outcomes = archive.letters.outcomes(id, None, 10).await.unwrap();
    let errors = outcomes.iter().filter_map(|outcome| outcome.error.as_deref());
    assert_eq!(
        errors.collect::<Vec<_>>(),
        ["it was deleted", "the guard says that its job was done"]
    );
}

#[tokio::test]
async fn large_payloads_go_in_smaller_batches() {
    static LARGE: [u8; 3 * 1024 * 1024] = [b'x'; 3 * 1024 * 1024];
    let (archive, server, client) = Archive::with_redis().await;
    for number in 1..=5 {
        let fields = vec![(b"data".as_slice(), LARGE.as_slice())];
        Row { fields, ..Row::new(number) }.insert(&archive.pool).await;
    }
    let report = archive.letters.redrive(Selection::new(), request()).start(&client).await.unwrap();
    assert_eq!(counts(&report), (RedriveState::Finished, 5, 5, 0, 0));
    assert_eq!(lane(&server), events(1..=5));
}
