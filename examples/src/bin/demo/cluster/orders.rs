//! The event of the cluster's demo, and its handler.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamjobs::{Event, Job, State, handler};
use tokio::time::sleep;

use crate::cluster::book::Book;

/// The stream that is spread over partitions.
pub(crate) const STREAM: &str = "streamjobs-demo:spread";
pub(crate) const PARTITIONS: u16 = 12;

/// A customer's orders are all in one partition.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(stream = "streamjobs-demo:spread", type = "order.placed", key = "customer")]
pub(crate) struct SpreadOrder {
    pub(crate) customer: String,
}

/// The customers: enough that each partition has one.
pub(crate) fn customers() -> impl Iterator<Item = String> {
    (0..CUSTOMERS).map(|number| format!("customer-{number}"))
}

#[handler(group = "shipping", start = "0", concurrency = 32)]
pub(crate) async fn ship(order: SpreadOrder, State(book): State<Book>, job: Job) {
    sleep(WORK).await;
    book.lock().done(job.event_id().as_str(), &order.customer, job.stream().as_str());
}

const CUSTOMERS: usize = 24;
const WORK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The partition of a key is CRC-32 of it, as docs/partitions.md says.
    #[test]
    fn each_partition_has_a_customer() {
        let partition = |customer: String| {
            let crc = customer.bytes().fold(u32::MAX, |crc, byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                    (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
                })
            });
            !crc % u32::from(PARTITIONS)
        };
        let partitions = customers().map(partition).collect::<HashSet<_>>();
        assert_eq!(partitions.len(), usize::from(PARTITIONS));
    }
}
