#[path = "../../support.rs"]
mod support;

use streamjobs::{State, handler};
use support::{Mailer, OrderPlaced};

struct NotClone;

#[handler(group = "mail")]
async fn not_wrapped(_: OrderPlaced, _: Mailer) {}

#[handler(group = "mail")]
async fn two_events(_: OrderPlaced, _: OrderPlaced) {}

#[handler(group = "mail")]
async fn not_clone(_: OrderPlaced, State(_): State<NotClone>) {}

fn main() {}
