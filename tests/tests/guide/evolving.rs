//! `docs/evolving.md`: what an old and a new program make of each other's events.

use serde::{Deserialize, Serialize};
use streamjobs::{Event, Payload};

mod before {
    use super::*;

    #[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
    #[event(stream = "orders", type = "order.placed", key = "customer_id")]
    pub(super) struct OrderPlaced {
        pub(super) order_id: String,
        pub(super) customer_id: String,
    }
}

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order_id: String,
    #[serde(alias = "customer_id")] // what versions before called it
    customer: String,
    #[serde(default)]
    gift: bool, // new: older events are no gifts
}
// page: end

// page: begin
#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Placed {
    #[event(type = "order.placed")]
    V1 { order_id: String, cents: i64 },
    #[event(type = "order.placed.v2")]
    V2 { order_id: String, amount: String, currency: String },
}
// page: end

fn decode<E: Event>(event_type: &str, json: &str) -> Option<E> {
    E::decode(event_type, Payload::Json(json.as_bytes())).ok()
}

#[test]
fn a_new_reader_reads_events_from_before_a_rename_and_a_new_field() {
    let old = before::OrderPlaced { order_id: "o-1".into(), customer_id: "alice".into() };
    let new = decode::<OrderPlaced>("order.placed", &serde_json::to_string(&old).unwrap()).unwrap();
    assert_eq!((new.order_id.as_str(), new.customer.as_str(), new.gift), ("o-1", "alice", false));
    assert_eq!(new.key().as_deref(), Some("alice"));
}

#[test]
fn an_old_reader_ignores_a_new_field_and_refuses_a_new_name() {
    let new = r#"{"order_id":"o-1","customer_id":"alice","gift":true}"#;
    assert!(decode::<before::OrderPlaced>("order.placed", new).is_some());
    let renamed = r#"{"order_id":"o-1","customer":"alice"}"#;
    assert!(decode::<before::OrderPlaced>("order.placed", renamed).is_none());
}

#[test]
fn two_versions_of_an_event_are_two_types_of_one_enum() {
    let first = decode::<Placed>("order.placed", r#"{"order_id":"o-1","cents":4950}"#).unwrap();
    let second = r#"{"order_id":"o-1","amount":"49.50","currency":"EUR"}"#;
    let second = decode::<Placed>("order.placed.v2", second).unwrap();
    assert!(matches!(&first, Placed::V1 { order_id, cents: 4950 } if order_id == "o-1"));
    let is_second = |placed: &Placed| {
        matches!(placed, Placed::V2 { order_id, amount, currency }
            if order_id == "o-1" && amount == "49.50" && currency == "EUR")
    };
    assert!(is_second(&second) && first.event_type() != second.event_type());
}
