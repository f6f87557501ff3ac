#![deny(warnings)]
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use streamjobs as renamed;
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders:{acme}", type = "order.placed", key = "customer", encoding = "fields")]
pub struct Placed {
    pub id: u64,
    pub customer: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.wrapped", key = "0", crate = renamed)]
pub struct Wrapped(pub String);

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
pub enum Flow {
    #[event(type = "order.placed")]
    Placed(Placed),
    #[event(type = "order.paid", key = "id")]
    Paid { id: u64 },
    #[event(type = "order.imported", unique = "doc, r#type")]
    Imported { doc: u64, r#type: String, at: u64 },
    #[event(type = "order.sent", key = "type")]
    Sent { r#type: String },
    #[event(type = "order.closed")]
    Closed,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.counted", unique = "1")]
pub struct Counted(pub u64, pub u64);

/// The rule is for the names of the variants.
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", encoding = "fields")]
#[serde(rename_all = "kebab-case")]
pub enum Flat {
    #[event(type = "order.noted")]
    Noted { sj_ref: String },
}

fn main() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(stream = "inner", type = "inner")]
    struct Inner {}

    assert_eq!(<Inner as Event>::TYPES, ["inner"]);
    assert_eq!(
        Flow::TYPES,
        ["order.placed", "order.paid", "order.imported", "order.sent", "order.closed"]
    );
    assert_eq!(Flow::Paid { id: 7 }.key().as_deref(), Some("7"));
    assert_eq!(Flow::Sent { r#type: "post".into() }.key().as_deref(), Some("post"));
    assert_eq!(Flow::Closed.key(), None);
    let imported = |doc, at| Flow::Imported { doc, r#type: "x".into(), at }.unique().unwrap();
    assert!(imported(1, 1).is_some() && imported(1, 1) == imported(1, 2));
    assert_ne!(imported(1, 1), imported(2, 1));
    assert_eq!(Flow::Closed.unique().unwrap(), None);
    assert_eq!(Counted(1, 7).unique().unwrap(), Counted(2, 7).unique().unwrap());
    assert_ne!(Counted(1, 7).unique().unwrap(), Counted(1, 8).unique().unwrap());
    assert_eq!(Placed { id: 1, customer: "alice".into() }.key().as_deref(), Some("alice"));
    assert_eq!(Wrapped("x".into()).key().as_deref(), Some("x"));
}
