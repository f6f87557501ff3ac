//! Querying, counting and deleting archived dead letters.

use std::time::Duration;

use sqlx::Executor;
use streamjobs::dead_letter::Reason;
use streamjobs::{EntryId, EventId};
use streamjobs_postgres::Postgres;
use streamjobs_postgres::letters::{
    LetterId, LetterState, QueryError, Request, Selection, SelectionError,
};

use crate::rows::{Archive, Row, dead_lettered};

/// The numbers of the dead letters that a selection matches, oldest first.
async fn found(archive: &Archive, selection: Selection) -> Vec<i64> {
    let page = archive.letters.list(&selection, None, 1_000).await.unwrap();
    assert_eq!(archive.letters.count(&selection).await.unwrap(), page.letters.len() as u64);
    let mut numbers = page.letters.iter().map(|letter| letter.entry_id.unwrap().milliseconds());
    let mut numbers = numbers.by_ref().map(|number| number as i64).collect::<Vec<_>>();
    numbers.reverse();
    numbers
}

#[tokio::test]
async fn each_filter_finds_its_letters_and_no_others() {
    let archive = Archive::start().await;
    let rows = [
        Row::new(1),
        Row { stream: "returns", ..Row::new(2) },
        Row { group: "mail", ..Row::new(3) },
        Row { event_type: "order.paid", ..Row::new(4) },
        Row { reason: "trimmed", error: None, payload: None, ..Row::new(5) },
        Row { fingerprint: "f2", error: Some("Time-out after 5_0% of \\"), ..Row::new(6) },
        Row { payload: Some("{\"amount\":700,\"coupon\":null}"), ..Row::new(7) },
        Row { redriven: true, ..Row::new(8) },
        Row { known_done: true, ..Row::new(9) },
    ];
    let mut ids = Vec::new();
    for row in rows {
        ids.push(row.insert(&archive.pool).await);
    }
    let new = Selection::new;
    let cases = [
        (new(), vec![1, 2, 3, 4, 5, 6, 7]),
        (new().stream("returns"), vec![2]),
        (new().group("mail"), vec![3]),
        (new().event_type("order.paid"), vec![4]),
        (new().reason(Reason::Trimmed), vec![5]),
        (new().fingerprint("f2"), vec![6]),
        (new().event_id("e-7"), vec![7]),
        (new().dead_lettered_from(dead_lettered(6)), vec![6, 7]),
        (new().dead_lettered_before(dead_lettered(3)), vec![1, 2]),
        (
            new().dead_lettered_from(dead_lettered(3)).dead_lettered_before(dead_lettered(5)),
            vec![3, 4],
        ),
        (new().error_contains("time-OUT"), vec![6]),
        (new().error_contains("5_0%"), vec![6]),
        (new().error_contains("%"), vec![6]),
        (new().error_contains("_"), vec![6]),
        (new().error_contains("\\"), vec![6]),
        (new().error_contains("de_lined"), vec![]),
        (new().payload_matches("$.amount > 100"), vec![7]),
        (new().payload_has("$.coupon"), vec![7]),
        (new().payload_has("$.amount ? (@ < 100)"), vec![1, 2, 3, 4, 6]),
        (new().payload_matches("$.amount.nothing > 3"), vec![]),
        (new().state(LetterState::Redriven), vec![8]),
        (new().state(LetterState::KnownDone), vec![9]),
        (new().state(LetterState::All), vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (new().ids([ids[0], ids[7]]), vec![1]),
        (new().ids([ids[0], ids[7]]).state(LetterState::All), vec![1, 8]),
        (new().ids([]), vec![]),
        (new().stream("orders").group("billing").event_id("e-2"), vec![]),
    ];
    for (selection, numbers) in cases {
        assert_eq!(found(&archive, selection.clone()).await, numbers, "{selection:?}");
    }
}

#[tokio::test]
async fn values_are_never_read_as_sql_or_as_patterns() {
    let archive = Archive::start().await;
    archive.fill(2).await;
    for hostile in [
        "'; DROP TABLE streamjobs.dead_letters; --",
        "' OR '1'='1",
        "$1",
        "\\",
        "%",
        "\u{feff}\"",
        "orders\u{1}",
    ] {
        let by_name = [
            Selection::new().stream(hostile),
            Selection::new().group(hostile),
            Selection::new().event_type(hostile),
            Selection::new().fingerprint(hostile),
            Selection::new().event_id(hostile),
            Selection::new().error_contains(hostile),
        ];
        for selection in by_name {
            assert_eq!(archive.letters.count(&selection).await.unwrap(), 0, "{selection:?}");
        }
        let paths =
            [Selection::new().payload_matches(hostile), Selection::new().payload_has(hostile)];
        for selection in paths {
            let refused = archive.letters.count(&selection).await;
            // Some are valid paths, such as a variable; the others are refused.
            let by_path =
                matches!(refused, Err(QueryError::Selection(SelectionError::Path { .. })));
            assert!(by_path || refused.is_ok(), "{refused:?}");
        }
    }
    let nul = archive.letters.count(&Selection::new().group("a\0b")).await;
    let nul = nul.unwrap_err().to_string();
    assert_eq!(nul, "filter group of the selection contains the character U+0000");
    assert_eq!(archive.number("SELECT count(*) FROM streamjobs.dead_letters").await, 2);
}

#[tokio::test]
async fn an_invalid_path_is_refused_before_anything_runs() {
    let archive = Archive::start().await;
    let variables = ["$1", "$x"];
    for path in
        ["$.", "$.a == = 3", "drop table", "$.a like_regex \"(\""].into_iter().chain(variables)
    {
        let selection = Selection::new().payload_has(path);
        let request = Request::new("alice", "a test");
        let refused = archive.letters.redrive(selection, request).record().await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.starts_with("filter payload_has of the selection is not"), "{refused}");
    }
    assert_eq!(archive.number("SELECT count(*) FROM streamjobs.redrives").await, 0);
}

#[tokio::test]
async fn a_letter_comes_back_as_it_was_stored() {
    let archive = Archive::start().await;
    let fields = vec![(b"type".as_slice(), b"t".as_slice()), (b"\0\xff", b"\xc3\x28"), (b"", b"")];
    let row = Row { fields: fields.clone(), ..Row::new(4) };
    let id = row.insert(&archive.pool).await;
    let letter = archive.letters.get(id).await.unwrap().unwrap();
    let kept = letter.fields().iter().map(|(name, value)| (&name[..], &value[..]));
    assert_eq!(kept.collect::<Vec<_>>(), fields);
    assert_eq!(
        (letter.id, letter.stream.as_str(), letter.group.as_str()),
        (id, "orders", "billing")
    );
    assert_eq!((letter.attempts, letter.deliveries), (5, 6));
    assert_eq!(letter.entry_id, Some(EntryId::new(4, 3)));
    assert_eq!(letter.origin, Some(EntryId::new(1, 1)));
    let second = Duration::from_secs(1);
    assert_eq!(letter.dead_lettered_at, dead_lettered(4));
    assert_eq!(letter.last_delivery, Some(dead_lettered(4) - second));
    assert_eq!(letter.first_delivery, Some(dead_lettered(4) - 2 * second));
    assert_eq!(letter.published_at, Some(dead_lettered(4) - 3 * second));
    assert_eq!((letter.state(), letter.redriven_at), (LetterState::Open, None));
    assert_eq!(letter.payload().unwrap()["amount"], 7);
    assert!(!format!("{letter:?}").contains("amount"), "{letter:?}");
    assert_eq!(archive.letters.get(LetterId::new(-1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_payload_that_no_client_can_read_hides_no_letter() {
    let archive = Archive::start().await;
    Row { payload: Some("{\"amount\":1e400}"), ..Row::new(1) }.insert(&archive.pool).await;
    let page = archive.letters.list(&Selection::new(), None, 10).await.unwrap();
    assert_eq!((page.letters.len(), page.letters[0].payload()), (1, None));
}

#[tokio::test]
async fn paging_shows_each_letter_once_while_others_are_archived() {
    let archive = Archive::start().await;
    archive.fill(25).await;
    let selection = Selection::new().stream("orders").group("billing");
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = archive.letters.list(&selection, after, 10).await.unwrap();
        seen.extend(page.letters.iter().map(|letter| letter.entry_id.unwrap().milliseconds()));
        pages += 1;
        // Rows that are added or deleted between two pages do not shift the next page.
        Row::new(100 + pages).insert(&archive.pool).await;
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!((seen, pages), ((1..=25).rev().collect::<Vec<_>>(), 3));
}

#[tokio::test]
async fn pages_are_bounded() {
    let archive = Archive::start().await;
    archive.fill(2).await;
    let page = archive.letters.list(&Selection::new(), None, 0).await.unwrap();
    assert_eq!((page.letters.len(), page.next.is_some()), (1, true));
    let page = archive.letters.list(&Selection::new(), None, usize::MAX).await.unwrap();
    assert_eq!((page.letters.len(), page.next), (2, None));
}

#[tokio::test]
async fn counts_say_how_many_how_long_and_with_which_error() {
    let archive = Archive::start().await;
    let rows = [
        Row { error: Some("declined: 1"), ..Row::new(1) },
        Row { error: Some("declined: 2"), ..Row::new(2) },
        Row { fingerprint: "f2", error: None, ..Row::new(3) },
        Row { group: "mail", ..Row::new(4) },
        Row { redriven: true, ..Row::new(5) },
    ];
    for row in rows {
        row.insert(&archive.pool).await;
    }
    let groups = archive.letters.counts_by_group(&Selection::new()).await.unwrap();
    let groups = groups.iter().map(|group| {
        (
            group.stream.as_str(),
            group.group.as_str(),
            group.letters,
            group.first_seen,
            group.last_seen,
        )
    });
    assert_eq!(
        groups.collect::<Vec<_>>(),
        [
            ("orders", "billing", 3, dead_lettered(1), dead_lettered(3)),
            ("orders", "mail", 1, dead_lettered(4), dead_lettered(4)),
        ]
    );
    let kinds = archive.letters.counts_by_fingerprint(&Selection::new().group("billing")).await;
    let kinds = kinds.unwrap();
    let kinds = kinds.iter().map(|kind| {
        (
            kind.fingerprint.as_str(),
            kind.letters,
            kind.first_seen,
            kind.last_seen,
            kind.error.as_deref(),
        )
    });
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            ("f1", 2, dead_lettered(1), dead_lettered(2), Some("declined: 2")),
            ("f2", 1, dead_lettered(3), dead_lettered(3), None),
        ]
    );
}

#[tokio::test]
async fn common_filters_use_indexes_however_often_they_are_asked() {
    let archive = Archive::start().await;
    let fill = "INSERT INTO streamjobs.dead_letters
        (stream, group_name, letter_id, digest, event_id, reason, fingerprint, attempts, deliveries,
         buried_at, field_names, field_values, redriven_at)
        SELECT 'orders' || n % 5, 'group' || n % 7, n || '-0', '', 'e-' || n, 'exhausted', 'f' || n % 99,
               5, 5, to_timestamp(1700000000 + n), '{}', '{}', CASE WHEN n % 50 <> 0 THEN now() END
        FROM generate_series(1, 30000) n";
    archive.pool.execute(fill).await.unwrap();
    archive.database.owner_pool().execute("ANALYZE streamjobs.dead_letters").await.unwrap();
    // One connection, whose prepared statements would get generic plans from the sixth run on.
    let pool = archive.database.pool_of(1);
    let letters = Postgres::open(pool.clone()).await.unwrap().dead_letters();
    let selections = [
        Selection::new().stream("orders1").group("group2"),
        Selection::new().stream("orders1").group("group2").state(LetterState::All),
        Selection::new().event_id("e-77"),
        Selection::new().fingerprint("f7").state(LetterState::All),
        Selection::new().dead_lettered_before(dead_lettered(1)).state(LetterState::All),
        Selection::new().ids([LetterId::new(7)]),
    ];
    for selection in &selections {
        for _ in 0..10 {
            let page = letters.list(selection, None, 20).await.unwrap();
            assert!(page.letters.len() <= 20);
        }
    }
    pool.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let read = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables
        WHERE relid = 'streamjobs.dead_letters'::regclass";
    // Another transaction, since statistics are written at the end of one.
    let (by_scan, by_index) = sqlx::query_as::<_, (i64, i64)>(read).fetch_one(&pool).await.unwrap();
    // `CREATE INDEX` and `ANALYZE` do not count as scans here.
    assert_eq!(by_scan, 0, "a table was read from end to end");
    assert!((1..60 * 1_000).contains(&by_index), "{by_index} rows for 60 pages of 20");
}

#[tokio::test]
async fn an_event_is_forgotten_wherever_its_id_stands() {
    let archive = Archive::start().await;
    archive.fill(2).await;
    Row { group: "mail", redriven: true, ..Row::new(1) }.insert(&archive.pool).await;
    for selection in [Selection::new().event_id("e-1"), Selection::new()] {
        let request = Request::new("alice", "a test");
        archive.letters.redrive(selection, request).record().await.unwrap();
    }
    let forgotten = archive.letters.forget(&EventId::new("e-1").unwrap()).await.unwrap();
    assert_eq!(forgotten, 2);
    assert_eq!(found(&archive, Selection::new().state(LetterState::All)).await, [2]);
    // The id of a redrive may have the same characters between others.
    let left = "SELECT count(*) FROM streamjobs.redrives r
        FULL JOIN streamjobs.redrive_letters l ON l.redrive_id = r.id
        WHERE to_jsonb(r)::text ~ '[^0-9a-f]e-1[^0-9a-f]' OR to_jsonb(l)::text ~ '[^0-9a-f]e-1[^0-9a-f]'";
    assert_eq!(archive.number(left).await, 0);
    assert_eq!(archive.number("SELECT count(*) FROM streamjobs.redrive_letters").await, 3);
    assert_eq!(archive.letters.forget(&EventId::new("e-1").unwrap()).await.unwrap(), 0);
}

#[tokio::test]
async fn old_letters_are_pruned_in_batches_and_young_ones_stay() {
    let archive = Archive::start().await;
    archive.fill(7).await;
    let owner = archive.database.owner_pool();
    // 1 to 5 are old, 6 was archived late, 7 was dead-lettered just now.
    owner
        .execute(
            "UPDATE streamjobs.dead_letters SET archived_at = buried_at WHERE event_id <= 'e-5';
             UPDATE streamjobs.dead_letters SET buried_at = now() WHERE event_id = 'e-7'",
        )
        .await
        .unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let mut pruned = Vec::new();
    for _ in 0..4 {
        pruned.push(archive.letters.prune(day, 2).await.unwrap());
    }
    assert_eq!(pruned, [2, 2, 1, 0]);
    assert_eq!(found(&archive, Selection::new()).await, [6, 7]);
    assert_eq!(archive.letters.prune(Duration::MAX, 2).await.unwrap(), 0);
}
