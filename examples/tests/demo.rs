//! The stories of the demo.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests report problems by failing")]

use std::process::{Command, Output};

use streamjobs_tests::postgres::{Database, PgServer};

#[test]
fn the_demo_shows_a_crash_its_recovery_and_no_loss() {
    let output = demo(&["--story"]);
    let text = text_of(&output);
    for scene in ["in flight when it died", "done by the web process", "repaired, redriven, mailed"]
    {
        assert!(text.contains(scene), "{scene}: {text}");
    }
    assert!(text.trim_end().ends_with("lost 0"), "{text}");
}

#[test]
fn the_story_of_a_cluster_pulls_each_lever_and_loses_no_order() {
    let output = demo(&["--cluster", "--story"]);
    let text = text_of(&output);
    for scene in ["took over after", "as a replica", "moved partition 0 to", "added the node"] {
        assert!(text.contains(scene), "{scene}: {text}");
    }
    assert!(text.trim_end().ends_with("lost 0"), "{text}");
}

#[test]
fn the_postgres_story_charges_each_order_once_and_redrives_with_who_and_why() {
    let output = demo(&["--postgres"]);
    let text = text_of(&output);
    assert_scenes(&text, "as the role streamjobs_run");
}

#[tokio::test]
async fn the_postgres_story_leaves_a_given_database_as_it_was() {
    let database = PgServer::shared().database().await;
    let output = demo(&["--postgres-url", &database.owner_url()]);
    assert_scenes(
        &text_of(&output),
        "yours, as the role streamjobs_migrate, in a schema of its own",
    );
    assert_eq!(schemas_of_the_demo(&database).await, 0);
}

#[tokio::test]
async fn the_postgres_story_refuses_superusers_and_roles_that_may_not_make_a_schema() {
    let database = PgServer::shared().database().await;
    for (url, reason) in [
        (database.admin_url(), "the role streamjobs_admin is a superuser"),
        (database.run_url(), "the role streamjobs_run may not create a schema"),
    ] {
        let output = demo(&["--postgres-url", &url]);
        assert_eq!(output.status.code(), Some(1));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains(reason), "{complaint}");
    }
    assert_eq!(schemas_of_the_demo(&database).await, 0);
}

#[test]
fn wrong_arguments_are_named() {
    let output = demo(&["--reset", "--no-reset"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-reset"));
}

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(arguments).env_remove("REDIS_URL").output().unwrap()
}

/// The output of a successful run.
fn text_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn assert_scenes(text: &str, place: &str) {
    for scene in [
        place,
        "5 charges are in the table, 5 jobs are not done",
        "5 jobs claimed and acknowledged",
        "handlers run for that: 0",
        "exhausted | card declined: insufficient funds",
        "alice        | mallory has paid in, ticket 4711 | finished | 1       | 1",
        "6 receipts written, 0 events wait",
        "o-6      | 4950  | 1",
    ] {
        assert!(text.contains(scene), "{scene}: {text}");
    }
    let end = "placed 6, charged 6 (29700 cents), charged twice 0, lost 0";
    assert!(text.trim_end().ends_with(end), "{text}");
}

async fn schemas_of_the_demo(database: &Database) -> i64 {
    let query = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'streamjobs%'";
    sqlx::query_scalar(query).fetch_one(&database.admin_pool()).await.unwrap()
}
