use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(straem = "orders", typ = "order.placed")]
struct Almost {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(topic = "orders", name = "order.placed")]
struct WordsOfOtherSystems {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Flow {
    #[event(type = "order.paid", encodin = "json")]
    NotOfAVariant { id: String },
}

fn main() {}
