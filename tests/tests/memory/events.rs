//! Events as they are written and read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use streamjobs::{Entry, EntryId, Event, Fields, Payload};

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "order.placed", key = "customer", encoding = "fields")]
struct Flat {
    order_id: String,
    customer: String,
    amount: f64,
    gift: Option<bool>,
    items: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders")]
enum Flow {
    #[event(type = "order.placed")]
    Placed { order_id: String, customer: String },
    #[event(type = "order.paid")]
    Paid(Payment),
    #[event(type = "order.cancelled")]
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", encoding = "fields")]
enum FlatFlow {
    #[event(type = "order.placed")]
    Placed { order_id: String, customer: String },
    #[event(type = "order.paid")]
    Paid(Payment),
    #[event(type = "order.cancelled")]
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Payment {
    cents: u64,
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t")]
struct Anything(BTreeMap<String, String>);

fn flat() -> Flat {
    Flat {
        order_id: "o-1".into(),
        customer: "alice".into(),
        amount: 49.5,
        gift: None,
        items: vec![7, 8],
    }
}

fn texts(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn entry(fields: &[(&'static str, &'static str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

#[test]
fn flat_fields_stand_as_the_guide_writes_them() {
    let expected =
        [("order_id", "o-1"), ("customer", "alice"), ("amount", "49.5"), ("items", "[7,8]")];
    let written = flat().encode().unwrap();
    assert_eq!(texts(&written), pairs(&expected));
    assert_eq!(Flat::decode("order.placed", Payload::Fields(&written)).unwrap(), flat());
    assert_eq!(
        (Flat::STREAM, Flat::TYPES, flat().key()),
        ("orders", &["order.placed"][..], Some("alice".to_owned()))
    );
}

#[test]
fn each_encoding_is_read_whatever_the_event_says() {
    let json = br#"{"order_id":"o-1","customer":"alice","amount":49.5,"items":[7,8]}"#;
    assert_eq!(Flat::decode("order.placed", Payload::Json(json)).unwrap(), flat());
    let fields =
        entry(&[("type", "order.placed"), ("ts_ms", "17"), ("order_id", "o"), ("customer", "c")]);
    let placed = Flow::Placed { order_id: "o".into(), customer: "c".into() };
    assert_eq!(Flow::decode("order.placed", Payload::Fields(&fields)).unwrap(), placed);
}

#[test]
fn one_enum_carries_a_flow_and_its_types_stand_for_the_variants() {
    let flow = [
        (
            Flow::Placed { order_id: "o".into(), customer: "c".into() },
            "order.placed",
            r#"{"order_id":"o","customer":"c"}"#,
        ),
        (Flow::Paid(Payment { cents: 5 }), "order.paid", r#"{"cents":5}"#),
        (Flow::Cancelled, "order.cancelled", "null"),
    ];
    for (event, event_type, data) in flow {
        assert_eq!(event.event_type(), event_type);
        let written = event.encode().unwrap();
        assert_eq!(texts(&written), pairs(&[("data", data)]));
        assert_eq!(Flow::decode(event_type, Payload::Json(&written[0].1)).unwrap(), event);
    }
    assert_eq!(Flow::decode("order.cancelled", Payload::Fields(&[])).unwrap(), Flow::Cancelled);
}

#[test]
fn a_flow_can_be_flat_too() {
    let flow = [
        (
            FlatFlow::Placed { order_id: "o".into(), customer: "c".into() },
            pairs(&[("order_id", "o"), ("customer", "c")]),
        ),
        (FlatFlow::Paid(Payment { cents: 5 }), pairs(&[("cents", "5")])),
        (FlatFlow::Cancelled, Vec::new()),
    ];
    for (event, expected) in flow {
        let written = event.encode().unwrap();
        assert_eq!(texts(&written), expected);
        assert_eq!(FlatFlow::decode(event.event_type(), Payload::Fields(&written)).unwrap(), event);
    }
}

#[test]
fn a_payload_cannot_replace_the_envelope() {
    let map = BTreeMap::from([
        ("type".to_owned(), "forged".to_owned()),
        ("sj-id".to_owned(), "forged".to_owned()),
    ]);
    let written = Anything(map.clone()).encode().unwrap();
    assert_eq!(written.len(), 1, "all of it is inside of `data`");
    let read = Anything::decode("t", Payload::Json(&written[0].1)).unwrap();
    assert_eq!(read, Anything(map));
    let fields = entry(&[("type", "t"), ("sj-id", "e"), ("own", "x")]);
    let Anything(read) = Anything::decode("t", Payload::Fields(&fields)).unwrap();
    assert_eq!(read.into_iter().collect::<Vec<_>>(), pairs(&[("own", "x")]));
}

#[test]
fn what_cannot_be_read_says_what_was_expected_and_never_what_is_there() {
    let unknown = Flow::decode("order.lost", Payload::Json(b"{}")).unwrap_err().to_string();
    assert!(
        unknown.contains("\"order.lost\"") && unknown.contains("order.placed, order.paid"),
        "{unknown}"
    );
    let payloads: [&[u8]; 6] = [
        b"",
        b"{\"cents\":\"canary\"}",
        b"{}",
        b"{\"cents\":-1}",
        b"{\"cents\":1}x",
        b"[[[[\"canary\"]]]]",
    ];
    for payload in payloads {
        let error = Flow::decode("order.paid", Payload::Json(payload)).unwrap_err().to_string();
        assert!(!error.contains("canary") && !error.is_empty(), "{error}");
    }
    assert!(!format!("{:?}", Payload::Json(b"canary")).contains("canary"));
    let shown = format!("{:?}", Entry::new(EntryId::ZERO, entry(&[("data", "canary")])));
    assert!(!shown.contains("canary"));
}
