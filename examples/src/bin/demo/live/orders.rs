//! The demo's events, and the handlers of its two groups.

use serde::{Deserialize, Serialize};
use streamjobs::service::BoxFuture;
use streamjobs::{Event, HandlerDef, Job, JobError, Outcome, State, handler, handlers};

use crate::live::simulation::Simulation;

/// An event of an order, with flat fields that any Redis client can show.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "streamjobs-demo:shop", encoding = "fields")]
pub(crate) enum OrderEvent {
    #[event(type = "order.placed")]
    Placed(Order),
    #[event(type = "order.paid")]
    Paid(Order),
    #[event(type = "order.shipped")]
    Shipped(Order),
    #[event(type = "order.cancelled")]
    Cancelled(Order),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) customer: String,
    pub(crate) amount: String,
}

/// The event types.
pub(crate) const TYPES: [&str; 4] =
    ["order.placed", "order.paid", "order.shipped", "order.cancelled"];
/// The customer whose orders fail until the handler is repaired.
pub(crate) const POISON: &str = "poison";
const CUSTOMERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

impl OrderEvent {
    /// A random event of this type, or of any type.
    pub(crate) fn random(event_type: Option<&str>) -> Self {
        let cents = fastrand::u32(500..=25_000);
        let order = Order {
            order_id: format!("o-{}", fastrand::u32(1_000..=9_999)),
            customer: fastrand::choice(CUSTOMERS).unwrap_or("alice").to_owned(),
            amount: format!("{}.{:02}", cents / 100, cents % 100),
        };
        Self::of(event_type.unwrap_or_else(|| fastrand::choice(TYPES).unwrap_or("")), order)
    }

    /// An event that always fails.
    pub(crate) fn poison() -> Self {
        let (order_id, customer) = ("o-0000".to_owned(), POISON.to_owned());
        Self::Placed(Order { order_id, customer, amount: "0.00".to_owned() })
    }

    fn of(event_type: &str, order: Order) -> Self {
        match event_type {
            "order.paid" => Self::Paid(order),
            "order.shipped" => Self::Shipped(order),
            "order.cancelled" => Self::Cancelled(order),
            _ => Self::Placed(order),
        }
    }

    pub(crate) fn order(&self) -> &Order {
        match self {
            Self::Placed(order) | Self::Paid(order) => order,
            Self::Shipped(order) | Self::Cancelled(order) => order,
        }
    }
}

#[handler(
    group = "notifications",
    start = "0",
    max_attempts = 3,
    backoff = "500ms..5s",
    timeout = "60s"
)]
async fn notify(
    event: OrderEvent,
    State(simulation): State<Simulation>,
    job: Job,
) -> Result<(), JobError> {
    simulation.work(&event, &job).await
}

#[handler(
    group = "analytics",
    start = "0",
    max_attempts = 3,
    backoff = "500ms..5s",
    timeout = "60s"
)]
async fn analyse(
    event: OrderEvent,
    State(simulation): State<Simulation>,
    job: Job,
) -> Result<(), JobError> {
    simulation.work(&event, &job).await
}

/// The handler of a group, on the stream of this demo. Groups that are added on the page use the
/// handler of `analytics`.
pub(crate) fn handler_of(group: &str, stream: &'static str) -> HandlerDef {
    let [notify, analyse] = handlers![notify, analyse];
    if group == notify.group {
        HandlerDef { stream, run: notify_or_drop, ..notify }
    } else if group == analyse.group {
        HandlerDef { stream, run: analyse_or_drop, ..analyse }
    } else {
        // A handler's definition needs a static name. Users add few groups.
        let group = Box::leak(group.to_owned().into_boxed_str());
        HandlerDef { stream, group, run: analyse_or_drop, ..analyse }
    }
}

fn notify_or_drop(job: Job) -> BoxFuture<'static, Outcome> {
    let [notify] = handlers![notify];
    or_drop(notify.run, job)
}

fn analyse_or_drop(job: Job) -> BoxFuture<'static, Outcome> {
    let [analyse] = handlers![analyse];
    or_drop(analyse.run, job)
}

/// Drops the job as a crashed process does: it is neither done nor failed, is not renewed, and stays
/// pending for this consumer until another one claims it.
fn or_drop(run: fn(Job) -> BoxFuture<'static, Outcome>, job: Job) -> BoxFuture<'static, Outcome> {
    let drops = job.state::<Simulation>().is_some_and(|simulation| simulation.drops(&job));
    if drops { Box::pin(async { Outcome::LeaseLost }) } else { run(job) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn orders_are_of_four_types_and_five_customers_within_their_bounds() {
        let (mut types, mut customers) = (HashSet::new(), HashSet::new());
        for _ in 0..2_000 {
            let event = OrderEvent::random(None);
            types.insert(event.event_type().to_owned());
            let Order { order_id, customer, amount } = event.order();
            customers.insert(customer.clone());
            let number = order_id.strip_prefix("o-").unwrap().parse::<u32>().unwrap();
            assert!((1_000..=9_999).contains(&number), "{order_id}");
            let (whole, cents) = amount.split_once('.').unwrap();
            assert_eq!(cents.len(), 2, "{amount}");
            let cents = whole.parse::<u32>().unwrap() * 100 + cents.parse::<u32>().unwrap();
            assert!((500..=25_000).contains(&cents), "{amount}");
        }
        assert_eq!(types, TYPES.map(str::to_owned).into());
        assert_eq!(customers, CUSTOMERS.map(str::to_owned).into());
        for event_type in TYPES {
            assert_eq!(OrderEvent::random(Some(event_type)).event_type(), event_type);
        }
    }
}
