//! What holds for every command: help, exit codes, unreachable servers.

use std::process::Stdio;
use std::time::{Duration, Instant};

use streamjobs_tests::server::RedisServer;

use crate::program::{program, run, run_at};

/// One line for each command, with all its required arguments.
const COMMANDS: [&str; 53] = [
    "doctor",
    "info orders",
    "groups orders",
    "consumers orders billing",
    "pending orders billing",
    "retries orders billing",
    "finished orders billing",
    "trend orders billing",
    "diagnose orders billing",
    "event show orders 1-0",
    "publish orders order.placed {}",
    "replay orders",
    "find orders 47",
    "tail orders --count 1",
    "trim orders --length 1 --yes",
    "claim orders billing web-1 1-0 --yes",
    "release orders billing 1-0 --yes",
    "acknowledge orders billing 1-0 --yes",
    "hand-over orders billing web-1 web-2 --yes",
    "remove-consumer orders billing web-1 --yes",
    "reap orders billing",
    "pause orders billing",
    "resume orders billing",
    "group create orders billing",
    "group move orders billing 0 --yes",
    "group destroy orders billing --yes",
    "dead list orders billing",
    "dead show orders billing 1-0",
    "dead redrive orders billing --all --yes",
    "dead purge orders billing --all --yes",
    "scheduled list orders",
    "scheduled count orders",
    "scheduled cancel orders e-1 --yes",
    "scheduled run orders e-1",
    "scheduled reschedule orders e-1 2h",
    "cancel orders e-1 --yes",
    "uncancel orders e-1",
    "cancelled orders",
    "schedule list orders",
    "schedule show orders nightly",
    "schedule run orders nightly",
    "schedule pause orders nightly",
    "schedule resume orders nightly",
    "schedule remove orders nightly --yes",
    "schedule history orders",
    "unique show orders a --type t",
    "unique release orders a --type t --yes",
    "rate show orders billing",
    "rate set orders billing 100/1m",
    "rate reset orders billing",
    "limit show orders billing",
    "limit set orders billing 8 --by a --why x",
    "limit reset orders billing",
];

/// Those of the feature `postgres`, which come after the dead letters in Redis. They have a database of
/// their own, so `archive.rs` tests what holds for them.
const ARCHIVE: [&str; 3] = [
    "archive list --database postgres://127.0.0.1:1/app",
    "archive show 1 --database postgres://127.0.0.1:1/app",
    "archive redrive --database postgres://127.0.0.1:1/app --all --why x",
];

/// All commands in the order of the help, with those of the archive or without them.
fn all(with_archive: bool) -> Vec<&'static str> {
    let place = COMMANDS.iter().position(|command| command.starts_with("scheduled list")).unwrap();
    let (before, after) = COMMANDS.split_at(place);
    let archive = if with_archive { &ARCHIVE[..] } else { &[] };
    [before, archive, after].concat()
}

/// The commands in the program's help, with their descriptions.
fn commands(above: &str) -> Vec<(String, String)> {
    let ran = run_at("redis://127.0.0.1:1", &format!("{above} --help")).ended(0);
    let lines = ran.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty()).map(str::trim);
    let mut found = Vec::new();
    for (name, about) in lines.map(|line| line.split_once("  ").unwrap()) {
        let name = format!("{above} {name}").trim().to_owned();
        let below = commands(&name);
        if below.is_empty() {
            found.push((name, about.trim().to_owned()));
        }
        found.extend(below);
    }
    found
}

fn name(command: &str) -> String {
    let is_argument = |word: &&str| *word == "orders" || word.starts_with("--") || *word == "1";
    let words = command.split(' ').take_while(|word| !is_argument(word));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_of_the_program_is_tested() {
    let named = commands("").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let tested = all(cfg!(feature = "postgres")).into_iter().map(name);
    assert_eq!(named, tested.collect::<Vec<_>>());
}

#[test]
fn the_page_of_all_commands_matches_the_help() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `streamjobs "));
    let is_there = |line: &&str| cfg!(feature = "postgres") || !line.contains(" archive ");
    let rows = rows.filter(is_there);
    let tested = all(cfg!(feature = "postgres"));
    let rows_of_help = commands("").into_iter().zip(tested).map(|((name, about), command)| {
        let words = run_at("redis://127.0.0.1:1", &format!("{name} --help"));
        assert!(command.starts_with(&name), "{command}");
        let usage = words.out.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap();
        let usage = usage.replace(" [OPTIONS]", "").replace('|', "\\|");
        format!("| `{usage}` | {about} |")
    });
    assert_eq!(rows.collect::<Vec<_>>().join("\n"), rows_of_help.collect::<Vec<_>>().join("\n"));
}

/// How a server is named, in the form that it has.
fn named(server: &RedisServer) -> String {
    let url = server.url_without_login();
    let (scheme, place) = url.split_once("://").unwrap();
    match (scheme, place.split_once('/')) {
        ("redis+cluster", _) => format!("cluster {place}"),
        ("redis+sentinel", Some((host, name))) => format!("{name} (Sentinel {host})"),
        _ => place.to_owned(),
    }
}

#[test]
fn an_unreachable_server_ends_with_one_and_prints_no_output() {
    let server = RedisServer::builder().password("canary").start().unwrap();
    let lines =
        COMMANDS.iter().flat_map(|command| [(*command).to_owned(), format!("{command} --json")]);
    let lines = lines.collect::<Vec<_>>();
    for stop in [RedisServer::freeze, RedisServer::kill] {
        stop(&server);
        let begin = Instant::now();
        let ran = std::thread::scope(|threads| {
            let server = &server;
            let started = lines.iter().map(|line| threads.spawn(move || run(server, line)));
            let started = started.collect::<Vec<_>>();
            started.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
        for ran in ran {
            let ran = ran.ended(1);
            assert_eq!(ran.out, "", "no output, and no zeros");
            let server = format!("streamjobs: cannot connect to {}", named(&server));
            assert!(ran.err.starts_with(&server), "{ran:?}");
            assert!(!ran.err.contains("canary"), "{ran:?}");
        }
    }
}

#[test]
fn wrong_arguments_end_with_two_and_are_named() {
    for (line, named) in [
        ("", "Usage: streamjobs"),
        ("delete", "delete"),
        ("dead", "Usage: streamjobs dead"),
        ("dead list orders", "<GROUP>"),
        ("dead list orders bill{ing", "braces are not allowed"),
        ("dead list orders billing --reason sad", "exhausted"),
        ("dead list orders billing --limit 0", "0"),
        ("dead show orders billing x", "not an entry id"),
        ("dead purge orders billing", "<IDS|--all|--reason <REASON>>"),
        ("dead purge orders billing 1-0 --all", "--all"),
        ("pending orders billing --idle-min 30", "such as 30s, 10m"),
        ("retries orders billing --after 1-0", "not a retry id"),
        ("replay orders --from yesterday", "an age such as 10m"),
        ("trim orders --yes", "<--length <COUNT>|--age <DURATION>|--before <POSITION>>"),
        ("trim orders --length 1 --age 1h", "--age"),
        ("claim orders billing web-1", "<IDS>"),
        ("group", "Usage: streamjobs group"),
        ("group move orders billing", "<POSITION>"),
        ("group create orders billing --start end", "0 for the beginning"),
        ("doctor --stream orders", "--group"),
        ("doctor --group billing", "--stream"),
        ("--url http://canary@host doctor", "it does not begin with redis://"),
    ] {
        let ran = run_at("redis://127.0.0.1:1", line).ended(2);
        assert!(ran.err.contains(named) && ran.out.is_empty(), "{line}: {ran:?}");
        assert!(!ran.err.contains("canary"), "{ran:?}");
    }
}

#[test]
fn help_has_examples_and_no_password() {
    for line in ["--help", "dead --help", "group --help", "--version"] {
        let ran = run_at("redis://:canary@127.0.0.1:1", line).ended(0);
        assert!(!ran.out.is_empty() && !ran.out.contains("canary"), "{ran:?}");
    }
    let ran = run_at("redis://:canary@127.0.0.1:1", "--help");
    assert!(ran.out.contains("Exit codes:") && ran.out.contains("STREAMJOBS_URL"), "{ran:?}");
    for command in COMMANDS {
        let name = name(command);
        let ran = run_at("redis://:canary@127.0.0.1:1", &format!("{name} --help")).ended(0);
        assert!(ran.out.contains(&format!("Example:\n  streamjobs {name}")), "{ran:?}");
        assert!(!ran.out.contains("canary"), "{ran:?}");
    }
}

#[test]
fn the_url_option_overrides_the_environment() {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "o", "g", "0", "MKSTREAM"]);
    let url = server.url();
    let _ = run_at("redis://127.0.0.1:1", &format!("dead list o g --url {url}")).ended(0);
    let _ = run_at("redis://127.0.0.1:1", &format!("--url {url} dead list o g")).ended(0);
}

#[test]
fn a_closed_output_is_not_a_failure() {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    let mut tool = program(&server.url());
    tool.args(["dead", "list", "orders", "billing"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A frozen server answers after it is thawed, when the reading end is closed.
    server.freeze();
    let mut child = tool.spawn().unwrap();
    drop(child.stdout.take());
    server.thaw();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""));
}

#[test]
fn an_unknown_stream_or_group_ends_with_one_and_is_named_in_a_dry_run_as_well() {
    let server = RedisServer::start().unwrap();
    server.command(&["XADD", "orders", "1-0", "f", "v"]);
    // `doctor` checks rights on keys that need not exist, and `group create` makes its group.
    let of_others =
        COMMANDS.iter().filter(|line| !["doctor", "group create"].contains(&name(line).as_str()));
    for command in of_others {
        for line in [(*command).to_owned(), command.replace(" --yes", "")] {
            let (line, unknown) = match line.contains("billing") {
                true => (line, "streamjobs: stream orders has no group billing\n"),
                false => {
                    (line.replace("orders", "missing"), "streamjobs: there is no stream missing\n")
                }
            };
            let ran = run(&server, &line).ended(1);
            let is_letter = line.starts_with("dead show") && ran.err.contains("has no dead letter");
            assert!(ran.err == unknown || is_letter, "{line}: {ran:?}");
            assert_eq!(ran.out, "", "{line}");
        }
    }
}
