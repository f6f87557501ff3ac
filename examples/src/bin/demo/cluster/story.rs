//! The story of a cluster in the terminal: each lever once, under load.

use std::time::{Duration, Instant};

use streamjobs_tests::server::NodeState;
use tokio::time::sleep;

use crate::AnyError;
use crate::cluster::app::App;
use crate::cluster::orders::STREAM;

/// Pulls each lever. An error means that an order was lost or not processed.
pub(crate) async fn tell() -> Result<(), AnyError> {
    println!("Starting three masters with a replica each …");
    let app = App::start().await?;
    println!(
        "Stream {STREAM} has {} partitions. Orders are placed all the time.",
        app.partitions.len()
    );
    println!("\n1. Every partition has a master, and its orders are shipped.");
    all_go_on(&app).await?;
    show(&app).await?;

    println!("\n2. A master is killed (SIGKILL). The partitions of the others go on.");
    let killed = app.nodes().await?.first().ok_or("the cluster has no nodes")?.port;
    app.kill(killed).await?;
    show_news(&app, 1);
    all_go_on(&app).await?;
    show(&app).await?;

    println!("\n3. The killed node comes back.");
    app.bring_back(killed).await?;
    show_news(&app, 1);

    println!("\n4. The slot of a partition moves to another master.");
    let nodes = app.nodes().await?;
    let slot = app.partitions.first().ok_or("the stream has no partitions")?.slot;
    let other = nodes.iter().find(|node| node.is_master() && !node.owns(slot));
    app.reshard(0, other.ok_or("there is one master only")?.port).await?;
    show_news(&app, 1);
    all_go_on(&app).await?;

    println!("\n5. A node joins, and gets its share of the partitions.");
    app.add_node().await?;
    show_news(&app, 4);
    all_go_on(&app).await?;
    show(&app).await?;

    println!("\n6. No more orders. All that were confirmed have to be shipped.");
    let figures = app.finish().await?;
    let abandoned = app.stop().await;
    println!(
        "\npublished {}, done {}, done twice {}, not replicated before the kill {}, lost {}",
        figures.published, figures.done, figures.duplicates, figures.unreplicated, figures.lost
    );
    if figures.lost == 0 && abandoned == 0 { Ok(()) } else { Err("work was lost".into()) }
}

/// Waits until some orders more were shipped from each partition.
async fn all_go_on(app: &App) -> Result<(), AnyError> {
    let done = || {
        let ledger = app.book.lock();
        let names = app.partitions.iter().map(|partition| partition.name.as_str());
        names.map(|name| ledger.of_partition(name).done).collect::<Vec<_>>()
    };
    let (before, begun) = (done(), Instant::now());
    while done().iter().zip(&before).any(|(now, before)| now - before < MORE) {
        if begun.elapsed() > GOES_ON_MAX {
            return Err("a partition does not go on".into());
        }
        sleep(LOOK_AGAIN).await;
    }
    let more = done().iter().sum::<u64>() - before.iter().sum::<u64>();
    println!("   {more} orders shipped, of every partition some");
    Ok(())
}

/// Shows which node has which partitions.
async fn show(app: &App) -> Result<(), AnyError> {
    for node in app.nodes().await? {
        let own = app.partitions.iter().enumerate().filter(|(_, own)| node.owns(own.slot));
        let own = own.map(|(number, _)| number.to_string()).collect::<Vec<_>>();
        println!("   {}  {}", node.port, describe(&node, &own));
    }
    Ok(())
}

fn describe(node: &NodeState, partitions: &[String]) -> String {
    match (node.lives, node.follows) {
        (false, _) => "dead".to_owned(),
        (true, Some(master)) => format!("replica of {master}"),
        (true, None) => format!("master of the partitions {}", partitions.join(", ")),
    }
}

/// Shows the latest news in their order.
fn show_news(app: &App, count: usize) {
    for (_, text) in app.news(count).into_iter().rev() {
        println!("   {text}");
    }
}

/// So many orders of each partition show that it goes on.
const MORE: u64 = 3;
const GOES_ON_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
