//! `streamjobs archive`: on a private Redis and a private Postgres.

use std::time::Duration;

use streamjobs::{Client, GroupName, HandlerDef, Runtime, StreamName};
use streamjobs_postgres::Postgres;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::postgres::{Database, PgServer};
use streamjobs_tests::server::RedisServer;

use crate::orders;
use crate::program::{Ran, run_at};
use crate::watch::Watching;

struct Archive {
    redis: RedisServer,
    database: Database,
    server: PgServer,
    /// Keeps the pools of the database going.
    _runtime: tokio::runtime::Runtime,
}

impl Archive {
    /// An archive with a letter of each error.
    fn with(errors: &[&str]) -> Self {
        Self::on(PgServer::start().unwrap(), errors)
    }

    fn on(server: PgServer, errors: &[&str]) -> Self {
        let redis = orders::server();
        for error in errors {
            let words = ["XADD", "{orders}:dead:billing", "*", "sj-dead-reason", "exhausted"];
            let job = ["sj-dead-error", error, "sj-dead-event", error, "sj-dead-attempts", "5"];
            let event = ["type", "order.placed", "data", "{\"card\":\"canary\"}"];
            redis.command(&[&words[..], &job, &event].concat());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let database = runtime.block_on(fill(&redis, &server));
        Self { redis, database, server, _runtime: runtime }
    }

    /// Runs a command on it.
    fn run(&self, line: &str) -> Ran {
        let line = format!("archive {line} --database {}", self.database.run_url());
        run_at(&self.redis.url(), &line)
    }

    fn lane(&self) -> usize {
        self.redis.length("{orders}:lane:billing")
    }
}

async fn fill(redis: &RedisServer, server: &PgServer) -> Database {
    let database = server.database().await;
    streamjobs_postgres::migrate(&database.owner_pool()).await.unwrap();
    database.grant("streamjobs").await;
    let postgres = Postgres::open(database.pool()).await.unwrap();
    let (stream, group) = (StreamName::new("orders").unwrap(), GroupName::new("billing").unwrap());
    let archive = postgres.archive().queue(stream, group).interval(Duration::from_millis(20));
    let client = Client::connect(&redis.url()).await.unwrap();
    let handlers: [HandlerDef; 0] = [];
    let runtime = Runtime::builder(&client).handlers(handlers).service(archive);
    let runtime = runtime.start().await.unwrap();
    let taken = async || redis.length("{orders}:dead:billing") == 0;
    eventually_async(Duration::from_secs(20), "all are archived", taken).await;
    let _ = runtime.shutdown().await;
    database
}

#[test]
fn archived_letters_are_listed_and_shown_without_the_server_of_the_streams() {
    let archive = Archive::with(&["timeout-1", "timeout-2", "refused"]);
    archive.redis.kill();
    let ran = archive.run("list").ended(0);
    assert!(ran.out.starts_with("ID  DEAD-LETTERED"), "{ran:?}");
    assert!(ran.out.contains("timeout-1") && !ran.out.contains("canary"), "{ran:?}");
    let listed = archive.run("list --error TIMEOUT --json").ended(0).json();
    let letters = listed["letters"].as_array().unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!((&letters[0]["state"], &letters[0]["attempts"]), (&"open".into(), &5.into()));
    let first = archive.run("list --limit 2 --json").ended(0).json();
    let next = first["more_before"].as_i64().unwrap();
    let rest = archive.run(&format!("list --limit 2 --before {next} --json")).ended(0).json();
    assert_eq!(
        (&rest["letters"].as_array().unwrap().len(), &rest["more_before"].is_null()),
        (&1, &true)
    );
    let id = letters[0]["id"].as_i64().unwrap();
    let shown = archive.run(&format!("show {id}")).ended(0);
    assert!(shown.out.contains("timeout-2") && shown.out.contains("canary"), "{shown:?}");
    let shown = archive.run(&format!("show {id} --json")).ended(0).json();
    assert_eq!(shown["fields"][1]["value"], "{\"card\":\"canary\"}");
    let missing = archive.run("show 4711").ended(1);
    assert!(missing.err.contains("the archive has no dead letter 4711"), "{missing:?}");
}

#[test]
fn a_redrive_is_planned_first_and_then_recorded_with_its_reason_and_user() {
    let archive = Archive::with(&["timeout-1", "timeout-2", "refused"]);
    let plan = archive.run("redrive --error timeout --why bank-is-back --by ops").ended(3);
    assert!(plan.out.starts_with("would redrive 2 archived dead letters of 1 groups"), "{plan:?}");
    assert_eq!(archive.lane(), 0, "nothing was changed");
    let done = archive.run("redrive --error timeout --why bank-is-back --by ops --yes --json");
    let done = done.ended(0).json();
    assert_eq!(
        (&done["selected"], &done["done"], &done["waiting"]),
        (&2.into(), &2.into(), &0.into())
    );
    assert_eq!(archive.lane(), 2);
    let redrive = done["redrive"].as_i64().unwrap();
    let plan = archive.run(&format!("redrive --resume {redrive}")).ended(3);
    assert!(plan.out.starts_with(&format!("would go on with redrive {redrive}")), "{plan:?}");
    let again = archive.run(&format!("redrive --resume {redrive} --yes --json")).ended(0).json();
    assert_eq!((&again["done"], archive.lane()), (&2.into(), 2), "it has ended before");
    let unknown = archive.run("redrive --resume 4711 --yes").ended(1);
    assert!(unknown.err.contains("4711"), "{unknown:?}");
    let redriven = archive.run("list --state redriven --json").ended(0).json();
    assert_eq!(redriven["letters"].as_array().unwrap().len(), 2);
    let open = archive.run("list --json").ended(0).json();
    let id = open["letters"][0]["id"].as_i64().unwrap();
    let one = archive.run(&format!("redrive {id} --why again --by ops --yes")).ended(0);
    assert!(one.out.starts_with("redriven 1 of 1 archived dead letters"), "{one:?}");
    assert!(one.err.contains("if it is interrupted: archive redrive --resume "), "{one:?}");
    assert_eq!(archive.lane(), 3);
    // Without the server of the streams, a redrive fails and says so.
    archive.redis.kill();
    let ran = archive.run("redrive --all --why x --by ops --yes").ended(1);
    assert!(ran.err.contains("cannot connect to"), "{ran:?}");
}

#[test]
fn a_database_that_cannot_be_reached_and_wrong_arguments_are_named_without_the_password() {
    let at = |line: &str| run_at("redis://127.0.0.1:1", &format!("archive {line}"));
    let none = "--database postgres://ops:canary@127.0.0.1:1/app";
    for line in ["list", "show 1", "redrive --all --why x --by ops --yes"] {
        let ran = at(&format!("{line} {none}")).ended(1);
        assert!(ran.err.starts_with("streamjobs: cannot connect to the database"), "{ran:?}");
        assert!(!ran.err.contains("canary") && ran.out.is_empty(), "{ran:?}");
    }
    for (line, named) in [
        ("list", "--database"),
        ("show x", "x"),
        ("list --reason sad", "exhausted"),
        ("list --limit 0", "0"),
        ("redrive --why x", "<IDS|--all|"),
        ("redrive --all", "--why"),
        ("redrive 1 --all --why x", "--all"),
        ("redrive --resume 1 --all", "--all"),
        ("redrive --resume x", "x"),
        ("redrive --all --group billing --why x", "--group"),
    ] {
        let database = if line == "list" { "" } else { none };
        let ran = at(&format!("{line} {database}")).ended(2);
        assert!(ran.err.contains(named) && !ran.err.contains("canary"), "{line}: {ran:?}");
    }
}

#[test]
fn lists_and_letters_can_be_watched_and_redrives_cannot() {
    let archive = Archive::with(&["timeout-1"]);
    archive.redis.kill();
    let line = |rest: &str| format!("{rest} --database {}", archive.database.run_url());
    let listing = Watching::start(&archive.redis, &line("--watch=200ms archive list"));
    listing.says("every 200 ms, last at ");
    listing.says("timeout-1");
    let document = archive.run("list --json").ended(0).json();
    let show = format!("--json --watch=200ms archive show {}", document["letters"][0]["id"]);
    let showing = Watching::start(&archive.redis, &line(&show));
    showing.says("canary");
    showing.says("canary");
    // A database that is gone for a while does not end it.
    archive.server.kill();
    listing.says("streamjobs: ");
    archive.server.restart().unwrap();
    listing.says("timeout-1");
    let ran = archive.run("--watch redrive --all --why x --by ops").ended(2);
    assert!(ran.err.contains("--watch is for commands that only read"), "{ran:?}");
}

/// A certificate of this machine that signs itself, and its key, in PEM form.
fn certificate() -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Without the feature it is refused: nothing is sent without TLS where the address asks for it.
#[test]
fn a_database_is_asked_with_tls_where_its_address_says_so() {
    let (own, key) = certificate();
    let archive = Archive::on(PgServer::builder().tls(&own, key).start().unwrap(), &["timeout-1"]);
    let file = |name: &str, pem: &str| {
        let path = archive.redis.dir().join(name);
        std::fs::write(&path, pem).unwrap();
        format!("sslmode=verify-full&sslrootcert={}", path.display())
    };
    let (known, unknown) = (file("known.pem", &own), file("unknown.pem", &certificate().0));
    let at = |mode: &str| {
        let url = format!("{}?{mode}", archive.database.run_url());
        run_at("redis://127.0.0.1:1", &format!("archive list --database {url}"))
    };
    assert!(at("sslmode=disable").ended(0).out.contains("timeout-1"));
    if cfg!(feature = "tls") {
        for mode in ["sslmode=require", &known] {
            assert!(at(mode).ended(0).out.contains("timeout-1"), "{mode}");
        }
        let ran = at(&unknown).ended(1);
        assert!(ran.err.starts_with("streamjobs: cannot connect to the database: "), "{ran:?}");
        let plain = Archive::with(&[]);
        let url = format!("{}?sslmode=require", plain.database.run_url());
        let ran = run_at("redis://127.0.0.1:1", &format!("archive list --database {url}")).ended(1);
        assert!(ran.err.contains("server does not support TLS"), "{ran:?}");
    } else {
        for mode in ["sslmode=require", &known, &unknown] {
            let ran = at(mode).ended(1);
            assert!(ran.err.contains("needs the feature `tls` of streamjobs-cli"), "{ran:?}");
        }
    }
}
