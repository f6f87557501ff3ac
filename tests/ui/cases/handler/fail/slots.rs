#[path = "../../support.rs"]
mod support;

use streamjobs::handler;
use support::OrderPlaced;

#[handler(group = "mail", slots = "")]
async fn no_name(_: OrderPlaced) {}

#[handler(group = "mail", slots = 20)]
async fn a_number(_: OrderPlaced) {}

#[handler(group = "mail", slots = "mail", weight = 0)]
async fn no_weight(_: OrderPlaced) {}

#[handler(group = "mail", slots = "mail", weight = 101)]
async fn too_heavy(_: OrderPlaced) {}

#[handler(group = "mail", slots = "mail", weight = "5")]
async fn a_word(_: OrderPlaced) {}

#[handler(group = "mail", weight = 5)]
async fn weight_alone(_: OrderPlaced) {}

#[handler(group = "mail", priority = 1)]
async fn priority(_: OrderPlaced) {}

fn main() {}
