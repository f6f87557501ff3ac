//! `docs/fair.md`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Client, Event, JobError, Runtime, State, handler, handlers};
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::RedisServer;

/// The tenants of the pages that were rendered, in order.
#[derive(Clone, Default)]
struct Renderer(Arc<Mutex<Vec<String>>>);

impl Renderer {
    async fn render(&self, tenant: &str, _page: u32) -> Result<(), JobError> {
        tokio::task::yield_now().await;
        self.0.lock().unwrap().push(tenant.to_owned());
        Ok(())
    }
}

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "pages", type = "page.requested", key = "tenant")]
struct PageRequested {
    tenant: String,
    page: u32,
}

#[handler(group = "render", fair = "key")]
async fn render(page: PageRequested, State(renderer): State<Renderer>) -> Result<(), JobError> {
    renderer.render(&page.tenant, page.page).await
}
// page: end

#[tokio::test]
async fn a_small_tenant_does_not_wait_for_all_pages_of_a_large_one() {
    let (server, renderer) = (RedisServer::start().unwrap(), Renderer::default());
    let client = Client::connect(&server.url()).await.unwrap();
    let pages = |tenant: &str, count| {
        let tenant = tenant.to_owned();
        (0..count).map(move |page| PageRequested { tenant: tenant.clone(), page })
    };
    let all = pages("large", 600).chain(pages("small", 10)).collect::<Vec<_>>();
    assert!(client.publish_all(&all).await.iter().all(Result::is_ok));
    let builder = Runtime::builder(&client).handlers(handlers![render]);
    let runtime = builder.state(renderer.clone()).start().await.unwrap();
    let done = async || renderer.0.lock().unwrap().len() == all.len();
    eventually_async(Duration::from_secs(20), "all are rendered", done).await;
    let rendered = renderer.0.lock().unwrap().clone();
    let last = rendered.iter().rposition(|tenant| tenant == "small").unwrap();
    assert!(last < 400, "in the order of the stream it is the last of all: {last}");
    let _ = runtime.shutdown().await;
}

#[test]
fn the_page_prints_what_is_run_here() {
    crate::assert_printed(include_str!("../../../docs/fair.md"), include_str!("fair.rs"));
}
