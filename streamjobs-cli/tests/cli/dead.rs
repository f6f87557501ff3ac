//! `streamjobs dead`: listing, showing, redriving and purging dead letters.

use streamjobs_tests::server::RedisServer;

use crate::program::run;

const DEAD: &str = "{orders}:dead:billing";
const LANE: &str = "{orders}:lane:billing";

/// A server with three dead letters: two that can be run again, and one without its payload.
fn server() -> RedisServer {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    for (id, reason, payload) in
        [("1-0", "exhausted", true), ("2-0", "rejected", true), ("3-0", "trimmed", false)]
    {
        let mut words = vec!["XADD", DEAD, id, "sj-dead-reason", reason];
        words.extend(["sj-dead-error", "red \u{1b}[31m\nalert", "sj-dead-attempts", "5"]);
        words.extend(["sj-dead-deliveries", "6", "sj-dead-entry", "9-9"]);
        if payload {
            words.extend([
                "type",
                "order.placed",
                "data",
                "{\"card\":\"4711\"}",
                "sj-dead-event",
                id,
            ]);
        }
        server.command(&words);
    }
    server
}

#[test]
fn letters_are_listed_without_their_payloads() {
    let server = server();
    let ran = run(&server, "dead list orders billing").ended(0);
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 4, "{ran:?}");
    assert!(lines[0].starts_with("ID   DEAD-LETTERED"), "{ran:?}");
    let cells = lines[1].split_whitespace().collect::<Vec<_>>();
    let expected = ["1-0", "1970-01-01", "00:00:00Z", "exhausted", "order.placed", "5", "6"];
    assert_eq!(cells[..7], expected);
    assert!(ran.out.contains("red \\u{1b}[31m\\nalert"), "{ran:?}");
    assert!(!ran.out.contains("4711"), "{ran:?}");
    let document = run(&server, "dead list orders billing --json").ended(0).json();
    let letters = document["letters"].as_array().unwrap();
    assert_eq!((letters.len(), &letters[2]["reason"]), (3, &"trimmed".into()));
    assert!(document["more_after"].is_null() && !document.to_string().contains("4711"));
}

#[test]
fn a_list_moves_no_payloads_and_says_their_size() {
    let server = server();
    let payload = "x".repeat(1_000_000);
    for _ in 0..30 {
        server.command(&["XADD", DEAD, "*", "sj-dead-reason", "exhausted", "data", &payload]);
    }
    let sent = || server.info("total_net_output_bytes").unwrap().parse::<u64>().unwrap();
    let before = sent();
    let document = run(&server, "dead list orders billing --limit 40 --json").ended(0).json();
    assert!(sent() - before < 100_000, "{} bytes", sent() - before);
    let letters = document["letters"].as_array().unwrap();
    assert_eq!((letters.len(), &document["more_after"]), (33, &serde_json::Value::Null));
    assert_eq!(
        (&letters[0]["payload_bytes"], &letters[2]["payload_bytes"]),
        (&19.into(), &0.into())
    );
    assert_eq!(letters[32]["payload_bytes"], 1_000_004);
}

#[test]
fn a_list_continues_after_the_last_letter_shown() {
    let server = server();
    let ran = run(&server, "dead list orders billing --limit 2").ended(0);
    assert_eq!((ran.out.lines().count(), ran.err.trim()), (3, "more results: --after 2-0"));
    let rest = run(&server, "dead list orders billing --json --after 2-0").ended(0).json();
    assert_eq!(rest["letters"][0]["id"], "3-0");
    let exact = run(&server, "dead list orders billing --limit 3").ended(0);
    assert_eq!(exact.err, "");
    let one = run(&server, "dead list orders billing --reason rejected --json").json();
    assert_eq!((one["letters"].as_array().unwrap().len(), &one["more_after"]), (1, &().into()));
    let none = run(&server, "dead list orders billing --reason crashed").ended(0);
    assert_eq!(none.out.lines().count(), 1, "a table head only: {none:?}");
    for command in ["list", "redrive", "purge"] {
        let all = if command == "list" { "" } else { " --all" };
        let missing = run(&server, &format!("dead {command} orders missing{all}")).ended(1);
        assert_eq!(missing.err, "streamjobs: stream orders has no group missing\n");
    }
}

#[test]
fn many_letters_are_listed_over_several_pages() {
    let server = RedisServer::start().unwrap();
    for number in 1..=250 {
        let id = format!("{number}-0");
        let reason = if number % 100 == 0 { "crashed" } else { "exhausted" };
        server.command(&["XADD", DEAD, &id, "sj-dead-reason", reason, "type", "t", "data", "{}"]);
    }
    let all = run(&server, "dead list orders billing --limit 1000 --json").json();
    assert_eq!(all["letters"].as_array().unwrap().len(), 250);
    let cut = run(&server, "dead list orders billing --limit 120 --json").json();
    let (letters, more) = (cut["letters"].as_array().unwrap(), &cut["more_after"]);
    assert_eq!((letters.len(), more), (120, &"120-0".into()));
    let crashed = run(&server, "dead list orders billing --reason crashed --limit 1 --json").json();
    assert_eq!(
        (&crashed["letters"][0]["id"], &crashed["more_after"]),
        (&"100-0".into(), &"100-0".into())
    );
    let purged = run(&server, "dead purge orders billing --all --yes --json").ended(0).json();
    assert_eq!((&purged["done"], server.length(DEAD)), (&250.into(), 0));
}

#[test]
fn one_letter_is_shown_with_its_payload() {
    let server = server();
    let ran = run(&server, "dead show orders billing 1-0").ended(0);
    assert!(ran.out.contains("reason           exhausted"), "{ran:?}");
    assert!(ran.out.contains("field data: {\"card\":\"4711\"}"), "{ran:?}");
    assert!(!ran.out.contains('\u{1b}'), "{ran:?}");
    server.command(&[b"XADD".as_slice(), DEAD.as_bytes(), b"4-0", b"raw", b"\xff\x00"]);
    let document = run(&server, "dead show orders billing 4-0 --json").ended(0).json();
    let expected = serde_json::json!([{ "name": "raw", "value_hex": "ff00" }]);
    assert_eq!(document["fields"], expected);
    let missing = run(&server, "dead show orders billing 77-0").ended(1);
    assert_eq!(missing.err, "streamjobs: group billing on stream orders has no dead letter 77-0\n");
}

#[test]
fn nothing_is_changed_without_yes() {
    let server = server();
    for (action, choice, chosen) in [
        ("redrive", "--all", "2 of 3 dead letters"),
        ("redrive", "1-0", "1 dead letter"),
        ("purge", "--reason rejected", "1 dead letter"),
        ("purge", "1-0 2-0 2-0", "2 dead letters"),
    ] {
        let line = format!("dead {action} orders billing {choice}");
        let ran = run(&server, &line).ended(3);
        let would = format!("would {action} {chosen} of group billing on stream orders\n");
        assert!(ran.out.starts_with(&would) && ran.out.contains("--yes"), "{ran:?}");
        let refused = if choice == "--all" { "3-0 of group billing on stream orders" } else { "" };
        assert!(ran.err.contains(refused) && ran.err.is_empty() == refused.is_empty(), "{ran:?}");
        let document = run(&server, &format!("{line} --json")).ended(3).json();
        assert_eq!((&document["dry_run"], &document["done"]), (&true.into(), &0.into()));
        let skipped = document["skipped"].as_array().unwrap();
        assert_eq!(skipped.len(), usize::from(!refused.is_empty()), "{document}");
        assert_eq!((server.length(DEAD), server.length(LANE)), (3, 0));
    }
}

#[test]
fn letters_are_redriven_and_those_that_cannot_be_are_reported() {
    let server = server();
    let ran = run(&server, "dead redrive orders billing 1-0 --yes").ended(0);
    assert_eq!(ran.out, "redriven 1 of 1 dead letter of group billing on stream orders\n");
    assert_eq!((server.length(DEAD), server.length(LANE)), (2, 1));
    assert_eq!(server.entries(LANE)[0].text("sj-id").as_deref(), Some("1-0"));
    let document = run(&server, "dead redrive orders billing --all --yes --json").ended(3).json();
    assert_eq!((&document["selected"], &document["done"]), (&2.into(), &1.into()));
    assert_eq!(document["skipped"][0]["id"], "3-0");
    assert_eq!((server.length(DEAD), server.length(LANE)), (1, 2));
    let again = run(&server, "dead redrive orders billing 1-0 --yes").ended(3);
    assert!(again.err.contains("has no dead letter 1-0"), "{again:?}");
    assert_eq!(server.length(LANE), 2, "never twice");
}

#[test]
fn letters_of_a_group_that_is_gone_are_not_redriven() {
    let server = server();
    server.command(&["XGROUP", "DESTROY", "orders", "billing"]);
    for line in ["dead redrive orders billing --all", "dead redrive orders billing --all --yes"] {
        let ran = run(&server, line);
        assert!(ran.code != 0 && ran.err.contains("its group does not exist"), "{ran:?}");
    }
    assert_eq!((server.length(DEAD), server.length(LANE)), (3, 0));
}

#[test]
fn letters_are_purged_by_id_and_by_reason() {
    let server = server();
    let ran = run(&server, "dead purge orders billing --reason trimmed --yes").ended(0);
    assert_eq!(ran.out, "purged 1 of 1 dead letter of group billing on stream orders\n");
    let document = run(&server, "dead purge orders billing 1-0 77-0 --yes --json").ended(3).json();
    assert_eq!((&document["selected"], &document["done"]), (&2.into(), &1.into()));
    let left = server.entries(DEAD).into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(left, ["2-0"]);
    assert_eq!(server.length(LANE), 0);
}
