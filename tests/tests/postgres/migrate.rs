//! Migrations: each is applied once, and no handle opens on a schema that does not fit.

use futures_util::future::join_all;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use streamjobs_postgres::{
    MigrationError, Postgres, SchemaError, SchemaName, migrate, migrate_schema, migrations,
};
use streamjobs_tests::postgres::{Database, PgServer, Role};

async fn database() -> Database {
    PgServer::shared().database().await
}

async fn applied(pool: &PgPool) -> i64 {
    let applied = sqlx::query_scalar("SELECT count(*) FROM streamjobs._migrations");
    applied.fetch_one(pool).await.unwrap()
}

fn count() -> i64 {
    i64::try_from(migrations(&SchemaName::default()).len()).unwrap()
}

#[tokio::test]
async fn eight_starters_at_once_apply_each_migration_once() {
    let database = database().await;
    // Each must see what the one before has committed, whatever the default isolation is.
    let strict = [("default_transaction_isolation", "serializable")];
    let strict = database.options(Role::Owner).options(strict);
    let pool = PgPoolOptions::new().connect_lazy_with(strict);
    for outcome in join_all((0..8).map(|_| migrate(&pool))).await {
        outcome.unwrap();
    }
    migrate(&pool).await.unwrap();
    assert_eq!(applied(&pool).await, count());
}

#[tokio::test]
async fn opening_a_schema_that_is_missing_older_newer_or_changed_fails() {
    let database = database().await;
    let pool = database.owner_pool();
    let refused = Postgres::open(pool.clone()).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Missing { .. }), "{refused}");
    assert!(refused.to_string().contains("0001_once"), "{refused}");
    migrate(&pool).await.unwrap();
    Postgres::open(pool.clone()).await.unwrap();

    let last = migrations(&SchemaName::default()).pop().unwrap();
    let back = "UPDATE streamjobs._migrations SET version = version + $1 WHERE version = $2";
    let renumber = async |by: i64, of: i64| {
        sqlx::query(back).bind(by).bind(of).execute(&pool).await.unwrap();
    };
    renumber(9_000, last.version).await;
    let newer = Postgres::open(pool.clone()).await.unwrap_err();
    assert!(matches!(newer, SchemaError::Newer { .. }), "{newer}");
    assert!(newer.to_string().contains(&format!("{}_{}", 9_000 + last.version, last.name)));
    let refused = migrate(&pool).await.unwrap_err();
    assert!(matches!(refused, MigrationError::Schema(SchemaError::Newer { .. })), "{refused}");
    renumber(-9_000, 9_000 + last.version).await;

    pool.execute("UPDATE streamjobs._migrations SET checksum = '\\x00' WHERE version = 1")
        .await
        .unwrap();
    let changed = Postgres::open(pool.clone()).await.unwrap_err();
    assert!(matches!(changed, SchemaError::Changed { .. }), "{changed}");
    let refused = migrate(&pool).await.unwrap_err();
    assert!(matches!(refused, MigrationError::Schema(SchemaError::Changed { .. })), "{refused}");
}

#[tokio::test]
async fn a_schema_that_lacks_a_migration_says_which() {
    let database = database().await;
    let pool = database.owner_pool();
    let steps = migrations(&SchemaName::default());
    pool.execute("CREATE SCHEMA streamjobs").await.unwrap();
    for step in &steps[..steps.len() - 1] {
        pool.execute(AssertSqlSafe(step.sql.clone())).await.unwrap();
    }
    let older = Postgres::open(pool.clone()).await.unwrap_err();
    let last = steps.last().unwrap();
    assert!(matches!(older, SchemaError::Older { .. }), "{older}");
    assert!(older.to_string().contains(&format!("{:04}_{}", last.version, last.name)), "{older}");
}

#[tokio::test]
async fn the_sql_of_the_migrations_gives_the_same_schema_as_migrate() {
    for name in ["streamjobs", "jobs_2"] {
        let database = database().await;
        let (pool, schema) = (database.owner_pool(), SchemaName::new(name).unwrap());
        pool.execute(AssertSqlSafe(["CREATE SCHEMA ", name].concat())).await.unwrap();
        for step in migrations(&schema) {
            pool.execute(AssertSqlSafe(step.sql)).await.unwrap();
        }
        Postgres::builder(pool.clone()).schema(schema.clone()).open().await.unwrap();
        migrate_schema(&pool, &schema).await.unwrap();
    }
}

#[tokio::test]
async fn two_schemas_stand_side_by_side_and_beside_the_applications_migrations() {
    let database = database().await;
    let pool = database.owner_pool();
    pool.execute(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
            installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
            checksum bytea NOT NULL, execution_time bigint NOT NULL);
         INSERT INTO _sqlx_migrations VALUES (20260101, 'of the application', now(), true, '\\x', 0)",
    )
    .await
    .unwrap();
    migrate(&pool).await.unwrap();
    let other = SchemaName::new("other").unwrap();
    migrate_schema(&pool, &other).await.unwrap();
    Postgres::builder(pool.clone()).schema(other).open().await.unwrap();
    Postgres::open(pool).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_and_no_lock() {
    let database = database().await;
    let pool = database.owner_pool();
    pool.execute("CREATE SCHEMA streamjobs; CREATE TABLE streamjobs.outbox (id int)")
        .await
        .unwrap();
    let failed = migrate(&pool).await.unwrap_err();
    assert!(failed.to_string().contains("0003_outbox"), "{failed}");
    let refused = Postgres::open(pool.clone()).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Missing { .. }), "{refused}");
    pool.execute("DROP TABLE streamjobs.outbox").await.unwrap();
    migrate(&pool).await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_create_in_its_schema_alone_migrates_it() {
    let database = database().await;
    let admin = database.admin_pool();
    admin.execute("CREATE SCHEMA streamjobs AUTHORIZATION streamjobs_run").await.unwrap();
    migrate(&database.pool()).await.unwrap();
    Postgres::open(database.pool()).await.unwrap();
}

#[tokio::test]
async fn the_role_that_runs_cannot_migrate_and_needs_no_more_than_rows() {
    let database = database().await;
    let refused = migrate(&database.pool()).await.unwrap_err();
    assert!(matches!(refused, MigrationError::Database { .. }), "{refused}");
    migrate(&database.owner_pool()).await.unwrap();
    let refused = Postgres::open(database.pool()).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Rights { .. }), "no rights yet: {refused}");
    database.grant("streamjobs").await;
    Postgres::open(database.pool()).await.unwrap();
}

/// What a concurrent build that failed leaves behind.
#[tokio::test]
async fn an_invalid_index_that_was_built_beforehand_is_built_anew() {
    let database = database().await;
    let owner = database.owner_pool();
    migrate(&owner).await.unwrap();
    let invalid = "UPDATE pg_index SET indisvalid = false
        WHERE indexrelid = 'streamjobs.dead_letters_open_newest'::regclass";
    database.admin_pool().execute(invalid).await.unwrap();
    owner.execute("DELETE FROM streamjobs._migrations WHERE version = 5").await.unwrap();
    migrate(&owner).await.unwrap();
    let valid = "SELECT indisvalid FROM pg_index
        WHERE indexrelid = 'streamjobs.dead_letters_open_newest'::regclass";
    assert!(sqlx::query_scalar::<_, bool>(valid).fetch_one(&owner).await.unwrap());
    assert_eq!(applied(&owner).await, count());
}
