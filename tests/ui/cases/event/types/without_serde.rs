//! An event is written and read by serde.

use streamjobs::Event;

#[derive(Event)]
#[event(stream = "orders", type = "order.placed")]
struct Neither {
    order_id: String,
}

#[derive(Event)]
#[event(stream = "orders", encoding = "fields")]
enum NeitherOfFlow {
    #[event(type = "order.paid")]
    Paid { order_id: String },
}

fn main() {}
