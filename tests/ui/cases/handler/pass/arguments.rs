//! Any pattern, any order, any position of resources.

#![allow(unused_parens, reason = "they are accepted, too")]

#[path = "../../support.rs"]
mod support;

use streamjobs::{Job, JobError, State, handler};
use support::{Mailer, OrderPlaced, Tenant, Transaction};

#[handler(group = "mail")]
async fn patterns(
    OrderPlaced { customer, amount: _ }: OrderPlaced,
    State(Mailer(mut number)): State<Mailer>,
    _: Job,
    Tenant(ref tenant): Tenant,
    #[allow(unused_variables)] job: Job,
) {
    number += 1;
    assert!(!customer.is_empty() && !tenant.is_empty() && number > 0);
}

#[handler(group = "mail")]
async fn resources(
    order: OrderPlaced,
    first: &mut Transaction,
    job: Job,
    Transaction(second): &mut Transaction,
    (third): &mut (Transaction),
    State(mailer): State<Mailer>,
) -> Result<(), JobError> {
    first.0 += order.amount;
    *second += mailer.0;
    third.0 += job.attempt();
    Ok(())
}

#[handler(group = "mail")]
async fn the_same_twice(
    _: OrderPlaced,
    _: State<Mailer>,
    _: State<Mailer>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(())
}

#[handler(group = "mail")]
async fn hidden_error(_: OrderPlaced) -> Result<(), impl Into<JobError>> {
    Err("hidden")
}

fn main() {}
