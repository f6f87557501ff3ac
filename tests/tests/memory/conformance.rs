//! The store's contract in memory, on a paused clock.

use std::sync::Arc;

use streamjobs::__store::conformance::Stage;
use streamjobs::__store::memory::MemoryStore;

async fn stage() -> Stage {
    let store = MemoryStore::new();
    Stage::new(Arc::new(store.clone()), Arc::new(store)).await.unwrap()
}

streamjobs::__conformance_tests!(tokio::test(start_paused = true), stage().await);
