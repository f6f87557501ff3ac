//! The relay on a link that cannot carry all that waits: what was answered is done.

use streamjobs::Client;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use crate::app::{App, DEADLINE, Order};

/// The answers to the last order do not come. Those before it are not published again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_the_time_is_over_is_not_published_again() {
    let app = App::start().await;
    let order = |number: usize| {
        let customer = format!("{}{number}", "c".repeat(100_000));
        Order { id: format!("order-{number}-"), customer }
    };
    let orders = (0..24).map(order).collect::<Vec<_>>();
    let mut connection = app.pool.acquire().await.unwrap();
    app.postgres.publisher().publish_all_in(&mut connection, &orders).await.unwrap();
    let proxy = FaultProxy::start(&app.server).unwrap();
    let client = Client::connect(proxy.url()).await.unwrap();
    proxy.set(Mode::HoldReplyTo("order-23-".into()));
    let relay = app.postgres.relay();
    let swept = relay.sweep(&client);
    let waiting = async || app.number("SELECT count(*) FROM streamjobs.outbox").await;
    let few = async || {
        let few = async || (1..=2).contains(&waiting().await);
        eventually_async(DEADLINE, "only those that were sent with the last one wait", few).await;
        proxy.set(Mode::Pass);
    };
    let (swept, ()) = tokio::join!(swept, few());
    let swept = swept.unwrap();
    assert!(swept.events >= 22 && swept.refused == 0, "{swept:?}");
    let emptied = async || {
        let _ = relay.sweep(&client).await.unwrap();
        waiting().await == 0
    };
    eventually_async(DEADLINE, "the outbox is empty", emptied).await;
    let ids = app.server.entries("orders").into_iter().map(|entry| entry.text("sj-id").unwrap());
    let ids = ids.collect::<Vec<_>>();
    let again = ids.len() - ids.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(ids.len() - again == 24 && again <= 4, "{again} of them were stored again");
}
