//! Watches the loops of a consumer, and ends the consumer when it has lost one that it needs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::handler::panic_text;
use crate::runtime::consumer::queue_handle::QueueHandle;
use crate::runtime::observe::events::QueueEvent;

/// Ends a consumer that has lost a loop which handles jobs. Without its settler, for example, it
/// would renew entries that are never acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct LoopSupervisor {
    pub(crate) queues: Vec<Arc<QueueHandle>>,
    pub(crate) tokens: [CancellationToken; 3],
}

impl LoopSupervisor {
    /// Runs a loop of one queue to its end.
    ///
    /// A panic is a fault of this crate and makes the queue unhealthy. After the panic of a loop that
    /// handles jobs, the consumer ends; its entries are claimed when their leases end. Otherwise it
    /// works on.
    pub(crate) async fn watch(
        self,
        queue: Arc<QueueHandle>,
        name: &'static str,
        body: BoxFuture<'static, ()>,
    ) {
        if let Err(panic) = AssertUnwindSafe(body).catch_unwind().await {
            queue.health.loops.note_broken();
            let panic = panic_text(panic.as_ref());
            queue.context.report.queue(QueueEvent::LoopEnded { name, panic: &panic });
            if HANDLING_JOBS.contains(&name) {
                self.trip();
            }
        }
    }

    fn trip(self) {
        for token in self.tokens {
            token.cancel();
        }
        for queue in self.queues {
            queue.abandon_leases("a loop of its consumer has ended");
        }
    }
}

/// Loops whose end would leave entries in flight that are renewed and never settled.
const HANDLING_JOBS: [&str; 5] = ["reader", "dispatcher", "settler", "ack flusher", "lease keeper"];
