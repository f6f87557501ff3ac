//! The demo of a cluster as a whole: its nodes, its client, its workers and its load.

use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use streamjobs::config::Retention;
use streamjobs::{Client, Runtime, StreamName, handlers};
use streamjobs_dashboard::AlertLog;
use streamjobs_tests::server::{NodeState, RedisCluster};
use tokio::sync::{Mutex, RwLock};
use tokio::time::{sleep, timeout};

use crate::AnyError;
use crate::cluster::book::Book;
use crate::cluster::ledger::{Figures, Overdue};
use crate::cluster::load::Load;
use crate::cluster::orders::{PARTITIONS, STREAM, ship};

/// The demo.
pub(crate) struct App {
    /// Adding a node changes it; everything else happens beside each other.
    pub(crate) cluster: Arc<RwLock<RedisCluster>>,
    pub(crate) client: Client,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) book: Book,
    pub(crate) load: Load,
    /// Held by the lever that is being pulled.
    pub(crate) lever: Mutex<()>,
    pub(crate) alerts: AlertLog,
    news: Lock<Vec<(Instant, String)>>,
    /// `None` after the stop.
    runtime: Mutex<Option<Runtime>>,
}

/// A partition of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) name: StreamName,
    pub(crate) slot: u16,
}

impl App {
    /// Starts the cluster, the workers and the load. That takes about four seconds.
    pub(crate) async fn start() -> Result<Self, AnyError> {
        let start = || {
            // While one master is dead, the partitions of the others go on.
            RedisCluster::builder().replicas(1).full_coverage(false).start()
        };
        let cluster = tokio::task::spawn_blocking(start).await??;
        let client = Client::builder(&cluster.url())
            .partitions(STREAM, PARTITIONS)
            .retention(STREAM, Retention::History(HISTORY))
            .connect()
            .await?;
        let partitions = client.partitions(&StreamName::new(STREAM)?);
        let partition =
            |name: StreamName| Partition { slot: RedisCluster::slot(name.as_str()), name };
        let partitions = partitions.into_iter().map(partition).collect();
        let (book, alerts) = (Book::default(), AlertLog::new());
        let runtime = Runtime::builder(&client).handlers(handlers![ship]).state(book.clone());
        let runtime = runtime.on_alert(alerts.recorder()).start().await?;
        Ok(Self {
            cluster: Arc::new(RwLock::new(cluster)),
            load: Load::start(&client, &book)?,
            client,
            partitions,
            book,
            lever: Mutex::default(),
            alerts,
            news: Lock::default(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Asks or changes the cluster, which blocks a thread meanwhile.
    pub(crate) async fn on_cluster<T: Send + 'static>(
        &self,
        act: impl FnOnce(&RedisCluster) -> T + Send + 'static,
    ) -> Result<T, AnyError> {
        let cluster = Arc::clone(&self.cluster).read_owned().await;
        Ok(tokio::task::spawn_blocking(move || act(&cluster)).await?)
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeState>, AnyError> {
        self.on_cluster(RedisCluster::states).await
    }

    /// Writes down what a lever has done.
    pub(crate) fn tell(&self, news: &str) {
        let mut all = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((Instant::now(), news.to_owned()));
    }

    /// The latest news first, with their age.
    pub(crate) fn news(&self, limit: usize) -> Vec<(Duration, String)> {
        let all = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = all.iter().rev().take(limit);
        newest.map(|(at, text)| (at.elapsed(), text.clone())).collect()
    }

    /// Looks for events that take long in their partitions, and counts those that are not there. What
    /// a node does not answer in time is looked for again the next time.
    pub(crate) async fn look_for_lost(&self, after: Duration) {
        let overdue = self.book.lock().overdue(Instant::now(), after, LOOKED_FOR_MAX);
        let looks = overdue.iter().map(|event| timeout(LOOK_MAX, self.look_for(event)));
        join_all(looks).await;
    }

    async fn look_for(&self, event: &Overdue) {
        let Ok(stream) = self.client.stream(STREAM) else { return };
        let partitions = stream.partitions();
        let own = partitions.iter().find(|own| own.name().as_str() == event.partition);
        let Some(partition) = own else { return };
        if partition.replay(event.entry..=event.entry).next().await.is_none() {
            self.book.lock().gone(&event.id);
        }
    }

    /// Ends the load, and waits until each event is done or known to be gone.
    pub(crate) async fn finish(&self) -> Result<Figures, AnyError> {
        self.load.stop().await;
        let end = Instant::now() + FINISHED_MAX;
        loop {
            self.look_for_lost(Duration::ZERO).await;
            let figures = self.book.lock().total();
            if figures.waiting == 0 {
                return Ok(figures);
            }
            if Instant::now() > end {
                return Err(format!("{} orders still wait", figures.waiting).into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops the customers and the workers. Returns how many jobs were abandoned.
    pub(crate) async fn stop(&self) -> usize {
        self.load.stop().await;
        match self.runtime.lock().await.take() {
            Some(runtime) => runtime.shutdown().await.abandoned.len(),
            None => 0,
        }
    }
}

/// Entries that each partition keeps beside those that are not done.
const HISTORY: std::num::NonZeroU64 = std::num::NonZeroU64::new(1_000).unwrap();
const LOOKED_FOR_MAX: usize = 50;
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const FINISHED_MAX: Duration = Duration::from_secs(30);
