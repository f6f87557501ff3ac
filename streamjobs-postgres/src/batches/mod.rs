//! Batches with completion: sets of jobs that publish an event when all of the jobs have ended.
//!
//! A batch is opened, gets its members, and is closed, each in a transaction of the application. A member is a job:
//! one group's work on one event. Members may be on any streams. The end of the last member publishes the batch's
//! event through the outbox, in the transaction that ends the member.
//!
//! ```no_run
//! # use streamjobs::{Client, Event, EventId, GroupName};
//! # use streamjobs_postgres::Postgres;
//! use streamjobs_postgres::batches::{BatchId, NewBatch};
//!
//! # #[derive(Event, serde::Serialize, serde::Deserialize)]
//! # #[event(stream = "pictures", type = "picture.uploaded")]
//! # struct PictureUploaded { path: String }
//! # #[derive(Event, serde::Serialize, serde::Deserialize)]
//! # #[event(stream = "albums", type = "album.processed")]
//! # struct AlbumProcessed { album: String }
//! # async fn example(
//! #     postgres: Postgres,
//! #     album: String,
//! #     pictures: Vec<PictureUploaded>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let (batches, publisher) = (postgres.batches(), postgres.publisher());
//! let (id, group) = (BatchId::new(format!("album-{album}"))?, GroupName::new("thumbnails")?);
//! let batch = NewBatch::new(id.clone()).on_completed(&AlbumProcessed { album })?;
//!
//! let mut transaction = postgres.pool().begin().await?;
//! batches.open_in(&mut transaction, &batch).await?;
//! let members = publisher.publish_all_in(&mut transaction, &pictures).await?;
//! batches.add_in(&mut transaction, &id, &group, &members).await?;
//! batches.close_in(&mut transaction, &id).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The handlers of the group end their membership with [`OnceMember`](crate::OnceMember), or with [`EndMember`] around
//! them. Jobs that become dead letters end when an [`Archive`](crate::Archive) stores them. See `docs/completion.md`.

mod change;
mod end_member;
mod error;
mod handle;
mod new_batch;
mod status;

pub use self::end_member::EndMember;
pub use self::error::BatchError;
pub use self::handle::Batches;
pub use self::new_batch::{BatchId, NewBatch};
pub use self::status::BatchStatus;
