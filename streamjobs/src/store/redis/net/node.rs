//! One server, as one store uses it.

use std::sync::Arc;

use super::batches::Batches;
use super::endpoint::Endpoint;
use super::links::Link;
use super::shared_reading::SharedReading;
use crate::model::cause::BoxError;
use crate::store::redis::script::Scripts;

/// The connections of one store to one server.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) link: Link,
    pub(crate) reading: Arc<SharedReading>,
    pub(super) batches: Arc<Batches>,
}

impl Node {
    pub(super) fn new(endpoint: Endpoint, scripts: Scripts) -> Self {
        let reading = SharedReading::new(&endpoint);
        Self { link: Link::new(endpoint, scripts), reading, batches: Arc::default() }
    }

    /// Connects, and checks that the server can be used.
    pub(super) async fn check(&self) -> Result<(), BoxError> {
        self.link.command(&redis::cmd("PING")).await?;
        self.link.capabilities().await?.check_version().map_err(BoxError::from)
    }
}
