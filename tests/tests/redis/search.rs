//! Entries of a stream that contain a text.

use streamjobs::Client;
use streamjobs::stream::EntryAddress;

use crate::app::{App, Order};

#[tokio::test]
async fn a_search_of_partitions_has_each_entry_once_in_order() {
    let app = App::start().await;
    let client =
        Client::builder(&app.server.url()).partitions("orders", 3).connect().await.unwrap();
    let orders = (0..120).map(|number| Order {
        id: if number % 3 == 0 { format!("parcel {number}") } else { number.to_string() },
        customer: number.to_string(),
    });
    for answer in client.publish_all(&orders.collect::<Vec<_>>()).await {
        answer.unwrap();
    }
    let stream = client.stream("orders").unwrap();
    let (mut found, mut before, mut pages) = (Vec::<EntryAddress>::new(), None, 0);
    loop {
        let page = stream.search("parcel", before, 7).await.unwrap();
        found.extend(page.entries.iter().map(|entry| entry.address()));
        pages += 1;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!((found.len(), pages), (40, 6));
    let order = found.iter().map(|address| (address.id, address.partition));
    assert!(order.collect::<Vec<_>>().is_sorted_by(|one, next| one > next), "newest first");
    let all = stream.search("", None, 1_000).await.unwrap();
    assert_eq!((all.entries.len(), all.compared, all.cut, all.next), (120, 120, 0, None));
    let one = stream.search(&found[3].to_string(), None, 10).await.unwrap();
    assert_eq!(one.entries.iter().map(|entry| entry.address()).collect::<Vec<_>>(), [found[3]]);
}

/// Payloads of 8 KiB.
#[tokio::test]
async fn a_search_ends_after_four_megabytes() {
    let app = App::start().await;
    let script = "local data = string.rep('x', 8192)
        for i = 1, 1500 do redis.call('XADD', 'orders', '*', 'type', 't', 'data', data) end";
    app.server.command(&["EVAL", script, "0"]);
    let stream = app.client.stream("orders").unwrap();
    let page = stream.search("needle", None, 10).await.unwrap();
    assert!((500..530).contains(&page.compared), "{}", page.compared);
    assert!(page.bytes >= 4 << 20 && page.bytes < 5 << 20, "{}", page.bytes);
    assert_eq!((page.next, page.next.is_some()), (page.oldest, true));
    let rest = stream.search("needle", page.next, 10).await.unwrap();
    assert!(rest.compared >= 500 && rest.next < page.next);
}

/// Payloads of a megabyte, of each of which little is compared.
#[tokio::test]
async fn a_search_ends_before_the_server_has_read_much() {
    let app = App::start().await;
    let script = "local data = string.rep('x', 1048576)
        for i = 1, 80 do redis.call('XADD', 'orders', '*', 'type', 't', 'data', data) end";
    app.server.command(&["EVAL", script, "0"]);
    let stream = app.client.stream("orders").unwrap();
    let page = stream.search("needle", None, 10).await.unwrap();
    assert_eq!((page.compared, page.cut), (64, 64));
    assert_eq!((page.next, page.next.is_some()), (page.oldest, true));
    let rest = stream.search("needle", page.next, 10).await.unwrap();
    assert_eq!((rest.compared, rest.next), (16, None));
}
