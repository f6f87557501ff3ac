//! The store's contract in memory, on a paused clock.

use std::sync::Arc;

use streamjobs::__store::memory::MemoryStore;
use streamjobs_tests::conformance::Stage;

async fn stage() -> Stage {
    let store = MemoryStore::new();
    Stage::new(Arc::new(store.clone()), Arc::new(store)).await.unwrap()
}

streamjobs_tests::conformance_tests!(tokio::test(start_paused = true), stage().await);
