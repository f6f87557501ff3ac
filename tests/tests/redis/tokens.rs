//! Attempts as tokens: what one consumer may do to an entry that another has, on a real server.

use std::sync::Arc;
use std::time::Duration;

use streamjobs::__store::{
    self, ClaimedPage, FenceResult, Hold, IdleClaim, Inlet, Queue, ReadRequest, ReaderSetup, Store,
};
use streamjobs::config::{Retention, Start};
use streamjobs::{ConsumerName, EntryId, GroupName, StreamName};
use streamjobs_tests::conformance::append;

use crate::app::App;

struct Actors {
    app: App,
    store: Arc<dyn Store>,
    queue: Queue,
    names: Vec<ConsumerName>,
}

impl Actors {
    async fn start(names: &[&str]) -> Self {
        let app = App::start().await;
        let store = __store::of(&app.client);
        let queue = Queue {
            stream: StreamName::new("orders").unwrap(),
            group: GroupName::new("work").unwrap(),
        };
        store.prepare(&queue, Start::Beginning).await.unwrap();
        let names = names.iter().map(|name| ConsumerName::new(*name).unwrap()).collect();
        Self { app, store, queue, names }
    }

    /// A fresh entry, delivered to the first actor.
    async fn deliver(&self) -> Hold {
        let fields = vec![(b"type".as_slice().into(), b"t".as_slice().into())];
        let (store, stream) = (self.store.as_ref(), &self.queue.stream);
        let appended = append(store, stream, Retention::Unlimited, vec![fields]).await;
        let id = *appended[0].as_ref().unwrap();
        let mut reader = self
            .store
            .reader(&self.queue, &self.names[0], ReaderSetup::waiting(Duration::from_secs(1)))
            .await
            .unwrap();
        let request = ReadRequest { acks: &[], inlet: Inlet::STREAM, count: 1, block: None };
        let delivered = reader.read(request).await.unwrap().deliveries.unwrap();
        assert_eq!(delivered[0].entry.id(), id);
        delivered[0].hold()
    }

    fn age(&self, id: EntryId) {
        self.app.server.age("orders", "work", &id.to_string(), Duration::from_secs(3600));
    }

    async fn claim_idle(&self, actor: usize) -> Option<Hold> {
        match self.page(actor).await {
            ClaimedPage::Page { claimed, .. } => claimed.first().map(|delivery| delivery.hold()),
            ClaimedPage::ClockOff { .. } => None,
        }
    }

    /// What a scan by one of the actors claims.
    async fn page(&self, actor: usize) -> ClaimedPage {
        let claim = IdleClaim {
            inlet: Inlet::STREAM,
            lease: Duration::from_secs(60),
            cursor: EntryId::ZERO,
            limit: 1,
            expected: None,
            skip: &[],
        };
        self.store.claim_idle(&self.queue, &self.names[actor], claim).await.unwrap()
    }

    async fn renew(&self, actor: usize, hold: Hold) -> FenceResult {
        self.store.renew(&self.queue, &self.names[actor], &[hold]).await.unwrap().answers[0]
    }

    async fn release(&self, actor: usize, hold: Hold) -> FenceResult {
        self.store.release(&self.queue, &self.names[actor], &[hold]).await.unwrap()[0]
    }

    /// The server's view: owner and count.
    fn row(&self) -> Option<(String, u64)> {
        self.app.server.pending("orders", "work").pop().map(|row| (row.consumer, row.deliveries))
    }
}

#[tokio::test]
async fn an_attempt_that_was_taken_over_is_refused_in_every_step_and_changes_nothing() {
    let actors = Actors::start(&["a", "b"]).await;
    let old = actors.deliver().await;
    actors.age(old.id);
    let new = actors.claim_idle(1).await.unwrap();
    assert_eq!(new.delivery_count, 2);
    let letter = vec![(b"x".as_slice().into(), b"y".as_slice().into())];
    let (store, queue, a) = (&actors.store, &actors.queue, &actors.names[0]);
    assert_eq!(actors.renew(0, old).await, FenceResult::TakenOver);
    assert_eq!(actors.release(0, old).await, FenceResult::TakenOver);
    assert_eq!(
        store.store_dead_letter(queue, a, old, None, &letter).await.unwrap(),
        FenceResult::TakenOver
    );
    assert_eq!(
        store.schedule_retry(queue, a, old, None, Duration::ZERO, &letter).await.unwrap(),
        FenceResult::TakenOver
    );
    assert!(store.recover(queue, a, &[old]).await.unwrap().is_empty());
    assert_eq!(actors.row(), Some(("b".to_owned(), 2)));
    let written = ["{orders}:dead:work", "{orders}:retry:work"]
        .map(|key| actors.app.number(&["EXISTS", key]));
    assert_eq!(written, [0, 0]);
    assert_eq!(actors.renew(1, new).await, FenceResult::Owned);
}

#[tokio::test]
async fn the_same_consumer_with_an_older_count_is_another_attempt() {
    let actors = Actors::start(&["a"]).await;
    let old = actors.deliver().await;
    actors.age(old.id);
    let new = actors.claim_idle(0).await.unwrap();
    assert_eq!((old.delivery_count, new.delivery_count), (1, 2));
    assert_eq!(actors.renew(0, old).await, FenceResult::TakenOver);
    assert_eq!(actors.renew(0, new).await, FenceResult::Owned);
}

#[tokio::test]
async fn renewing_what_is_acknowledged_trimmed_or_gone_says_so_and_resurrects_nothing() {
    let actors = Actors::start(&["a"]).await;
    let acknowledged = actors.deliver().await;
    actors.store.acknowledge(&actors.queue, &[(Inlet::STREAM, acknowledged.id)]).await.unwrap();
    assert_eq!(actors.renew(0, acknowledged).await, FenceResult::NotPending);
    let trimmed = actors.deliver().await;
    actors.app.server.command(&["XDEL", "orders", &trimmed.id.to_string()]);
    assert!(matches!(actors.renew(0, trimmed).await, FenceResult::Trimmed(_)));
    assert_eq!(actors.renew(0, trimmed).await, FenceResult::NotPending);
    actors.app.server.command(&["DEL", "orders"]);
    let lost = actors.store.renew(&actors.queue, &actors.names[0], &[trimmed]).await;
    assert!(matches!(lost, Err(__store::StoreError::GroupMissing)));
    assert_eq!(actors.app.number(&["EXISTS", "orders"]), 0);
}

/// Steps of three actors over one entry in random order. A model keeps who has the entry; whatever
/// an actor does with a token that is not the present one must change nothing.
#[tokio::test]
async fn no_stale_token_ever_changes_an_entry() {
    let actors = Actors::start(&["a", "b", "c"]).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut steps = 0;
    while steps < STEPS {
        let first = actors.deliver().await;
        let mut present = (0, first);
        let mut tokens = vec![present];
        for _ in 0..100 {
            steps += 1;
            let (actor, hold) = tokens[random.usize(..tokens.len())];
            let fits = (actor, hold) == present;
            match random.u8(..4) {
                0 => {
                    let thief = random.usize(..3);
                    actors.age(first.id);
                    let claimed = actors.claim_idle(thief).await.unwrap();
                    assert!(
                        claimed.delivery_count > present.1.delivery_count,
                        "seed {seed}: counts rise"
                    );
                    present = (thief, claimed);
                    tokens.push(present);
                }
                1 => {
                    let none = actors.claim_idle(random.usize(..3)).await;
                    assert_eq!(none, None, "seed {seed}: a fresh entry is not claimed");
                }
                _ => {
                    let answer = actors.renew(actor, hold).await;
                    let expected = if fits { FenceResult::Owned } else { FenceResult::TakenOver };
                    assert_eq!(answer, expected, "seed {seed}, step {steps}");
                }
            }
            let owner = actors.names[present.0].to_string();
            assert_eq!(
                actors.row(),
                Some((owner, present.1.delivery_count)),
                "seed {seed}, step {steps}"
            );
        }
        let letter = vec![(b"x".as_slice().into(), b"y".as_slice().into())];
        for (actor, hold) in tokens.iter().copied().filter(|token| *token != present) {
            let name = &actors.names[actor];
            let refused = actors
                .store
                .store_dead_letter(&actors.queue, name, hold, None, &letter)
                .await
                .unwrap();
            assert_eq!(refused, FenceResult::TakenOver, "seed {seed}");
        }
        let name = &actors.names[present.0];
        assert_eq!(
            actors
                .store
                .store_dead_letter(&actors.queue, name, present.1, None, &letter)
                .await
                .unwrap(),
            FenceResult::Owned
        );
        assert_eq!(actors.row(), None);
    }
    assert_eq!(actors.app.server.length("{orders}:dead:work") * 100, steps);
}

const STEPS: usize = 10_000;

#[tokio::test]
async fn leases_are_kept_and_nothing_is_lost_while_no_dead_letter_can_be_stored() {
    let actors = Actors::start(&["a", "b"]).await;
    let (whole, trimmed) = (actors.deliver().await, actors.deliver().await);
    actors.age(whole.id);
    actors.age(trimmed.id);
    actors.app.server.command(&["XDEL", "orders", &trimmed.id.to_string()]);
    actors.app.server.command(&["SET", "{orders}:dead:work", "not a stream"]);
    assert_eq!(actors.renew(0, whole).await, FenceResult::Owned);
    assert_eq!(actors.renew(0, trimmed).await, FenceResult::Owned);
    let idle = || actors.app.server.pending("orders", "work").into_iter().map(|row| row.idle);
    let young = idle().map(|idle| idle < Duration::from_secs(60)).collect::<Vec<_>>();
    assert_eq!(young, [true, false], "renewed, and left as it is");
    let ClaimedPage::Page { claimed, left, .. } = actors.page(1).await else { panic!("no page") };
    assert_eq!((claimed.len(), left), (0, 1), "claiming it would lose it, and that is said");
    assert_eq!(actors.release(0, trimmed).await, FenceResult::Owned);
    let recovered =
        actors.store.recover(&actors.queue, &actors.names[0], &[trimmed]).await.unwrap();
    assert!(recovered.is_empty());
    assert_eq!(actors.app.pending("work"), 2, "still there");
    actors.app.server.command(&["DEL", "{orders}:dead:work"]);
    assert!(matches!(actors.renew(0, trimmed).await, FenceResult::Trimmed(_)));
    assert_eq!(
        (actors.app.pending("work"), actors.app.server.length("{orders}:dead:work")),
        (1, 1)
    );
}
