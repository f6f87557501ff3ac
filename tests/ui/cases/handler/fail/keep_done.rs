#[path = "../../support.rs"]
mod support;

use streamjobs::handler;
use support::OrderPlaced;

#[handler(group = "mail", keep_done = "500ms")]
async fn too_short(_: OrderPlaced) {}

#[handler(group = "mail", keep_done = "8d")]
async fn too_long(_: OrderPlaced) {}

#[handler(group = "mail", keep_done = 60)]
async fn no_time(_: OrderPlaced) {}

fn main() {}
