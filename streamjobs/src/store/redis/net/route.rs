//! The route to the server that has a key: it follows the key's slot when the slot moves.

use std::sync::Arc;

use futures_util::FutureExt;
use redis::{Cmd, Pipeline, Value};

use super::address::NodeAddress;
use super::batches::Call;
use super::cluster::{Cluster, Pursuit, Redirect};
use super::error::accepted;
use super::links::Pinned;
use super::node::Node;
use super::places::Place;
use crate::store::StoreError;
use crate::store::redis::script::Script;

/// The server that has a key, now and after the key has moved.
///
/// A request is sent again only after a node has said that it did nothing, or when it was not sent.
#[derive(Clone)]
pub(crate) enum Route {
    One(Node),
    Slot(Arc<Cluster>, u16),
}

impl Route {
    /// The server that has the key now, as far as is known.
    pub(crate) async fn node(&self) -> Result<Node, StoreError> {
        match self {
            Self::One(node) => Ok(node.clone()),
            Self::Slot(cluster, slot) => cluster.owner(*slot).await.map(|(_, node)| node),
        }
    }

    /// Sends one command. A refusal by the server is an error.
    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        match self {
            Self::One(node) => node.link.command(command).await,
            Self::Slot(cluster, slot) => {
                command_by(Pursuit::new(cluster, *slot), command).boxed().await
            }
        }
    }

    /// Sends commands that may be repeated, in one go. Refusals by the server are among the answers, unless the slot
    /// has moved. In that case all commands are sent again.
    pub(crate) async fn repeatable(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        match self {
            Self::One(node) => node.link.pipeline(pipeline).await,
            Self::Slot(cluster, slot) => {
                repeatable_by(Pursuit::new(cluster, *slot), pipeline).boxed().await
            }
        }
    }

    /// Runs a script.
    pub(crate) async fn script(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value, StoreError> {
        self.script_answering(script, keys, add_arguments, 0).await
    }

    /// Runs a script, or returns at once if the cluster asks to wait.
    pub(crate) async fn script_now(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value, StoreError> {
        match self {
            Self::One(node) => node.link.script(script, keys, add_arguments).await,
            Self::Slot(cluster, slot) => {
                let pursuit = Pursuit::new(cluster, *slot).without_pauses();
                script_by(pursuit, script, keys, add_arguments, 0).boxed().await
            }
        }
    }

    /// Runs a script whose answer may have about this many bytes.
    pub(crate) async fn script_answering(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
        bytes: usize,
    ) -> Result<Value, StoreError> {
        match self {
            Self::One(Node { link, .. }) => {
                link.script_answering(script, keys, add_arguments, bytes).await
            }
            Self::Slot(cluster, slot) => {
                let pursuit = Pursuit::new(cluster, *slot);
                script_by(pursuit, script, keys, add_arguments, bytes).boxed().await
            }
        }
    }

    /// The answer to a call of a script that was sent with others in one request. `None` if the call was alone, was
    /// refused or could not be sent. In these cases the caller has to make the call by itself, in a way that follows
    /// the slot.
    pub(crate) async fn in_batch(
        &self,
        many: &'static Script,
        call: Call,
    ) -> Result<Option<Value>, StoreError> {
        let Ok(node) = self.node().await else { return Ok(None) };
        let answered = node.batches.answer(&node.link, many, call).await;
        answered.inspect_err(|_| self.suspect())
    }

    /// Runs a script many times in one go; each call adds its keys and arguments.
    pub(crate) async fn scripts(
        &self,
        script: &'static Script,
        calls: &[impl Fn(&mut Cmd) + Sync],
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let (cluster, slot) = match self {
            Self::One(Node { link, .. }) => {
                return Ok(link.scripts(script, calls).await?.into_iter().map(accepted).collect());
            }
            Self::Slot(cluster, slot) => (cluster, *slot),
        };
        let mut pursuit = Pursuit::new(cluster, slot);
        let digest = pursuit.digest(script).await?;
        let answers = loop {
            match pursuit.target().await?.node.link.scripts(script, calls).await {
                Err(error) => pursuit.after(error).await?,
                Ok(answers) => break answers,
            }
        };
        let mut commands = Pipeline::with_capacity(calls.len());
        for call in calls {
            let mut command = redis::cmd("EVALSHA");
            call(command.arg(digest));
            commands.add_command(command);
        }
        Ok(pursuit.rest(&commands, answers).await)
    }

    /// A connection to the server, with a place for a request of this many bytes.
    pub(crate) async fn pinned_with_place(
        &self,
        bytes: usize,
    ) -> Result<(Pinned, Place), StoreError> {
        match self {
            Self::One(node) => node.link.pinned_with_place(bytes).await,
            Self::Slot(cluster, slot) => {
                pinned_by(Pursuit::new(cluster, *slot), bytes).boxed().await
            }
        }
    }

    /// The answers to single commands that were sent over a connection. Commands that were refused because
    /// the slot has moved are sent again to where it is now.
    pub(crate) async fn rest(
        &self,
        commands: &Pipeline,
        answers: Vec<Value>,
        by: Option<NodeAddress>,
    ) -> Vec<Result<Value, StoreError>> {
        match self {
            Self::Slot(cluster, slot) if Redirect::among(&answers).is_some() => {
                let pursuit = Pursuit::after_answer_of(cluster, *slot, by);
                pursuit.rest(commands, answers).boxed().await
            }
            _ => answers.into_iter().map(accepted).collect(),
        }
    }

    /// Tells the cluster that an answer was lost, so that what is known about the servers may be wrong.
    pub(crate) fn suspect(&self) {
        if let Self::Slot(cluster, _) = self {
            cluster.suspect();
        }
    }
}

// What only a cluster needs is boxed: it is larger than the rest of a request, and every loop of a queue
// would reserve memory for it.

async fn command_by(mut pursuit: Pursuit<'_>, command: &Cmd) -> Result<Value, StoreError> {
    loop {
        let target = pursuit.target().await?;
        let link = &target.node.link;
        let answer = match target.is_asking {
            true => link.command_asking(command).await,
            false => link.command(command).await,
        };
        match answer {
            Err(error) => pursuit.after(error).await?,
            answer => return answer,
        }
    }
}

async fn repeatable_by(
    mut pursuit: Pursuit<'_>,
    pipeline: &Pipeline,
) -> Result<Vec<Value>, StoreError> {
    loop {
        let target = pursuit.target().await?;
        let link = &target.node.link;
        let answers = match target.is_asking {
            true => link.pipeline_asking(pipeline).await,
            false => link.pipeline(pipeline).await,
        };
        let error = match answers {
            Ok(answers) => match Redirect::among(&answers) {
                Some(error) => error,
                None => return Ok(answers),
            },
            Err(error) => error,
        };
        pursuit.after(error).await?;
    }
}

async fn pinned_by(mut pursuit: Pursuit<'_>, bytes: usize) -> Result<(Pinned, Place), StoreError> {
    loop {
        match pursuit.target().await?.node.link.pinned_with_place(bytes).await {
            Err(error) => pursuit.after(error).await?,
            pinned => return pinned,
        }
    }
}

async fn script_by(
    mut pursuit: Pursuit<'_>,
    script: &'static Script,
    keys: &[&str],
    add_arguments: impl FnOnce(&mut Cmd) + Send,
    bytes: usize,
) -> Result<Value, StoreError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(pursuit.digest(script).await?).arg(keys.len()).arg(keys);
    add_arguments(&mut command);
    loop {
        let target = pursuit.target().await?;
        match target.node.link.run_script(&command, bytes, target.is_asking).await {
            Err(error) => pursuit.after(error).await?,
            answer => return answer,
        }
    }
}
