use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Serialize, Deserialize)]
struct Meta {
    count: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", encoding = "fields")]
struct Flattened {
    id: String,
    #[serde(flatten)]
    meta: Meta,
    nothing: (),
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", encoding = "fields")]
#[serde(tag = "kind")]
struct Tagged {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", encoding = "fields")]
enum Flow {
    #[event(type = "order.placed")]
    Placed {
        id: String,
        #[serde(default, flatten)]
        meta: Option<Meta>,
    },
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t")]
#[serde(tag = "kind")]
struct AsJson {
    #[serde(flatten)]
    meta: Meta,
}

fn main() {}
