//! The database of the story: a private Postgres server, or a separate schema on a given one.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use streamjobs_postgres::{Postgres, SchemaName, migrate_schema};
use streamjobs_tests::postgres::{Database, PgServer};

use crate::AnyError;
use crate::arguments::Wish;

/// A database with the tables of the story.
pub(crate) struct Place {
    /// The URL for processes, with the password.
    pub(crate) url: String,
    role: String,
    pub(crate) schema: SchemaName,
    pub(crate) pool: PgPool,
    pub(crate) postgres: Postgres,
    /// The private database, if there is one. Its server ends with it.
    private: Option<Database>,
}

impl Place {
    pub(crate) async fn prepare(wish: Wish) -> Result<Self, AnyError> {
        match wish.url {
            Some(url) => Self::given(url, wish.as_superuser).await,
            None => Self::private().await,
        }
    }

    /// Uses one role to migrate and another to run, as in production.
    async fn private() -> Result<Self, AnyError> {
        let server = tokio::task::spawn_blocking(PgServer::start).await??;
        let database = server.database().await;
        let (owner, schema) = (database.owner_pool(), SchemaName::default());
        migrate_schema(&owner, &schema).await?;
        owner.execute(CHARGES).await?;
        database.grant(schema.as_str()).await;
        let url = database.run_url();
        Self::open(url, schema, Some(database)).await
    }

    /// Creates a new schema for the story, which is dropped at the end.
    async fn given(url: String, as_superuser: bool) -> Result<Self, AnyError> {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let schema = SchemaName::new(format!("streamjobs_demo_{millis}"))?;
        let pool = pool(&url, schema.as_str())?;
        check_role(&pool, as_superuser).await?;
        run(&pool, format!("CREATE SCHEMA {schema}")).await?;
        let made = async {
            migrate_schema(&pool, &schema).await?;
            pool.execute(CHARGES).await?;
            Self::open(url, schema.clone(), None).await
        };
        match made.await {
            Ok(place) => Ok(place),
            Err(error) => {
                let _left = run(&pool, drop_schema(&schema)).await.is_err();
                Err(error)
            }
        }
    }

    async fn open(
        url: String,
        schema: SchemaName,
        private: Option<Database>,
    ) -> Result<Self, AnyError> {
        let (pool, postgres) = open(&url, schema.as_str()).await?;
        let role = sqlx::query_scalar("SELECT current_user::text").fetch_one(&pool).await?;
        Ok(Self { url, role, schema, pool, postgres, private })
    }

    /// A query for the default schema, changed to this schema.
    pub(crate) fn sql(&self, query: &str) -> String {
        query.replace("streamjobs.", &format!("{}.", self.schema))
    }

    /// Drops the schema in a given database.
    pub(crate) async fn clean_up(self) -> Result<(), AnyError> {
        match self.private {
            Some(_) => Ok(()),
            None => run(&self.pool, drop_schema(&self.schema)).await,
        }
    }
}

impl fmt::Display for Place {
    /// Omits the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, schema, .. } = self;
        match &self.private {
            Some(database) => {
                write!(f, "a private server on port {}, as the role {role}", database.port())
            }
            None => write!(f, "yours, as the role {role}, in a schema of its own ({schema})"),
        }
    }
}

/// Opens the tables of a schema, with connections that also find the story's own table.
pub(crate) async fn open(url: &str, schema: &str) -> Result<(PgPool, Postgres), AnyError> {
    let pool = pool(url, schema)?;
    let builder = Postgres::builder(pool.clone()).schema(SchemaName::new(schema)?);
    Ok((pool, builder.open().await?))
}

fn pool(url: &str, schema: &str) -> Result<PgPool, sqlx::Error> {
    let options = url.parse::<PgConnectOptions>()?;
    let options = options.options([("search_path", format!("{schema},public"))]);
    Ok(PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options))
}

/// Checks the rights of the role, before anything is created.
async fn check_role(pool: &PgPool, as_superuser: bool) -> Result<(), AnyError> {
    let found = sqlx::query_as::<_, (String, String, bool, bool)>(ROLE).fetch_one(pool).await?;
    let (role, database, superuser, may_create) = found;
    if superuser && !as_superuser {
        return Err(format!(
            "the role {role} is a superuser: use another role in the URL, or add --as-superuser"
        )
        .into());
    }
    if !may_create {
        return Err(format!(
            "the role {role} may not create a schema in the database {database}: run \
             `GRANT CREATE ON DATABASE {database} TO {role}` there, or leave --postgres-url out \
             for a private server"
        )
        .into());
    }
    Ok(())
}

/// Runs a statement whose only identifier is generated here.
async fn run(pool: &PgPool, statement: String) -> Result<(), AnyError> {
    pool.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

fn drop_schema(schema: &SchemaName) -> String {
    format!("DROP SCHEMA {schema} CASCADE")
}

/// No constraint prevents a second charge of an order: the guard does.
const CHARGES: &str = "CREATE TABLE charges (order_id text NOT NULL, cents bigint NOT NULL)";

const ROLE: &str = "\
SELECT current_user::text, current_database()::text, rolsuper,
       has_database_privilege(current_database(), 'CREATE')
FROM pg_roles
WHERE rolname = current_user";

/// For each of two processes: the slots of its handlers, and some more.
const CONNECTIONS: u32 = 14;
