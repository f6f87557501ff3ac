//! Watches whether the nodes of a cluster answer, because a busy machine may make one stand still.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use streamjobs_tests::eventually::poll;
use streamjobs_tests::history::Disturbance;
use streamjobs_tests::server::RedisServer;

use crate::cluster::Cluster;
use crate::options::TERMS;
use crate::stand::Stand;

/// How often a node is asked.
const BETWEEN: Duration = Duration::from_millis(50);

impl Stand {
    /// Writes down when a master did not answer for long, until the stand stops: nothing on that
    /// master can be renewed meanwhile.
    pub(crate) fn watch_until_stopped(&self, cluster: &Cluster, node: &RedisServer) {
        let is_away = || cluster.away.load(Ordering::SeqCst) == node.port();
        while !self.stopping.load(Ordering::SeqCst) {
            let (was_away, asked) = (is_away(), Instant::now());
            let answered = node.try_query::<String>(&["PING"]).is_ok();
            let waited = asked.elapsed();
            // If something was done to it, that is in the history already.
            if answered && !was_away && !is_away() && waited > TERMS.lease / 6 {
                self.note_slow(cluster, node, waited);
            }
            poll(BETWEEN, || None::<()>);
        }
    }

    fn note_slow(&self, cluster: &Cluster, node: &RedisServer, waited: Duration) {
        let Some(streams) = cluster.by_master().remove(&node.port()) else { return };
        println!("soak: the master on port {} took {waited:?} to answer", node.port());
        cluster.slow.fetch_add(1, Ordering::SeqCst);
        let fault = Disturbance::Master { what: "slow".to_owned(), streams, loses: false };
        self.mended(self.broken(&fault));
    }
}
