//! Names that are constants.

use serde::{Deserialize, Serialize};
use streamjobs::schedule::Tick;
use streamjobs::{Entry, Event, handler, handlers};

mod names {
    pub const MAIL: &str = "mail";
    pub const ORDERS: &str = "orders:{acme}";
    pub const REPORTS: &str = concat!("reports", "-eu");
}

const MINE: &str = names::MAIL;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = names::ORDERS, type = "order.placed")]
struct OrderPlaced {}

#[handler(group = names::MAIL)]
async fn event(_: OrderPlaced) {}

#[handler(group = MINE, stream = names::ORDERS)]
async fn raw(_: Entry) {}

#[handler(group = names::REPORTS, every = "1h")]
async fn own_ticks(_: Tick) {}

#[handler(group = names::REPORTS, stream = names::ORDERS, every = "1h")]
async fn other_ticks(_: Tick) {}

/// A literal that was passed through a macro, and a constant.
macro_rules! audited {
    ($name:ident, $group:expr) => {
        #[handler(group = $group, stream = "orders")]
        async fn $name(_: Entry) {}
    };
}

audited!(literal, "audit");
audited!(constant, names::MAIL);

fn main() {
    let listed = handlers![event, raw, own_ticks, other_ticks, literal, constant];
    let names = listed.map(|handler| (handler.group, handler.stream));
    let expected = [
        ("mail", "orders:{acme}"),
        ("mail", "orders:{acme}"),
        ("reports-eu", "ticks:reports-eu"),
        ("reports-eu", "orders:{acme}"),
        ("audit", "orders"),
        ("mail", "orders"),
    ];
    assert_eq!(names, expected);
}
