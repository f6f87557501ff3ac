//! The guard in a transaction of SeaORM, as `docs/orm.md` prints it.

// page: begin
use std::error::Error;
use std::ops::Deref;
use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::{
    ConnAcquireErr, DatabaseTransaction, DbBackend, IsolationLevel, RuntimeErr, Set, SqlxError,
    Statement, TransactionError, TransactionTrait,
};
use streamjobs::{Begin, Job, JobError, JobResource, Requirements, handler};
use streamjobs_postgres::{ByEventId, GuardSql, Postgres};
use tokio::time::timeout;

/// A transaction of SeaORM in which a handler does its work once for each event.
pub struct SeaOnce {
    tx: DatabaseTransaction,
    guard: GuardSql,
}

impl JobResource for SeaOnce {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        let guard = GuardSql::for_job::<ByEventId>(job, sqlstate)?;
        let missing = || JobError::dead("the runtime has no `DatabaseConnection` state");
        let database = job.state::<DatabaseConnection>().ok_or_else(missing)?;
        let begun = guard.begin(async {
            let read_committed = Some(IsolationLevel::ReadCommitted);
            // In a task of its own, which goes on if this attempt ends before the reply: sqlx would give a
            // connection back to its pool that is in a transaction of which it does not know.
            let begun = async move { database.begin_with_config(read_committed, None).await };
            let tx = tokio::spawn(begun).await??;
            let first = [guard.argument().into()];
            let first = Statement::from_sql_and_values(DbBackend::Postgres, guard.sql(), first);
            let row = tx.query_one_raw(first).await?.ok_or("the guard has no answer")?;
            Ok::<_, Box<dyn Error + Send + Sync>>((row.try_get_by_index(0)?, tx))
        });
        Ok(match begun.await? {
            Begin::Run(tx) => Begin::Run(Self { tx, guard }),
            Begin::AlreadyDone => Begin::AlreadyDone,
        })
    }

    async fn commit(self) -> Result<(), JobError> {
        let Self { tx, guard } = self;
        let last = guard.before_commit();
        let commit = async move {
            tx.execute_unprepared(last).await?;
            tx.commit().await
        };
        guard.commit(commit).await
    }

    fn judge(&self, error: JobError) -> JobError {
        self.guard.judge(error)
    }

    async fn rollback(self) {
        // Nothing else bounds it. Without a reply, the connection stays out of the pool until there is one.
        let _ended = timeout(ROLLBACK_MAX, self.tx.rollback()).await;
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<Postgres>();
        requirements.state::<DatabaseConnection>();
    }
}

impl Deref for SeaOnce {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.tx
    }
}

/// How long the reply to a rollback is waited for.
const ROLLBACK_MAX: Duration = Duration::from_secs(5);

/// The code of an error of SeaORM.
fn sqlstate(error: &(dyn Error + 'static)) -> Option<String> {
    let lost = Some(String::from("08006"));
    // The error of `tx.transaction(…)` does not say its source.
    let nested = || match error.downcast_ref()? {
        TransactionError::<DbErr>::Connection(error) | TransactionError::Transaction(error) => {
            Some(error)
        }
    };
    match error.downcast_ref().or_else(nested)? {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => match &**error {
            SqlxError::Database(error) => error.code().map(String::from),
            SqlxError::Io(_) | SqlxError::WorkerCrashed | SqlxError::BeginFailed => lost,
            _ => None,
        },
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => lost,
        _ => None,
    }
}
// page: end

use sea_orm::{ConnectOptions, Database};
use streamjobs::{Client, Runtime, State, handlers};
use streamjobs_postgres::Keep;
use streamjobs_postgres::batches::EndMember;

use crate::app::{Order, Plan, Step};

mod charge {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "charges")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: String,
        pub cents: i64,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

// page: begin
#[handler(group = "sea")]
pub async fn charge_sea(order: Order, tx: &mut SeaOnce) -> Result<(), JobError> {
    let charge = charge::ActiveModel {
        order_id: Set(order.id),
        cents: Set(order.cents),
        ..Default::default()
    };
    charge.insert(&**tx).await?;
    Ok(())
}
// page: end

/// As printed, with what the plan of a test wants in between.
#[handler(group = "sea")]
pub async fn charge_sea_planned(
    order: Order,
    tx: &mut SeaOnce,
    State(plan): State<Plan>,
) -> Result<(), JobError> {
    let step = plan.begin_run();
    let charge = charge::ActiveModel {
        order_id: Set(order.id),
        cents: Set(order.cents),
        ..Default::default()
    };
    charge.insert(&**tx).await?;
    if let Step::Nested(sql) = step {
        tx.transaction::<_, _, DbErr>(|tx| Box::pin(tx.execute_unprepared(sql))).await?;
    }
    if let Some(sql) = step.sql() {
        let done = tx.execute_unprepared(sql).await;
        if !step.ignores_errors() {
            done?;
        }
    }
    step.end().await
}

pub async fn application(client: &Client, url: &str) -> Result<Runtime, Box<dyn Error>> {
    // page: begin
    let mut options = ConnectOptions::new(url);
    options.max_connections(20).acquire_timeout(Duration::from_secs(5));
    let database = Database::connect(options).await?;
    let pool = database.get_postgres_connection_pool().clone();
    let postgres = Postgres::open(pool).await?;
    let runtime = Runtime::builder(client)
        .handlers(handlers![charge_sea])
        .state(database)
        .state(postgres.clone())
        .service(postgres.archive())
        .service(postgres.pruner(Keep::default()))
        .start()
        .await?;
    // page: end
    Ok(runtime)
}

/// The member of a batch, whose end follows the commit.
#[handler(group = "sea", wrap = EndMember)]
pub async fn charge_sea_member(order: Order, tx: &mut SeaOnce) -> Result<(), JobError> {
    let (order_id, cents) = (Set(order.id), Set(order.cents));
    let charge = charge::ActiveModel { order_id, cents, ..Default::default() };
    charge.insert(&**tx).await?;
    Ok(())
}
