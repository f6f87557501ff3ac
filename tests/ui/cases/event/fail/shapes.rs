use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t")]
struct Generic<T> {
    id: T,
}

#[derive(Event, Serialize)]
#[event(stream = "orders", type = "t")]
struct Borrowed<'a> {
    id: &'a str,
}

#[derive(Event)]
#[event(stream = "orders", type = "t")]
union Either {
    one: u8,
    two: u16,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Nothing {}

fn main() {}
