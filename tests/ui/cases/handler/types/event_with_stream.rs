#[path = "../../support.rs"]
mod support;

use streamjobs::handler;
use support::OrderPlaced;

#[handler(group = "mail", stream = "orders")]
async fn knows_its_stream(_: OrderPlaced) {}

fn main() {}
