//! The guard: effects and guard rows in one transaction, for one job or for all jobs that share a
//! run.

mod batch;
mod guard;
mod member;
mod sql;

pub use self::guard::Once;
pub use self::member::OnceMember;
pub use self::sql::{GuardSql, SqlState};
