//! A handle to the dead letters of some streams, which reaches no others.

use std::time::Duration;

use sqlx::Executor;
use streamjobs::{EventId, StreamName};
use streamjobs_postgres::letters::{LetterState, Redrive, RedriveError, Request, Selection};

use crate::rows::{Archive, Row};

fn names<const N: usize>(names: [&str; N]) -> [StreamName; N] {
    names.map(|name| StreamName::new(name).unwrap())
}

#[tokio::test]
async fn a_handle_of_some_streams_has_no_letters_and_no_redrives_of_others() {
    let (archive, _server, client) = Archive::with_redis().await;
    let own = Row::new(1).insert(&archive.pool).await;
    let other = Row { stream: "returns", ..Row::new(2) }.insert(&archive.pool).await;
    // One event has letters of both streams.
    let same = Row { event_id: Some("e-1".to_owned()), stream: "returns", ..Row::new(3) };
    same.insert(&archive.pool).await;
    let letters = archive.letters.clone().of_streams(names(["orders", "missing"]));
    let (all, view) = (Selection::new().state(LetterState::All), letters.view());
    assert_eq!(letters.count(&all).await.unwrap(), 1);
    assert_eq!(letters.count(&Selection::new().stream("returns")).await.unwrap(), 0);
    assert_eq!(letters.count(&Selection::new().streams(["returns", "orders"])).await.unwrap(), 1);
    assert_eq!(letters.counts_by_group(&all).await.unwrap().len(), 1);
    assert_eq!(letters.counts_by_fingerprint(&all).await.unwrap()[0].letters, 1);
    assert_eq!(letters.list(&all, None, 9).await.unwrap().letters.len(), 1);
    assert_eq!(view.list(&all, None, 9).await.unwrap().letters.len(), 1);
    assert_eq!(view.kinds(&all).await.unwrap().letters, 1);
    assert_eq!(view.plan(&all).await.unwrap().letters, 1);
    assert_eq!(view.open().await.unwrap().by_group.len(), 1);
    for (id, is_found) in [(own, true), (other, false)] {
        assert_eq!(letters.get(id).await.unwrap().is_some(), is_found);
        assert_eq!(view.get(id).await.unwrap().is_some(), is_found);
    }
    // A narrower handle has the streams that are in both.
    let none = letters.clone().of_streams(names(["returns"]));
    assert_eq!(none.count(&all).await.unwrap(), 0);

    let request = || Request::new("alice", "ticket 4711");
    let redrive = |selection| archive.letters.redrive(selection, request());
    let wide = redrive(Selection::new()).record().await.unwrap();
    let named = redrive(Selection::new().stream("orders")).record().await.unwrap();
    for (id, is_found) in [(wide, false), (named, true)] {
        assert_eq!(letters.outcomes(id, None, 9).await.unwrap().is_empty(), !is_found);
        let cancelled = letters.cancel(id).await;
        assert_eq!(cancelled.is_ok(), is_found, "{cancelled:?}");
        let resumed = letters.resume(id, &client).await;
        assert_eq!(
            resumed.is_err_and(|error| matches!(error, RedriveError::Unknown { .. })),
            !is_found
        );
    }
    let done = letters.redrive(Selection::new(), request()).start(&client).await.unwrap();
    assert_eq!((done.letters, done.done), (1, 1));
    let shown =
        |redrives: Vec<Redrive>| redrives.iter().map(|redrive| redrive.id).collect::<Vec<_>>();
    assert_eq!(shown(letters.redrives(None, 9).await.unwrap()), [done.id, named]);
    assert_eq!(shown(view.redrives(9).await.unwrap()), [done.id, named]);
    assert_eq!(archive.letters.redrives(None, 9).await.unwrap().len(), 3);

    let forget = "SELECT count(*) FROM streamjobs.redrive_letters WHERE event_id IS NULL";
    assert_eq!(letters.forget(&EventId::new("e-1").unwrap()).await.unwrap(), 1);
    assert_eq!(archive.number(forget).await, 3, "the letter was in three redrives");
    let old = "UPDATE streamjobs.dead_letters SET archived_at = buried_at";
    archive.pool.execute(old).await.unwrap();
    assert_eq!(letters.prune(Duration::ZERO, 9).await.unwrap(), 0);
    assert_eq!(archive.letters.count(&all).await.unwrap(), 2);
    assert_eq!(archive.letters.prune(Duration::ZERO, 9).await.unwrap(), 2);
}
