//! Follows one slot from node to node until a step is done.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::{Instant, sleep};

use super::super::address::NodeAddress;
use super::super::error::{accepted, unreachable_because};
use super::super::node::Node;
use super::redirect::Redirect;
use super::topology::Cluster;
use crate::model::cause::chain;
use crate::store::StoreError;
use crate::store::redis::script::Script;

/// The attempts of one step at one slot. A step is repeated only if the node said that it did nothing.
pub(crate) struct Pursuit<'c> {
    cluster: &'c Cluster,
    slot: u16,
    /// The node to which `ASK` sent the next attempt.
    asked: Option<NodeAddress>,
    /// The node of the last attempt.
    last: Option<NodeAddress>,
    moves: u32,
    pauses: u32,
    pauses_max: u32,
    until: Instant,
}

/// Where an attempt goes.
pub(crate) struct Target {
    pub(crate) node: Node,
    /// Whether the slot is still moving there, so that the request has to follow `ASKING`.
    pub(crate) is_asking: bool,
}

impl<'c> Pursuit<'c> {
    pub(crate) fn new(cluster: &'c Cluster, slot: u16) -> Self {
        let until = Instant::now() + DEADLINE;
        Self {
            cluster,
            slot,
            asked: None,
            last: None,
            moves: 0,
            pauses: 0,
            pauses_max: u32::MAX,
            until,
        }
    }

    /// Returns at once when a node asks to wait.
    pub(crate) fn without_pauses(self) -> Self {
        Self { pauses_max: 0, ..self }
    }

    /// Continues after an answer from a node.
    pub(crate) fn after_answer_of(
        cluster: &'c Cluster,
        slot: u16,
        by: Option<NodeAddress>,
    ) -> Self {
        Self { last: by, ..Self::new(cluster, slot) }
    }

    /// The node for the next attempt.
    pub(crate) async fn target(&mut self) -> Result<Target, StoreError> {
        let (address, node, is_asking) = match self.asked.take() {
            Some(address) => {
                let node = self.cluster.node(&address);
                (address, node, true)
            }
            None => {
                let (address, node) = self.cluster.owner(self.slot).await?;
                (address, node, false)
            }
        };
        self.last = Some(address);
        Ok(Target { node, is_asking })
    }

    /// The digest of a script; some server has to compute it first.
    pub(crate) async fn digest(
        &mut self,
        script: &'static Script,
    ) -> Result<&'static str, StoreError> {
        loop {
            match self.target().await?.node.link.digest(script).await {
                Err(error) => self.after(error).await?,
                digest => return digest,
            }
        }
    }

    /// Sends again those commands that were refused because of the cluster. Returns all answers.
    pub(crate) async fn rest(
        mut self,
        commands: &Pipeline,
        answers: Vec<Value>,
    ) -> Vec<Result<Value, StoreError>> {
        let mut all = answers.into_iter().map(accepted).collect::<Vec<_>>();
        loop {
            let places = all.iter().enumerate().filter(|(_, answer)| is_to_be_repeated(answer));
            let places = places.map(|(place, _)| place).collect::<Vec<_>>();
            let Some(first) = places.first().and_then(|place| all.get_mut(*place)) else {
                return all;
            };
            let error = std::mem::replace(first, Ok(Value::Nil)).err();
            let outcome = self.again(error, commands, &places).await;
            let failed = outcome.is_err();
            let answers = match outcome {
                Ok(answers) => answers.into_iter().map(accepted).collect::<Vec<_>>(),
                Err(error) => places.iter().map(|_| Err(error.copy())).collect(),
            };
            for (place, answer) in places.into_iter().zip(answers) {
                if let Some(old) = all.get_mut(place) {
                    *old = answer;
                }
            }
            if failed {
                return all;
            }
        }
    }

    async fn again(
        &mut self,
        error: Option<StoreError>,
        commands: &Pipeline,
        places: &[usize],
    ) -> Result<Vec<Value>, StoreError> {
        match error {
            Some(error) if is_unknown_script(&error) => self.load_scripts(error).await?,
            Some(error) => self.after(error).await?,
            None => {}
        }
        let mut rest = Pipeline::with_capacity(places.len());
        for (place, command) in commands.cmd_iter().enumerate() {
            if places.binary_search(&place).is_ok() {
                rest.add_command(command.clone());
            }
        }
        loop {
            let target = self.target().await?;
            let link = &target.node.link;
            let answers = match target.is_asking {
                true => link.pipeline_asking(&rest).await,
                false => link.pipeline(&rest).await,
            };
            match answers {
                Err(error) => self.after(error).await?,
                answers => return answers,
            }
        }
    }

    /// Makes the scripts known to a slot's new owner. That node ran none of the commands for which it said that it does
    /// not know the script.
    async fn load_scripts(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.moves += 1;
        if self.moves > MOVES_AT_ONCE {
            return Err(error);
        }
        self.target().await?.node.link.load_scripts().await
    }

    /// Prepares another attempt after an error, or returns the error. Waits if the cluster asks to
    /// wait.
    pub(crate) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let Some(last) = self.last.clone() else { return Err(error) };
        match Redirect::of(&error, &last) {
            Some(Redirect::Moved(to)) => {
                self.cluster.moved(self.slot, to);
                self.moves += 1;
                // Nodes that redirect to each other have not yet agreed on the owner.
                if self.moves > MOVES_AT_ONCE { self.pause(error).await } else { Ok(()) }
            }
            Some(Redirect::Ask(to)) => {
                self.asked = Some(to);
                self.moves += 1;
                if self.moves > MOVES_AT_ONCE { self.pause(error).await } else { Ok(()) }
            }
            Some(Redirect::NotNow) => {
                if matches!(&error, StoreError::Refused { code, .. } if code == "CLUSTERDOWN") {
                    self.cluster.suspect_node(&last);
                }
                self.pause(error).await
            }
            None => self.after_failure(error, &last).await,
        }
    }

    /// Prepares another attempt, or returns the error, after a connection was lost or could not be opened: another node
    /// may have the slot.
    async fn after_failure(
        &mut self,
        error: StoreError,
        last: &NodeAddress,
    ) -> Result<(), StoreError> {
        match error {
            StoreError::Unreachable(_) => {
                self.cluster.suspect_node(last);
                let (now, _) = self.cluster.owner_anew(self.slot).await?;
                self.moves += 1;
                if now == *last || self.moves > MOVES_AT_ONCE { Err(error) } else { Ok(()) }
            }
            StoreError::AnswerLost(_) => {
                self.cluster.suspect_node(last);
                Err(error)
            }
            error => Err(error),
        }
    }

    /// Waits a little longer each time. After the deadline, returns an error: nothing was changed.
    async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        if self.pauses >= self.pauses_max {
            return Err(error);
        }
        if Instant::now() >= self.until {
            return Err(unreachable_because(chain(&error)));
        }
        let bound = PAUSE_FIRST.saturating_mul(1 << self.pauses.min(4));
        self.pauses += 1;
        sleep(bound.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        Ok(())
    }
}

/// The node does not know a script, and has done nothing.
fn is_unknown_script(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused { code, .. } if code == "NOSCRIPT")
}

/// Whether to send a command again: to the node that has the slot, or once the node knows its script.
fn is_to_be_repeated(answer: &Result<Value, StoreError>) -> bool {
    answer.as_ref().is_err_and(|error| Redirect::is_said_by(error) || is_unknown_script(error))
}

/// How long a step waits while a slot is moving or the cluster is down.
const DEADLINE: Duration = Duration::from_secs(3);
/// How many redirections are followed without a pause.
const MOVES_AT_ONCE: u32 = 4;
/// The first pause; the pauses grow to sixteen times this.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
