use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize)]
#[event(stream = "orders", type = "order.placed")]
struct NotReadable {
    order_id: String,
}

#[derive(Event, Deserialize)]
#[event(stream = "orders", type = "order.placed")]
struct NotWritable {
    order_id: String,
}

fn main() {}
