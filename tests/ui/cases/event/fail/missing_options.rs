use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
struct Placed {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Flow {
    Placed { id: String },
    #[event(type = "order.paid")]
    Paid,
}

fn main() {}
