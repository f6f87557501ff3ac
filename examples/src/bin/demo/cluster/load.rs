//! The load: each customer places orders, one after the other, until the demo ends.

use std::time::{Duration, Instant};

use streamjobs::{Client, EventId, StreamName};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::AnyError;
use crate::cluster::book::Book;
use crate::cluster::orders::{STREAM, SpreadOrder, customers};

/// The customers.
pub(crate) struct Load {
    phase: watch::Sender<Phase>,
    customers: Mutex<JoinSet<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    On,
    Paused,
    Over,
}

impl Load {
    /// Starts all customers.
    pub(crate) fn start(client: &Client, book: &Book) -> Result<Self, AnyError> {
        let (phase, _) = watch::channel(Phase::On);
        let stream = StreamName::new(STREAM)?;
        let mut all = JoinSet::new();
        for name in customers() {
            let (client, stream, book) = (client.clone(), stream.clone(), book.clone());
            let customer = Customer { name, client, stream, book, phase: phase.subscribe() };
            all.spawn(customer.shop());
        }
        Ok(Self { phase, customers: Mutex::new(all) })
    }

    pub(crate) fn set(&self, on: bool) {
        self.phase.send_replace(if on { Phase::On } else { Phase::Paused });
    }

    pub(crate) fn is_on(&self) -> bool {
        *self.phase.borrow() == Phase::On
    }

    /// Stops all customers, and waits for the orders that they are placing.
    pub(crate) async fn stop(&self) {
        self.phase.send_replace(Phase::Over);
        let mut customers = self.customers.lock().await;
        while customers.join_next().await.is_some() {}
    }
}

struct Customer {
    name: String,
    client: Client,
    stream: StreamName,
    book: Book,
    phase: watch::Receiver<Phase>,
}

impl Customer {
    async fn shop(mut self) {
        while let Ok(phase) = self.phase.wait_for(|phase| *phase != Phase::Paused).await.map(|p| *p)
        {
            if phase == Phase::Over {
                return;
            }
            self.order().await;
            sleep(PAUSE).await;
        }
    }

    /// Places one order. While its partition has no master, it is tried again with the same event id,
    /// because it may have been stored the first time: then it is done twice.
    async fn order(&self) {
        let (event, id) = (SpreadOrder { customer: self.name.clone() }, EventId::generate());
        loop {
            match self.client.publish_to(&self.stream, &event, id.clone()).await {
                Ok(published) => {
                    let (entry, now) = (published.entry_id, Instant::now());
                    return self.book.lock().published(id.as_str(), &self.name, entry, now);
                }
                Err(_) if *self.phase.borrow() == Phase::Over => return,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// With 24 customers, about 230 orders a second.
const PAUSE: Duration = Duration::from_millis(100);
