//! `streamjobs group`: create, move and destroy groups.

use serde_json::json;
use streamjobs::Client;
use streamjobs::config::Start;
use streamjobs::stream::StreamError;

use crate::action::{LOSE, document, done, existing, group, planned, refused, unfinished};
use crate::arguments::{GroupCreate, GroupDestroy, GroupMove, Groups, Queue};
use crate::output::Output;
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Groups,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Groups::Create(command) => create(client, &command, output).await,
        Groups::Move(command) => move_to(client, &command, output).await,
        Groups::Destroy(command) => destroy(client, &command, output).await,
    }
}

async fn create(
    client: &Client,
    command: &GroupCreate,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let GroupCreate { queue, start } = command;
    let created = group(client, queue)?.create(*start).await?;
    let text = match created {
        true => format!("created {queue}, starting {}", position(*start)),
        false => format!("{queue} already exists"),
    };
    done("create", queue, created, &text, output)
}

async fn move_to(
    client: &Client,
    command: &GroupMove,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let GroupMove { queue, position: to, lose_unfinished, consent } = command;
    let group = existing(client, queue).await?;
    let position = position(*to);
    if !consent.yes {
        if let Err(error) = group.check_move_to(*to, unfinished(*lose_unfinished)).await {
            return refused("move", queue, (true, Some(LOSE)), error, output);
        }
        let what = format!("move {queue}, to continue {position}");
        return planned(&what, &document("move", queue, true, json!({ "done": 0 })), output);
    }
    let moved = group.move_to(*to, unfinished(*lose_unfinished)).await;
    ended("move", queue, moved, &format!("moved {queue}: it continues {position}"), output)
}

async fn destroy(
    client: &Client,
    command: &GroupDestroy,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let GroupDestroy { queue, lose_unfinished, consent } = command;
    let group = group(client, queue)?;
    let info = group.info().await?;
    if !consent.yes {
        if let Err(error) = group.check_destroy(unfinished(*lose_unfinished)).await {
            return refused("destroy", queue, (true, Some(LOSE)), error, output);
        }
        let (backlog, retrying) = (info.backlog, info.retrying);
        let pending = info.pending + info.released;
        let mut work = format!("backlog {backlog}, pending {pending}, retries {retrying}");
        if let Some(parked @ 1..) = info.parked {
            work.push_str(&format!(", {parked} waiting for their key"));
        }
        let what = format!("destroy {queue} with {work}");
        return planned(&what, &document("destroy", queue, true, json!({ "done": 0 })), output);
    }
    let destroyed = group.destroy(unfinished(*lose_unfinished)).await;
    ended("destroy", queue, destroyed, &format!("destroyed {queue}"), output)
}

fn ended(
    action: &str,
    queue: &Queue,
    answer: Result<(), StreamError>,
    text: &str,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match answer {
        Ok(()) => done(action, queue, true, text, output),
        Err(error) => refused(action, queue, (false, Some(LOSE)), error, output),
    }
}

fn position(start: Start) -> String {
    match start {
        Start::Beginning => "at the beginning".to_owned(),
        Start::End => "at the end".to_owned(),
        Start::After(id) => format!("after {id}"),
    }
}
