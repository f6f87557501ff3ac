//! What streams in memory report about themselves.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::model::name::StreamName;
use crate::model::version::{Product, Release, Version};
use crate::store::server_info::{
    ClockOffset, Facts, Rights, ServerFacts, ServerSettings, ServerState,
};
use crate::store::types::Result;
use crate::store::{Queue, ServerInfo, ServerTime};

#[async_trait]
impl ServerInfo for MemoryStore {
    async fn facts(&self, queues: &[Queue]) -> Result<Facts> {
        let rights = Rights { named: !queues.is_empty(), ..Rights::default() };
        let servers = self.step("facts", |_| Ok(vec![of_memory(rights)])).await?;
        Ok(Facts { servers, cluster: None })
    }

    async fn rights(&self, _queues: &[Queue]) -> Result<Rights> {
        Ok(Rights::default())
    }

    async fn now(&self, _stream: &StreamName) -> Result<ServerTime> {
        self.step("now", |state| Ok(ServerTime(state.now()))).await
    }
}

/// A healthy server: nothing is evicted, lost, limited or forbidden.
fn of_memory(rights: Rights) -> ServerFacts {
    let state = ServerState {
        release: Some(Release { product: Product::Memory, version: Version(0, 1, 0) }),
        replica: Some(false),
        cluster: Some(false),
        replicas: Some(0),
        connections: Some(1),
        connections_max: Some(u64::MAX),
        memory: Some(0),
        memory_max: Some(0),
        eviction: Some("noeviction".to_owned()),
        append_only: Some(true),
        append_ok: Some(true),
        rewrite_ok: Some(true),
        snapshot_ok: Some(true),
    };
    let settings = ServerSettings {
        snapshots: Some(false),
        fsync: Some("always".to_owned()),
        idle_timeout: Some(Duration::ZERO),
        replicas_to_write: Some(0),
        node_entries_max: Some(100),
        ..ServerSettings::default()
    };
    let clock = ClockOffset { apart: Duration::ZERO, error: Duration::ZERO, ahead: false };
    ServerFacts {
        address: "this process' memory".to_owned(),
        user: "default".to_owned(),
        fails_over: false,
        cluster_ok: None,
        state: Ok(state),
        settings: Ok(settings),
        rights: Ok(rights),
        clock: Ok(clock),
    }
}
