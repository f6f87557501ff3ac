#[path = "../../support.rs"]
mod support;

use streamjobs::{State, handler};
use support::{Mailer, OrderPlaced};

#[handler(group = "mail")]
async fn buffer(_: OrderPlaced, _: &mut Vec<u8>) {}

#[handler(group = "mail")]
async fn state(_: OrderPlaced, _: &mut State<Mailer>) {}

fn main() {}
