//! `streamjobs replay` and `tail`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::orders::{ids, server};
use crate::program::{program, run};

/// The ids of the documents, one a line.
fn replayed(server: &streamjobs_tests::server::RedisServer, options: &str) -> Vec<String> {
    let ran = run(server, &format!("replay orders --json {options}")).ended(0);
    let id = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone();
    ran.out.lines().map(|line| id(line).as_str().unwrap().to_owned()).collect()
}

#[test]
fn history_is_replayed_by_ids_times_and_types_with_its_payloads() {
    let server = server();
    server.command(&["XADD", "orders", "*", "type", "order.placed", "note", "a\u{1b}[31m"]);
    let latest = ids(&server).pop().unwrap();
    let ran = run(&server, "replay orders --from 2-0 --to 3").ended(0);
    let expected = "2-0  1970-01-01 00:00:00Z  order.paid\n  type: order.paid\n  \
                    data: {\"card\":\"472\"}\n3-0  1970-01-01 00:00:00Z  order.placed\n  \
                    type: order.placed\n  data: {\"card\":\"473\"}\n";
    assert_eq!(ran.out, expected);
    assert_eq!(replayed(&server, "--from 10m"), [&*latest]);
    assert_eq!(replayed(&server, "--to 1970-01-01T02:00:00+02:00"), Vec::<String>::new());
    assert_eq!(replayed(&server, "--type order.paid --type none"), ["2-0", "4-0", "6-0"]);
    assert_eq!(replayed(&server, "").len(), 7);
    let coloured = run(&server, "replay orders --from 10m").ended(0);
    assert!(coloured.out.contains("note: a\\u{1b}[31m"), "{coloured:?}");
    let cut = run(&server, "replay orders --limit 2").ended(0);
    assert_eq!(cut.err, "more results: --from 3-0\n");
    assert_eq!(server.pending("orders", "billing").len(), 3, "no group was changed");
}

#[test]
fn a_tail_prints_each_entry_at_once_and_ends_after_count() {
    let server = server();
    let ran = run(&server, "tail orders --after 4-0 --count 2").ended(0);
    assert!(ran.out.starts_with("5-0  ") && ran.out.contains("data: {\"card\":\"476\"}"));
    let mut tool = program(&server.url());
    tool.args(["tail", "orders", "--count", "2", "--json", "--after", "5-0"])
        .stdout(Stdio::piped());
    let mut child = tool.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first line is printed before the second entry exists.
    assert!(lines.next().unwrap().unwrap().starts_with("{\"fields\":"));
    server.command(&[b"XADD".as_slice(), b"orders", b"7-0", b"raw", b"\xff\x00"]);
    let second = serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap());
    assert_eq!(second.unwrap()["fields"][0]["value_hex"], "ff00");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(server.pending("orders", "billing").len(), 3, "no group was changed");
}

#[test]
fn a_tail_without_its_server_ends_with_one() {
    let server = server();
    let mut tool = program(&server.url());
    tool.args(["tail", "orders", "--after", "5-0", "--json"]);
    let mut child = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"id\":\"6-0\""));
    server.kill();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), lines.count()), (Some(1), 0));
    assert!(errors.starts_with("streamjobs: cannot follow stream orders: "), "{errors}");
}

#[test]
fn entries_are_found_by_a_text_from_the_newest_back() {
    let server = server();
    let ran = run(&server, "find orders 472").ended(0);
    let rows = ran.out.lines().collect::<Vec<_>>();
    assert_eq!(rows.len(), 2, "{ran:?}");
    assert!(rows[1].starts_with("2-0    1970-01-01 00:00:00Z  order.paid"), "{ran:?}");
    assert!(
        ran.err.starts_with("6 entries were compared, ")
            && ran.err.ends_with(" back to 1-0, all\n")
    );
    let page = run(&server, "find orders order.p --limit 4 --json").ended(0).json();
    let ids = |page: &serde_json::Value| {
        let entries = page["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), ["6-0", "5-0", "4-0", "3-0"]);
    assert_eq!((&page["more_before"], &page["compared"]), (&"3-0".into(), &4.into()));
    assert!(page["entries"][0].get("fields").is_none(), "replay prints payloads");
    let rest = run(&server, "find orders order.p --before 3-0 --json").ended(0).json();
    assert_eq!(
        (ids(&rest), &rest["more_before"]),
        (vec!["2-0".to_owned(), "1-0".into()], &serde_json::Value::Null)
    );
    let none = run(&server, "find orders nothing").ended(0);
    assert_eq!(none.out.lines().count(), 1, "{none:?}");
    run(&server, "find orders ").ended(2);
    run(&server, "find missing x").ended(1);
    assert_eq!(server.pending("orders", "billing").len(), 3, "no group was changed");
}
