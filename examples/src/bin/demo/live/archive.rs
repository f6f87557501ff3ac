//! The archive of the demo: a private Postgres, or a schema of its own on a given one, which is kept.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor as _, PgPool};
use streamjobs_postgres::letters::{LetterId, LetterState, Request, Selection};
use streamjobs_postgres::{Postgres, SchemaName, migrate_schema};
use streamjobs_tests::postgres::{Database, PgServer};

use crate::AnyError;
use crate::live::options::Store;

/// The archive of the demo.
pub(crate) struct Archive {
    pub(crate) postgres: Postgres,
    /// The private database, which ends with this value.
    _private: Option<Database>,
}

impl Archive {
    pub(crate) async fn open(store: &Store) -> Result<Self, AnyError> {
        match store {
            Store::Private => Self::private().await,
            Store::Given(url) => Self::given(url).await,
        }
    }

    /// Uses one role for migrations and another one to run, as in production.
    async fn private() -> Result<Self, AnyError> {
        let server = tokio::task::spawn_blocking(PgServer::start).await??;
        let database = server.database().await;
        let schema = SchemaName::default();
        migrate_schema(&database.owner_pool(), &schema).await?;
        database.grant(schema.as_str()).await;
        let postgres = Postgres::open(database.pool()).await?;
        Ok(Self { postgres, _private: Some(database) })
    }

    async fn given(url: &str) -> Result<Self, AnyError> {
        // The address is not repeated: it may hold a password.
        let options =
            url.parse::<PgConnectOptions>().map_err(|_| "--archive-url is not a valid address")?;
        let pool: PgPool = PgPoolOptions::new().max_connections(8).connect_with(options).await?;
        pool.execute("CREATE SCHEMA IF NOT EXISTS streamjobs_demo").await?;
        let schema = SchemaName::new("streamjobs_demo")?;
        migrate_schema(&pool, &schema).await?;
        let postgres = Postgres::builder(pool).schema(schema).open().await?;
        Ok(Self { postgres, _private: None })
    }

    /// The event ids of a group's letters after the given one, and the id of the last letter.
    pub(crate) async fn dead_lettered(
        &self,
        stream: &str,
        group: &str,
        after: Option<LetterId>,
    ) -> Result<(Vec<String>, Option<LetterId>), AnyError> {
        let selection = Selection::new().stream(stream).group(group).state(LetterState::All);
        let (mut events, mut last, mut before) = (Vec::new(), after, None);
        loop {
            let page = self.postgres.dead_letters().list(&selection, before, 500).await?;
            for letter in &page.letters {
                if after.is_some_and(|after| letter.id <= after) {
                    return Ok((events, last));
                }
                last = last.max(Some(letter.id));
                events.extend(letter.event_id.clone());
            }
            before = page.next;
            if before.is_none() {
                return Ok((events, last));
            }
        }
    }

    /// Redrives every open letter of a group: how many were redriven, and how many failed.
    pub(crate) async fn redrive(
        &self,
        client: &streamjobs::Client,
        stream: &str,
        group: &str,
    ) -> Result<(u64, u64), AnyError> {
        let selection = Selection::new().stream(stream).group(group);
        let request = Request::new("demo", "from the demo page");
        let redrive = self.postgres.dead_letters().redrive(selection, request);
        let done = redrive.start(client).await?;
        Ok((done.done, done.failed))
    }
}
