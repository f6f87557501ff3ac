//! The page of a cluster: its levers over HTTP, and its controls in a browser.

use std::collections::HashSet;

use serde_json::Value;
use streamjobs_tests::browser::Browser;
use streamjobs_tests::eventually::eventually;

use crate::browser::complaints;
use crate::harness::{DEADLINE, Demo};

const CLUSTER: &[&str] = &["--cluster"];

/// The ports of the nodes in this state.
fn ports(state: &Value, kind: &str) -> Vec<u64> {
    let nodes = state["nodes"].as_array().unwrap().iter();
    nodes.filter(|node| node["state"] == kind).map(|node| node["port"].as_u64().unwrap()).collect()
}

/// Where each partition is.
fn places(state: &Value) -> Vec<u64> {
    let partitions = state["partitions"].as_array().unwrap().iter();
    partitions.map(|partition| partition["node"].as_u64().unwrap()).collect()
}

#[test]
fn slots_move_and_a_node_joins_under_load_without_a_loss() {
    let demo = Demo::start_alone(CLUSTER);
    let state = demo.state();
    let (masters, replicas) = (ports(&state, "master"), ports(&state, "replica"));
    assert_eq!((masters.len(), replicas.len()), (3, 3));
    assert_eq!(places(&state).len(), 12);
    assert_eq!(places(&state).into_iter().collect::<HashSet<_>>().len(), 3, "on all masters");
    let from = places(&state)[0];
    let to = masters.iter().find(|port| **port != from).unwrap();
    demo.post("/reshard", &format!("partition=0&to={to}")).json();
    assert_eq!(places(&demo.state())[0], *to);
    for (path, body, status) in [
        ("/reshard", format!("partition=0&to={to}"), 409),
        ("/reshard", format!("partition=12&to={to}"), 409),
        ("/reshard", format!("partition=1&to={}", replicas[0]), 409),
        ("/reshard", "partition=1&to=1".to_owned(), 404),
        ("/kill", format!("node={}", replicas[0]), 409),
        ("/kill", "node=1".to_owned(), 404),
        ("/kill", "node=x".to_owned(), 400),
        ("/bring-back", format!("node={to}"), 409),
    ] {
        let refused = demo.post(path, &body);
        assert!(refused.is(status).text.contains("\"error\""), "{path} {body}: {}", refused.text);
    }
    let added = demo.post("/add-node", "").json()["added"].as_u64().unwrap();
    let on_it = places(&demo.state()).into_iter().filter(|port| *port == added).count();
    assert_eq!(on_it, 3, "a fourth of the partitions");
    let alone = demo.post("/kill", &format!("node={added}"));
    assert!(alone.is(409).text.contains("has no replica"), "{}", alone.text);
    let dashboard = demo.get("/jobs/streams/streamjobs-demo%3Aspread");
    assert!(dashboard.is(200).text.contains("streamjobs-demo:spread:p11:"), "its partitions");
    demo.post("/load", "on=0").json();
    eventually(DEADLINE, "all is done", || demo.state()["figures"]["waiting"] == 0);
    let figures = demo.state()["figures"].clone();
    assert!(figures["published"].as_u64() > Some(0), "{figures}");
    assert_eq!((&figures["done"], &figures["lost"]), (&figures["published"], &Value::from(0)));
    let Demo { mut process, .. } = demo;
    process.terminate();
    process.wait_for(|line| line == "stopped: 0 jobs abandoned", DEADLINE);
    assert_eq!(process.wait(DEADLINE).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_killed_and_brought_back_on_the_page() {
    let demo = tokio::task::spawn_blocking(|| Demo::start_alone(CLUSTER)).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&format!("http://{}/", demo.address)).await.unwrap();
    browser.shows("#status", "lost = 0").await;
    assert_eq!(browser.count("#partitions tr").await.unwrap(), 12);
    assert_eq!(browser.count("#nodes [data-state=master]").await.unwrap(), 3);
    let killed = ports(&demo.state(), "master")[0];
    let node = format!("#nodes [data-key=\"{killed}\"]");
    browser.click(&format!("{node} button")).await.unwrap();
    browser.shows("#result", "\"took_over\"").await;
    browser.shows(&node, "dead").await;
    browser.shows("#news", &format!("killed the master {killed}")).await;
    browser.shows(&format!("{node} button"), "Bring back").await;
    browser.click(&format!("{node} button")).await.unwrap();
    browser.shows(&node, "replica of").await;
    let to = ports(&demo.state(), "master")[1].to_string();
    let number = places(&demo.state()).iter().position(|port| port.to_string() != to).unwrap();
    browser.choose("#reshard-partition", &number.to_string()).await.unwrap();
    browser.choose("#reshard-to", &to).await.unwrap();
    browser.click("#reshard button").await.unwrap();
    browser.shows("#news", &format!("moved partition {number} to {to}")).await;
    browser.click("#load").await.unwrap();
    browser.shows("#load", "Start orders").await;
    let figures = demo.state()["figures"].clone();
    assert_eq!(figures["lost"], 0, "{figures}");
    assert_eq!(complaints(&browser).await, Vec::<String>::new());
}
