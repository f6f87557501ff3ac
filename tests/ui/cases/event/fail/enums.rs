use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", key = "id")]
#[serde(tag = "kind")]
enum Flow {
    #[event(type = "order.placed", key = "customer")]
    Placed { id: String },
    #[event(type = "order.placed")]
    Again { id: String },
    #[event(type = "order.paid", key = "id")]
    Paid,
    #[event(type = "order.shipped")]
    #[serde(skip)]
    Shipped,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Pairs {
    #[event(type = "order.pair")]
    Pair(String, String),
}

fn main() {}
