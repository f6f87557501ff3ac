//! A key is text.

use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    customer: Option<String>,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum OrderFlow {
    #[event(type = "order.paid", key = "customer")]
    Paid { customer: Option<String> },
}

fn main() {}
