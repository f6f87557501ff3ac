//! Learns from one Sentinel when another server becomes the primary.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::address::Address;
use super::super::dial::{open_listening, open_shared, within};
use super::super::server::{Server, is_not_primary};
use super::ask::{ASK_DEADLINE, Named, PRIMARY_DEADLINE, ask, ask_once};
use super::known::{Candidate, Judged, Known};

/// Watches the primary of one client.
///
/// It subscribes to `+switch-master` at one sentinel, and moves to the next one when that one is gone.
/// While it cannot subscribe, it asks for the address every second. In addition, every few seconds it
/// asks one of the other sentinels, each in turn: the one that it listens to may be cut off together
/// with the former primary. An answer without a newer epoch changes nothing, nor does one that names a
/// server that is not a primary.
pub(super) struct Watch {
    /// Held weakly: the watch ends with the client.
    known: Weak<Known>,
    /// The credentials for the primary, wherever it is.
    primary: Address,
    stop: CancellationToken,
}

/// Why the watch stops listening to a sentinel.
enum Ended {
    /// The client is gone.
    Dropped,
    /// The sentinel has named no primary at all.
    Silent,
    /// The sentinel does not answer any more.
    Lost,
    /// The sentinel has not learned of the last failover, or it watches other servers.
    Behind,
}

impl Watch {
    pub(super) fn new(known: &Arc<Known>, primary: Address, stop: CancellationToken) -> Self {
        Self { known: Arc::downgrade(known), primary, stop }
    }

    pub(super) async fn run(self) {
        // The client is gone either way.
        let watching = Box::pin(async {
            tokio::select! {
                () = self.watch() => {}
                () = self.ask_others() => {}
            }
        });
        let _stopped = self.stop.run_until_cancelled(watching).await;
    }

    async fn watch(&self) {
        while let Some(seeds) = self.seeds() {
            let mut pause = ASK_EVERY;
            for (index, seed, name) in seeds {
                match self.listen(index, &seed, &name).await {
                    Ended::Dropped => return,
                    Ended::Silent => {}
                    Ended::Lost => {
                        if let Some(known) = self.known.upgrade() {
                            known.lose(index);
                        }
                        pause = ASK_EVERY;
                        break;
                    }
                    Ended::Behind => pause = CHECK_EVERY,
                }
            }
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Asks the sentinels to which it does not listen, one at each check. Only a newer answer counts.
    async fn ask_others(&self) {
        for turn in 0.. {
            sleep(CHECK_EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            let Some(seeds) = self.seeds() else { return };
            let others = seeds.get(1..).unwrap_or_default();
            let Some((index, seed, name)) = others.get(turn % others.len().max(1)) else {
                continue;
            };
            let Ok(named) = ask_once(seed, name).await else { continue };
            let Some(known) = self.known.upgrade() else { return };
            let is_newer = matches!(known.judge(&named), Judged::Newer);
            drop(known);
            if is_newer && self.take(*index, named, false).await.is_none() {
                return;
            }
        }
    }

    /// The sentinels in the order in which to ask them, and the primary's name.
    fn seeds(&self) -> Option<Vec<(usize, Address, String)>> {
        let known = self.known.upgrade()?;
        let name = &known.url.name;
        let seeds = known.in_turn();
        Some(seeds.map(|(index, seed)| (index, seed.clone(), name.clone())).collect())
    }

    /// Listens to one sentinel for as long as it answers.
    async fn listen(&self, index: usize, seed: &Address, name: &str) -> Ended {
        let switched = Arc::new(Notify::new());
        let (told, own_name) = (Arc::clone(&switched), name.to_owned());
        let listening = open_listening(seed, move |push| {
            if is_switch_of(&push, &own_name) {
                told.notify_one();
            }
        });
        let Ok((mut connection, closed)) = within(ASK_DEADLINE, Box::pin(listening)).await else {
            return Ended::Silent;
        };
        // Subscribes first, so that it learns of a failover that comes after the question.
        let is_subscribed = subscribe(&mut connection).await;
        let (mut is_told, mut has_answered) = (false, false);
        loop {
            let named = match ask(&mut connection, name).await {
                Ok(named) => named,
                Err(_) if has_answered => return Ended::Lost,
                Err(_) => return Ended::Silent,
            };
            match self.take(index, named, is_told).await {
                None => return Ended::Dropped,
                Some(true) => {}
                // Another sentinel has learned of the failover, and is the first by now.
                Some(false) if has_answered => return Ended::Lost,
                Some(false) => return Ended::Behind,
            }
            (is_told, has_answered) = (false, true);
            tokio::select! {
                () = closed.cancelled() => return Ended::Lost,
                () = switched.notified() => is_told = true,
                () = sleep(if is_subscribed { CHECK_EVERY } else { ASK_EVERY }) => {}
            }
        }
    }

    /// Accepts an answer if it is the newest. Returns whether it is, or `None` if the client is gone.
    pub(super) async fn take(&self, index: usize, named: Named, is_told: bool) -> Option<bool> {
        let (candidate, counts) = match self.known.upgrade()?.judge(&named) {
            Judged::Same(known) => (Candidate { named, ..known }, true),
            Judged::Older => return Some(false),
            Judged::Newer => {
                let candidate = Candidate::new(named);
                // A server that cannot be reached is the primary all the same.
                let counts =
                    is_told || !self.try_out(&candidate).await.is_err_and(|e| is_not_primary(&e));
                (candidate, counts)
            }
            Judged::Unclear => {
                let candidate = Candidate::new(named);
                let counts = is_told || self.try_out(&candidate).await.is_ok();
                (candidate, counts)
            }
        };
        let known = self.known.upgrade()?;
        let is_taken = counts && known.commit(&candidate, false);
        if is_taken {
            known.prefer(index);
        }
        Some(is_taken)
    }

    /// Whether the server says that it is a primary.
    async fn try_out(&self, candidate: &Candidate) -> RedisResult<()> {
        let Named { host, port, .. } = &candidate.named;
        let address = self.primary.clone().moved_to(host.clone(), *port);
        let server = Server::primary(address, candidate.tenure());
        within(PRIMARY_DEADLINE, Box::pin(open_shared(server))).await.map(drop)
    }
}

/// Subscribes. Returns whether the sentinel accepted that; its access list may refuse it.
async fn subscribe(connection: &mut MultiplexedConnection) -> bool {
    within(ASK_DEADLINE, connection.subscribe(SWITCHED)).await.is_ok()
}

/// Whether another server became the primary of this name.
fn is_switch_of(push: &PushInfo, name: &str) -> bool {
    let [Value::BulkString(channel), Value::BulkString(text)] = push.data.as_slice() else {
        return false;
    };
    // The text is the name, the old address and the new address.
    let of = text.split(|byte| *byte == b' ').next();
    push.kind == PushKind::Message && channel == SWITCHED.as_bytes() && of == Some(name.as_bytes())
}

const SWITCHED: &str = "+switch-master";
/// How often a sentinel that does not accept a subscription is asked. Also the pause after a sentinel is gone.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often a subscribed connection is checked, because nothing else shows that it is dead. Also how often another
/// sentinel is asked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: PushKind, channel: &str, text: &str) -> PushInfo {
        let value = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        PushInfo { kind, data: vec![value(channel), value(text)] }
    }

    #[test]
    fn a_switch_counts_for_its_own_name() {
        let told = |kind, channel, text| is_switch_of(&push(kind, channel, text), "jobs");
        assert!(told(PushKind::Message, SWITCHED, "jobs 10.0.0.1 6379 10.0.0.2 6379"));
        assert!(!told(PushKind::Message, SWITCHED, "jobs2 10.0.0.1 6379 10.0.0.2 6379"));
        assert!(!told(PushKind::Message, "+sdown", "jobs 10.0.0.1 6379"));
        assert!(!told(PushKind::Subscribe, SWITCHED, "jobs"));
        assert!(!is_switch_of(&PushInfo { kind: PushKind::Message, data: Vec::new() }, "jobs"));
    }
}
