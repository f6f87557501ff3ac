//! Random lists of operations, carried out in memory and on a server: both answer alike.

use std::sync::Arc;

use streamjobs::__store::memory::MemoryStore;
use streamjobs_tests::conformance::Stage;
use streamjobs_tests::conformance::random::Replay;

use crate::conformance;

/// `REPLAY_SEED=7` carries out one list; its steps are `REPLAY_STEPS`.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test]
async fn memory_and_server_answer_random_operations_alike() {
    let steps = setting("REPLAY_STEPS").unwrap_or(1_000);
    let seeds = match setting("REPLAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..12,
    };
    let server = conformance::stage().await;
    for seed in seeds {
        server.raw.flush();
        let again = Stage::new(server.store.clone(), server.raw.clone()).await.unwrap();
        let memory = MemoryStore::new();
        let model = Stage::new(Arc::new(memory.clone()), Arc::new(memory)).await.unwrap();
        let (mut server, mut model) = (Replay::new(again, seed), Replay::new(model, seed));
        for step in 0..steps {
            let (real, modelled) = (server.step().await, model.step().await);
            assert_eq!(real, modelled, "server, memory: step {step}, REPLAY_SEED={seed}");
        }
        let (real, modelled) = (server.state().await, model.state().await);
        assert_eq!(real, modelled, "server, memory: at the end, REPLAY_SEED={seed}");
    }
}
