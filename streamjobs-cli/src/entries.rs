//! `streamjobs claim`, `release`, `acknowledge`, `hand-over`, `remove-consumer`, `reap`, `pause` and
//! `resume`: actions on pending entries, consumers and processes.

use serde_json::{Value, json};
use streamjobs::stream::{ConsumerInfo, EntryAddress, Group, HandedOver, Liveness};
use streamjobs::{Client, ConsumerName};

use crate::action::{distinct, document, done, existing, group, planned, refused};
use crate::arguments::{Chosen, Claim, Entries, HandOver, Queue, RemoveConsumer};
use crate::output::{Output, print_error, print_note};
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
        let what = format!("move {} of {queue} to consumer {consumer}", counted(ids.len()));
        return planned(&what, &document("claim", queue, true, selected(ids.len())), output);
    }
    let moved = group.claim(&ids, consumer).await?;
    report("claim", queue, Some(consumer), &moved, output)
}

async fn release(client: &Client, command: &Chosen, output: &mut Output) -> Result<Exit, Failure> {
    let Chosen { queue, ids, lane, consent } = command;
    let (group, ids) = (of(existing(client, queue).await?, *lane), distinct(ids));
    if !consent.yes {
        let what = format!("release {} of {queue}", counted(ids.len()));
        return planned(&what, &document("release", queue, true, selected(ids.len())), output);
    }
    report("release", queue, None, &group.release(&ids).await?, output)
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
        let document = document("acknowledge", queue, true, selected(ids.len()));
        return planned(&format!("acknowledge {all} of {queue}"), &document, output);
    }
    let done = group.acknowledge(&ids).await?;
    let fields = json!({ "selected": ids.len(), "done": done });
    let text = format!("acknowledged {done} of {all} of {queue}");
    output.answer(&text, &document("acknowledge", queue, false, fields))?;
    if done < ids.len() && !output.is_json() {
        output.flush()?;
        print_error(&format!("not pending: {}", counted(ids.len() - done)));
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
        let what = format!("move {all} of consumer {from} of {queue} to consumer {to}");
        return planned(&what, &document("hand-over", queue, true, selected(pending)), output);
    }
    let moved = group.hand_over(from, to).await?;
    report("hand-over", queue, Some(to), &moved, output)
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
        let what = format!("remove consumer {consumer} of {queue} and release {all}");
        return planned(
            &what,
            &document("remove-consumer", queue, true, selected(pending)),
            output,
        );
    }
    let moved = match group.remove_consumer(consumer).await {
        Ok(moved) => moved,
        Err(error) => return refused("remove-consumer", queue, (false, None), error, output),
    };
    if !output.is_json() {
        output.line(&format!("removed consumer {consumer} of {queue}"))?;
    }
    report("remove-consumer", queue, None, &moved, output)
}

async fn reap(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    group(client, queue)?.reap_now().await?;
    let text = format!("asked the processes of {queue} to claim idle entries");
    done("reap", queue, true, &text, output)
}

async fn pause(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    let changed = group(client, queue)?.pause().await?;
    let text = match changed {
        true => format!("paused {queue}: running jobs finish, no new jobs start"),
        false => format!("{queue} was already paused"),
    };
    done("pause", queue, changed, &text, output)
}

async fn resume(client: &Client, queue: &Queue, output: &mut Output) -> Result<Exit, Failure> {
    let changed = group(client, queue)?.resume().await?;
    let text = match changed {
        true => format!("resumed {queue}"),
        false => format!("{queue} was not paused"),
    };
    done("resume", queue, changed, &text, output)
}

fn of(group: Group, lane: bool) -> Group {
    if lane { group.lane() } else { group }
}

/// A consumer, which must exist. Warns if it is alive, because it then keeps receiving entries.
async fn present(
    group: &Group,
    queue: &Queue,
    name: &ConsumerName,
) -> Result<ConsumerInfo, Failure> {
    let consumers = group.consumers().await?;
    let found = consumers.into_iter().find(|consumer| consumer.name == name.as_str());
    let found = found.ok_or_else(|| format!("{queue} has no consumer {name}"))?;
    if found.liveness == Liveness::Alive {
        print_note(&format!(
            "consumer {name} is alive and will receive entries again unless its process is stopped first"
        ));
    }
    Ok(found)
}

fn report(
    action: &str,
    queue: &Queue,
    to: Option<&ConsumerName>,
    moved: &HandedOver,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let HandedOver { moved, trimmed, missing, unstored: left, .. } = moved;
    let (done, all) = (moved.len(), moved.len() + trimmed.len() + missing.len() + left.len());
    let fields = json!({
        "selected": all,
        "done": done,
        "moved": texts(moved),
        "trimmed": texts(trimmed),
        "missing": texts(missing),
        "kept": texts(left),
    });
    let all_entries = counted(all);
    let text = match to {
        Some(consumer) => {
            format!("moved {done} of {all_entries} of {queue} to consumer {consumer}")
        }
        None => format!("released {done} of {all_entries} of {queue}"),
    };
    output.answer(&text, &document(action, queue, false, fields))?;
    if !output.is_json() {
        output.flush()?;
        for (ids, what) in [
            (trimmed, "was trimmed from the stream: it is a dead letter now"),
            (missing, "is not pending"),
            (left, "was trimmed from the stream and stays pending: no dead letter can be stored"),
        ] {
            ids.iter().for_each(|id| print_error(&format!("entry {id} {what}")));
        }
    }
    Ok(if done == all { Exit::Ok } else { Exit::Findings })
}

fn texts(ids: &[EntryAddress]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn selected(count: usize) -> Value {
    json!({ "selected": count, "done": 0 })
}

fn counted(entries: usize) -> String {
    format!("{entries} {}", if entries == 1 { "entry" } else { "entries" })
}
