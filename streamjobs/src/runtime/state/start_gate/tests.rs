//! The gate by itself, under a paused clock.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::model::name::{GroupName, StreamName};
use crate::store::Rates;
use crate::store::memory::{Fault, MemoryStore, Passage, View, Watch};

const HOUR: Duration = Duration::from_secs(3600);

fn queue() -> Queue {
    let (stream, group) = (StreamName::new("calls"), GroupName::new("outside"));
    Queue { stream: stream.unwrap(), group: group.unwrap() }
}

fn gate(store: &MemoryStore, rate: Option<Rate>) -> StartGate {
    StartGate::new(Arc::new(store.clone()), queue(), rate)
}

/// As when the promoter of one partition tells the server of a wait while the promotion of another is on its
/// way.
#[tokio::test(start_paused = true)]
async fn a_promotion_that_was_sent_before_a_wait_was_told_neither_ends_nor_shortens_it() {
    for reported in [None, Some(Duration::from_secs(1))] {
        let gate = gate(&MemoryStore::new(), None);
        let before = gate.before_promotion();
        gate.limit_here(HOUR);
        assert!(gate.tell_limit().await.unwrap());
        gate.heard(&queue(), before, None, reported);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(gate.is_shut() && gate.applies(), "{reported:?}");
        gate.heard(&queue(), gate.before_promotion(), None, reported);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!gate.is_shut(), "the next one does: {reported:?}");
    }
}

/// The answers to requests for starts take a second.
#[derive(Debug)]
struct Late;

impl Watch for Late {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        let is_late = operation == "reserve_starts";
        let after = if is_late { Duration::from_secs(1) } else { Duration::ZERO };
        Passage { after, ..Passage::default() }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

/// Requests for starts fail after three seconds, as on a node that hangs.
#[derive(Debug, Default)]
struct Hanging {
    asked: AtomicU64,
}

impl Watch for Hanging {
    fn passage(&self, _caller: u64, operation: &'static str) -> Passage {
        if operation != "reserve_starts" {
            return Passage::default();
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let fault = Some(Fault::AnswerLost);
        Passage { fault, after: Duration::from_secs(3), ..Passage::default() }
    }

    fn carried_out(&self, _caller: u64, _operation: &'static str, _view: View<'_>) {}
}

/// The readers of eight partitions ask at once. They keep slots meanwhile.
#[tokio::test(start_paused = true)]
async fn after_a_request_that_failed_no_other_is_made_for_a_while() {
    let hanging = Arc::new(Hanging::default());
    let gate = gate(&MemoryStore::new().watched(1, hanging.clone()), Some("1/1s".parse().unwrap()));
    let begun = Instant::now();
    let asks = (0..8).map(|_| gate.take(1, StartsFor::Read)).collect::<Vec<_>>();
    let answers = futures_util::future::join_all(asks).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
    assert_eq!((hanging.asked.load(Ordering::Relaxed), gate.is_shut()), (1, true));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    for pause in [1, 2, 4, 8, 8] {
        gate.opened().await;
        assert!(gate.take(1, StartsFor::Read).await.is_err());
        let opened = Instant::now();
        gate.opened().await;
        assert_eq!(opened.elapsed(), Duration::from_secs(pause));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_under_a_rate_that_was_replaced_meanwhile_does_not_count() {
    let store = MemoryStore::new();
    let gate = gate(&store.watched(0, Arc::new(Late)), "1/1h".parse().ok());
    assert_eq!(gate.take(1, StartsFor::Read).await.unwrap().count, 1);
    let (begun, raised) = (Instant::now(), SetRate::At("1000/1s".parse().unwrap()));
    let replace = async {
        sleep_until(Instant::now() + Duration::from_millis(500)).await;
        store.set_rate(&queue(), Some(raised)).await.unwrap();
        gate.heard(&queue(), gate.before_promotion(), Some(raised), None);
    };
    let (taken, ()) = tokio::join!(gate.take(1, StartsFor::Read), replace);
    assert_eq!((taken.unwrap().count, gate.is_shut()), (0, false));
    // What the former rate had granted is cut back first.
    while gate.take(1, StartsFor::Read).await.unwrap().count == 0 {
        gate.opened().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
