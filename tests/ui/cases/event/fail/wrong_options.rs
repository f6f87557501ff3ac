use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", colour = "red", stream = "again", key = 7)]
struct Unknown {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "or{ders", type = "sj-mine", key = "customer", encoding = "xml")]
struct Wrong {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream, type = "t")]
struct NoValue {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", unique = "id, version, id, ")]
struct Unique {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", unique = "id")]
enum UniqueFlow {
    #[event(type = "order.placed", unique = "customer")]
    Placed { id: String },
    #[event(type = "order.paid", unique = "0")]
    Paid(String),
}

fn main() {}
