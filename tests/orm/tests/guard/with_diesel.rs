//! The guard in a transaction of diesel-async, as `docs/orm.md` prints it.

// page: begin
use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::Text;
use diesel_async::pooled_connection::bb8::{Pool, PooledConnection};
use diesel_async::{
    AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    TransactionManager,
};
use streamjobs::{Begin, Job, JobError, JobResource, Requirements, handler};
use streamjobs_postgres::{ByEventId, GuardSql, Postgres};
use tokio::time::timeout;

/// A transaction of diesel-async in which a handler does its work once for each event.
///
/// Dropped, it does not come back to its pool: bb8 closes a connection with an open transaction.
pub struct DieselOnce {
    tx: PooledConnection<'static, AsyncPgConnection>,
    guard: GuardSql,
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    answer: String,
}

impl JobResource for DieselOnce {
    async fn begin(job: &Job) -> Result<Begin<Self>, JobError> {
        let guard = GuardSql::for_job::<ByEventId>(job, sqlstate)?;
        let missing = || JobError::dead("the runtime has no `Pool<AsyncPgConnection>` state");
        let pool = job.state::<Pool<AsyncPgConnection>>().ok_or_else(missing)?;
        let begun = guard.begin(async {
            let mut tx = pool.get_owned().await?;
            let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
            AnsiTransactionManager::begin_transaction_sql(&mut *tx, begin).await?;
            let first = diesel::sql_query(guard.sql()).bind::<Text, _>(guard.argument());
            let row = first.get_result::<Answer>(&mut tx).await?;
            if row.answer != "run" {
                // The pool would close a connection that is in a transaction.
                AnsiTransactionManager::rollback_transaction(&mut *tx).await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>((row.answer, tx))
        });
        Ok(match begun.await? {
            Begin::Run(tx) => Begin::Run(Self { tx, guard }),
            Begin::AlreadyDone => Begin::AlreadyDone,
        })
    }

    async fn commit(self) -> Result<(), JobError> {
        let Self { mut tx, guard } = self;
        let last = guard.before_commit();
        let commit = async move {
            tx.batch_execute(last).await?;
            AnsiTransactionManager::commit_transaction(&mut *tx).await
        };
        // In a task of its own, which keeps the connection if no reply comes in time: closed, its session would go on
        // waiting for a standby, and the pool would open another one for each job.
        let commit = async { Ok::<_, Box<dyn Error + Send + Sync>>(tokio::spawn(commit).await??) };
        guard.commit(commit).await
    }

    fn judge(&self, error: JobError) -> JobError {
        self.guard.judge(error)
    }

    async fn rollback(mut self) {
        // Nothing else bounds it. Without a reply, the connection is closed, and the server rolls back by itself.
        let rollback = AnsiTransactionManager::rollback_transaction(&mut *self.tx);
        let _ended = timeout(ROLLBACK_MAX, rollback).await;
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<Postgres>();
        requirements.state::<Pool<AsyncPgConnection>>();
    }
}

impl Deref for DieselOnce {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.tx
    }
}

impl DerefMut for DieselOnce {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.tx
    }
}

/// How long the reply to a rollback is waited for.
const ROLLBACK_MAX: Duration = Duration::from_secs(5);

/// The code of an error of diesel, which keeps the kind of an error in place of its code.
fn sqlstate(error: &(dyn Error + 'static)) -> Option<String> {
    let code = match error.downcast_ref()? {
        DieselError::DatabaseError(kind, _) => match kind {
            DatabaseErrorKind::SerializationFailure => "40001",
            DatabaseErrorKind::ReadOnlyTransaction => "25006",
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => "08006",
            _ => return None,
        },
        _ => return None,
    };
    Some(code.to_owned())
}
// page: end

use diesel_async::AsyncConnection as _;
use streamjobs::State;

use crate::app::{Order, Plan, Step};

diesel::table! {
    charges (id) {
        id -> BigInt,
        order_id -> Text,
        cents -> BigInt,
    }
}

// page: begin
#[handler(group = "diesel")]
pub async fn charge_diesel(order: Order, tx: &mut DieselOnce) -> Result<(), JobError> {
    diesel::insert_into(charges::table)
        .values((charges::order_id.eq(order.id), charges::cents.eq(order.cents)))
        .execute(&mut **tx)
        .await?;
    Ok(())
}
// page: end

/// As printed, with what the plan of a test wants in between.
#[handler(group = "diesel")]
pub async fn charge_diesel_planned(
    order: Order,
    tx: &mut DieselOnce,
    State(plan): State<Plan>,
) -> Result<(), JobError> {
    let step = plan.begin_run();
    diesel::insert_into(charges::table)
        .values((charges::order_id.eq(order.id), charges::cents.eq(order.cents)))
        .execute(&mut **tx)
        .await?;
    if let Step::Nested(sql) = step {
        tx.transaction(async |tx| tx.batch_execute(sql).await).await?;
    }
    if let Some(sql) = step.sql() {
        let done = tx.batch_execute(sql).await;
        if !step.ignores_errors() {
            done?;
        }
    }
    step.end().await
}
