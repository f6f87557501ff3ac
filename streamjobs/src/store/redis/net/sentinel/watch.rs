//! Hears from one Sentinel when another server becomes the primary.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::address::Address;
use super::super::dial::{open_listening, within};
use super::ask::{ASK_DEADLINE, Named, ask};
use super::known::Known;

/// Watches the primary of one client.
///
/// It subscribes to `+switch-master` at one sentinel, and goes to the next one when that one is gone.
/// While it cannot subscribe, it asks for the address every second.
pub(super) struct Watch {
    /// Held weakly: the watch ends with the client.
    known: Weak<Known>,
    stop: CancellationToken,
}

/// Why one sentinel is not listened to any more.
enum Ended {
    /// The client is gone.
    Dropped,
    /// It named no primary at all.
    Silent,
    /// It did not answer any more.
    Lost,
    /// It has not been told of the last failover, or the name was made anew.
    Older(Named),
}

impl Watch {
    pub(super) fn new(known: &Arc<Known>, stop: CancellationToken) -> Self {
        Self { known: Arc::downgrade(known), stop }
    }

    pub(super) async fn run(self) {
        // The client is gone either way.
        let _stopped = self.stop.run_until_cancelled(self.watch()).await;
    }

    async fn watch(&self) {
        while let Some(seeds) = self.seeds() {
            let mut older: Option<(usize, Named)> = None;
            for (index, seed, name) in seeds {
                match self.listen(index, &seed, &name).await {
                    Ended::Dropped => return,
                    Ended::Silent => {}
                    Ended::Lost => {
                        older = None;
                        break;
                    }
                    Ended::Older(named) => {
                        if older.as_ref().is_none_or(|(_, best)| best.epoch < named.epoch) {
                            older = Some((index, named));
                        }
                    }
                }
            }
            // No sentinel knows a newer one.
            if let (Some((index, named)), Some(known)) = (older, self.known.upgrade()) {
                known.note(index, &named, true);
            }
            sleep(ASK_EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    /// The sentinels in turn, and the primary's name.
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
        // Subscribes first: a failover after the question is heard.
        let is_subscribed = subscribe(&mut connection).await;
        let mut ended = Ended::Silent;
        loop {
            let Ok(named) = ask(&mut connection, name).await else { return ended };
            let Some(known) = self.known.upgrade() else { return Ended::Dropped };
            if known.note(index, &named, false).is_none() {
                return Ended::Older(named);
            }
            drop(known);
            ended = Ended::Lost;
            tokio::select! {
                () = closed.cancelled() => return ended,
                () = switched.notified() => {}
                () = sleep(if is_subscribed { CHECK_EVERY } else { ASK_EVERY }) => {}
            }
        }
    }
}

/// Whether the sentinel accepted it: its access list may refuse.
async fn subscribe(connection: &mut MultiplexedConnection) -> bool {
    within(ASK_DEADLINE, connection.subscribe(SWITCHED)).await.is_ok()
}

/// Whether another server became the primary of this name.
fn is_switch_of(push: &PushInfo, name: &str) -> bool {
    let [Value::BulkString(channel), Value::BulkString(text)] = push.data.as_slice() else {
        return false;
    };
    // The text is the name, the old address and the new one.
    let of = text.split(|byte| *byte == b' ').next();
    push.kind == PushKind::Message && channel == SWITCHED.as_bytes() && of == Some(name.as_bytes())
}

const SWITCHED: &str = "+switch-master";
/// How often a sentinel is asked that cannot be subscribed to, and the pause after one is gone.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often a subscribed connection is checked, on which nothing else shows that it is dead.
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
