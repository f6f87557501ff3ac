//! The state that the page of a cluster shows, as one JSON document.

use serde_json::{Value, json};
use streamjobs_tests::server::NodeState;

use crate::AnyError;
use crate::cluster::app::App;

/// The whole state.
pub(crate) async fn state(app: &App) -> Result<Value, AnyError> {
    app.look_for_lost(OVERDUE).await;
    let nodes = app.nodes().await?;
    let ledger = app.book.lock();
    let partitions = app.partitions.iter().enumerate().map(|(number, partition)| {
        // A master that was killed has its slots until its replica takes over.
        let owner = nodes.iter().find(|node| node.owns(partition.slot));
        json!({
            "number": number,
            "name": partition.name.as_str(),
            "slot": partition.slot,
            "node": owner.map(|node| node.port),
            "is_served": owner.is_some_and(NodeState::is_master),
            "figures": ledger.of_partition(partition.name.as_str()),
        })
    });
    let rows = nodes.iter().map(|node| {
        let own = app.partitions.iter().filter(|partition| node.owns(partition.slot)).count();
        json!({
            "port": node.port,
            "state": if !node.lives { "dead" } else if node.is_master() { "master" } else { "replica" },
            "follows": node.follows,
            "partitions": own,
        })
    });
    let news = app.news(NEWS_MAX).into_iter().map(|(age, text)| {
        json!({ "age_ms": u64::try_from(age.as_millis()).unwrap_or(u64::MAX), "text": text })
    });
    Ok(json!({
        "figures": ledger.total(),
        "load": app.load.is_on(),
        "partitions": partitions.collect::<Vec<_>>(),
        "nodes": rows.collect::<Vec<_>>(),
        "news": news.collect::<Vec<_>>(),
    }))
}

/// A failover, and what waited behind it, are over by then.
const OVERDUE: std::time::Duration = std::time::Duration::from_secs(10);
const NEWS_MAX: usize = 12;
