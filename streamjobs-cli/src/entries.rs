//! `streamjobs claim`, `release`, `acknowledge`, `hand-over`, `remove-consumer`, `reap`, `pause`,
//! `resume`: pending entries, and those who have them or shall have none.

use serde_json::{Value, json};
use streamjobs::stream::{ConsumerInfo, Group, HandedOver, Liveness};
use streamjobs::{Client, ConsumerName, EntryId};

use crate::act::{distinct, document, existing, group, planned, refused};
use crate::arguments::{Chosen, Claim, Entries, HandOver, Queue, RemoveConsumer};
use crate::output::{Output, complain, note};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Entries,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Entries::Claim(command) => claim(client, &command, output).await,
        Entries::Release(command) => release(client, &command, output).await,
        Entries::Acknowledge(command) => acknowledge(client, &command, output).await,
        Entries::HandOver(command) => hand_over(client, &command, output).await,
        Entries::RemoveConsumer(command) => remove_consumer(client, &command, output).await,
        Entries::Reap(queue) => reap(client, &queue, output).await,
        Entries::Pause(queue) => pause(client, &queue, output).await,
        Entries::Resume(queue) => resume(client, &queue, output).await,
    }
}

async fn claim(client: &Client, command: &Claim, output: &mut Output) -> Result<Exit, Failure> {
    let Claim { queue, consumer, ids, lane, consent } = command;
    let (group, ids) = (of(existing(client, queue).await?, *lane), distinct(ids));
    if !consent.yes {
        let what = format!("give {} of {queue} to consumer {consumer}", counted(ids.len()));
        return planned(&what, &document("claim", queue, true, chosen(ids.len())), output);
    }
    let moved = group.claim(&ids, consumer).await?;
    report("claim", queue, &format!("to consumer {consumer}"), &moved, output)
}

async fn release(client: &Client, command: &Chosen, output: &mut Output) -> Result<Exit, Failure> {
    let Chosen { queue, ids, lane, consent } = command;
    let (group, ids) = (of(existing(client, queue).await?, *lane), distinct(ids));
    if !consent.yes {
        let what = format!("give {} of {queue} {ANYBODY}", counted(ids.len()));
        return planned(&what, &document("release", queue, true, chosen(ids.len())), output);
    }
    report("release", queue, ANYBODY, &group.release(&ids).await?, output)
}

async fn acknowledge(
    client: &Client,
    command: &Chosen,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let Chosen { queue, ids, lane, consent } = command;
    let (group, ids) = (of(existing(client, queue).await?, *lane), distinct(ids));
    let all = counted(ids.len());
    if !consent.yes {
        let document = document("acknowledge", queue, true, chosen(ids.len()));
        return planned(&format!("acknowledge {all} of {queue}"), &document, output);
    }
    let done = group.acknowledge(&ids).await?;
    let beside = json!({ "chosen": ids.len(), "done": done });
    let said = format!("acknowledged {done} of {all} of {queue}");
    output.answer(&said, &document("acknowledge", queue, false, beside))?;
    if done < ids.len() && !output.is_json() {
        output.flush()?;
        complain(&format!("not pending: {}", counted(ids.len() - done)));
    }
    Ok(if done == ids.len() { Exit::Ok } else { Exit::Findings })
}

async fn hand_over(
    client: &Client,
    command: &HandOver,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let HandOver { queue, from, to, consent } = command;
    let group = group(client, queue)?;
    let pending = usize::try_from(present(&group, queue, from).await?.pending)?;
    if !consent.yes {
        let all = counted(pending);
        let what = format!("give {all} of consumer {from} of {queue} to consumer {to}");
        return planned(&what, &document("hand-over", queue, true, chosen(pending)), output);
    }
    let moved = group.hand_over(from, to).await?;
    report("hand-over", queue, &format!("to consumer {to}"), &moved, output)
}

async fn remove_consumer(
    client: &Client,
    command: &RemoveConsumer,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let RemoveConsumer { queue, consumer, consent } = command;
    let group = group(client, queue)?;
    let pending = usize::try_from(present(&group, queue, consumer).await?.pending)?;
    if !consent.yes {
        let all = counted(pending);
        let what = format!("remove consumer {consumer} of {queue}, and give {all} {ANYBODY}");
        return planned(&what, &document("remove-consumer", queue, true, chosen(pending)), output);
    }
    let moved = match group.remove_consumer(consumer).await {
        Ok(moved) => moved,
        Err(error) => return refused("remove-consumer", queue, error, output),
    };
    if !output.is_json() {
        output.line(&format!("removed consumer {consumer} of {queue}"))?;
    }
    report("remove-consumer", queue, ANYBODY, &moved, output)
}

async fn reap(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    group(client, queue)?.reap_now().await?;
    let said = format!("asked the processes of {queue} to take up abandoned entries");
    output.answer(&said, &document("reap", queue, false, json!({ "done": 1 })))?;
    Ok(Exit::Ok)
}

async fn pause(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    let changed = group(client, queue)?.pause().await?;
    let said = match changed {
        true => format!("paused {queue}: what runs ends, and nothing new starts"),
        false => format!("{queue} was paused already"),
    };
    output
        .answer(&said, &document("pause", queue, false, json!({ "done": usize::from(changed) })))?;
    Ok(Exit::Ok)
}

async fn resume(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    let changed = group(client, queue)?.resume().await?;
    let said = match changed {
        true => format!("resumed {queue}"),
        false => format!("{queue} was not paused"),
    };
    output.answer(
        &said,
        &document("resume", queue, false, json!({ "done": usize::from(changed) })),
    )?;
    Ok(Exit::Ok)
}

fn of(group: Group, lane: bool) -> Group {
    if lane { group.lane() } else { group }
}

/// A consumer, when it is there. One that lives goes on getting entries.
async fn present(
    group: &Group,
    queue: &Queue,
    name: &ConsumerName,
) -> Result<ConsumerInfo, Failure> {
    let consumers = group.consumers().await?;
    let found = consumers.into_iter().find(|consumer| consumer.name == name.as_str());
    let found = found.ok_or_else(|| format!("{queue} has no consumer {name}"))?;
    if found.liveness == Liveness::Alive {
        note(&format!("consumer {name} lives, and gets entries again unless it is stopped first"));
    }
    Ok(found)
}

fn report(
    action: &str,
    queue: &Queue,
    whither: &str,
    moved: &HandedOver,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let HandedOver { moved, trimmed, missing, unstored: left, .. } = moved;
    let (done, all) = (moved.len(), moved.len() + trimmed.len() + missing.len() + left.len());
    let beside = json!({
        "chosen": all,
        "done": done,
        "moved": texts(moved),
        "trimmed": texts(trimmed),
        "missing": texts(missing),
        "left": texts(left),
    });
    let said = format!("gave {done} of {} of {queue} {whither}", counted(all));
    output.answer(&said, &document(action, queue, false, beside))?;
    if !output.is_json() {
        output.flush()?;
        for (ids, what) in [
            (trimmed, "lost its payload to retention: a dead letter tells of it now"),
            (missing, "is not pending"),
            (left, "lost its payload to retention and stays: no dead letter can be stored"),
        ] {
            ids.iter().for_each(|id| complain(&format!("entry {id} {what}")));
        }
    }
    Ok(if done == all { Exit::Ok } else { Exit::Findings })
}

fn texts(ids: &[EntryId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn chosen(count: usize) -> Value {
    json!({ "chosen": count, "done": 0 })
}

fn counted(entries: usize) -> String {
    format!("{entries} {}", if entries == 1 { "entry" } else { "entries" })
}

const ANYBODY: &str = "to whoever is next";
