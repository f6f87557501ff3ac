//! A stream that is spread over partitions: its dead letters are archived under the partition of each, and
//! go back there.

use streamjobs::config::Start;
use streamjobs::{Client, GroupName, StreamName};
use streamjobs_postgres::letters::{Request, Selection};
use streamjobs_tests::postgres::PgServer;

use crate::app::App;

const NAMES: [&str; 3] = ["orders", "orders:p1:{1801}", "orders:p2:{22348}"];
const DEAD: [&str; 3] =
    ["{orders}:dead:billing", "orders:p1:{1801}:dead:billing", "orders:p2:{22348}:dead:billing"];
const LANES: [&str; 3] =
    ["{orders}:lane:billing", "orders:p1:{1801}:lane:billing", "orders:p2:{22348}:lane:billing"];

/// Two of them are equal to their ids and all of their fields.
#[tokio::test]
async fn letters_of_all_partitions_are_archived_and_each_goes_back_to_its_own() {
    let app = App::on(PgServer::shared().database().await).await;
    let builder = Client::builder(&app.server.url()).partitions("orders", 3);
    let client = builder.connect().await.unwrap();
    let group = client.stream("orders").unwrap().group("billing").unwrap();
    group.create(Start::Beginning).await.unwrap();
    for (key, event) in DEAD.into_iter().zip(["a", "a", "b"]) {
        let words = ["XADD", key, "5-0", "sj-dead-reason", "rejected", "sj-dead-event", event];
        app.server.command(&[&words[..], &["type", "order.placed", "data", "{}"]].concat());
    }
    let (stream, billing) =
        (StreamName::new("orders").unwrap(), GroupName::new("billing").unwrap());
    // A runtime names each partition in addition.
    let second = StreamName::new(NAMES[1]).unwrap();
    let archive = app.postgres.archive().queue(stream, billing.clone()).queue(second, billing);
    assert_eq!(archive.sweep(&client).await.unwrap().stored, 3);
    assert_eq!(DEAD.map(|key| app.server.length(key)), [0, 0, 0]);
    let streams = "SELECT string_agg(stream, ' ' ORDER BY stream) FROM streamjobs.dead_letters";
    let streams = sqlx::query_scalar::<_, String>(streams).fetch_one(&app.pool).await.unwrap();
    assert_eq!(streams, NAMES.join(" "));
    let request = Request::new("alice", "fixed");
    let letters = app.postgres.dead_letters();
    let redriven = letters.redrive(Selection::new(), request).start(&client).await.unwrap();
    assert_eq!((redriven.done, redriven.failed), (3, 0));
    assert_eq!(LANES.map(|key| app.server.length(key)), [1, 1, 1]);
}
