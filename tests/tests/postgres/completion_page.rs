//! `docs/completion.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Event, EventId, GroupName, JobError, Runtime, State, handler, handlers};
use streamjobs_postgres::batches::{BatchId, NewBatch};
use streamjobs_postgres::{OnceMember, Postgres};
use streamjobs_tests::eventually::eventually_async;

use crate::app::{App, DEADLINE, quick};

type BoxError = Box<dyn std::error::Error>;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "pictures", type = "picture.uploaded")]
struct Picture {
    path: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "albums", type = "album.processed")]
struct AlbumProcessed {
    album: u32,
}

// page: begin
async fn upload(postgres: &Postgres, album: u32, paths: Vec<String>) -> Result<(), BoxError> {
    let (batches, publisher) = (postgres.batches(), postgres.publisher());
    let (id, group) = (BatchId::new(format!("album-{album}"))?, GroupName::new("thumbnails")?);
    let batch = NewBatch::new(id.clone()).on_completed(&AlbumProcessed { album })?;

    let mut transaction = postgres.pool().begin().await?;
    if !batches.open_in(&mut transaction, &batch).await? {
        return Ok(());
    }
    let pictures = paths.into_iter().map(|path| Picture { path }).collect::<Vec<_>>();
    let members = publisher.publish_all_in(&mut transaction, &pictures).await?;
    batches.add_in(&mut transaction, &id, &group, &members).await?;
    batches.close_in(&mut transaction, &id).await?;
    transaction.commit().await?;
    Ok(())
}

#[handler(group = "thumbnails")]
async fn shrink(picture: Picture, tx: &mut OnceMember) -> Result<(), JobError> {
    let insert = sqlx::query("INSERT INTO thumbnails (path) VALUES ($1)").bind(&picture.path);
    insert.execute(&mut **tx).await?;
    Ok(())
}

#[handler(group = "albums")]
async fn announce(album: AlbumProcessed, State(postgres): State<Postgres>) -> Result<(), JobError> {
    let id = BatchId::new(format!("album-{}", album.album))?;
    let batch = postgres.batches().status(&id).await?.ok_or("no such batch")?;
    println!("{} pictures, {} failed", batch.members, batch.dead);
    Ok(())
}
// page: end

// page: begin
async fn give_up(postgres: &Postgres, id: &BatchId, event: &EventId) -> Result<bool, BoxError> {
    let mut connection = postgres.pool().acquire().await?;
    let group = GroupName::new("thumbnails")?;
    Ok(postgres.batches().end_in(&mut connection, id, &group, event, true).await?)
}
// page: end

#[tokio::test(flavor = "multi_thread")]
async fn an_album_is_announced_once_all_of_its_pictures_are_processed() {
    let app = App::start().await;
    sqlx::raw_sql(
        "CREATE TABLE thumbnails (path text NOT NULL); GRANT INSERT ON thumbnails TO PUBLIC",
    )
    .execute(&app.database.owner_pool())
    .await
    .unwrap();
    let paths = (0..30).map(|number| format!("{number}.jpg")).collect();
    upload(&app.postgres, 7, paths).await.unwrap();
    // Repeated, as after a lost answer, it changes nothing.
    upload(&app.postgres, 7, vec!["0.jpg".to_owned()]).await.unwrap();
    let builder = Runtime::builder(&app.client).handlers(handlers![shrink, announce]);
    let relay = app.postgres.relay().poll(Duration::from_millis(20));
    let runtime = quick(builder.state(app.postgres.clone()).service(relay)).start().await.unwrap();
    let announced = async || runtime.counters().succeeded == 31;
    eventually_async(DEADLINE, "announced", announced).await;
    assert_eq!(app.server.entries("albums").len(), 1);
    let (id, unknown) = (BatchId::new("album-7").unwrap(), EventId::generate());
    assert!(!give_up(&app.postgres, &id, &unknown).await.unwrap(), "it is no member");
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    streamjobs_tests::printed::assert_printed(
        include_str!("../../../docs/completion.md"),
        include_str!("completion_page.rs"),
    );
}
