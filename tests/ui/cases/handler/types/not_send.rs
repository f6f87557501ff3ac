#[path = "../../support.rs"]
mod support;

use std::rc::Rc;

use streamjobs::handler;
use support::OrderPlaced;

#[handler(group = "mail")]
async fn holds_a_counter(order: OrderPlaced) {
    let customer = Rc::new(order.customer);
    std::future::ready(()).await;
    drop(customer);
}

fn main() {}
