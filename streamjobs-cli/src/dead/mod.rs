//! `streamjobs dead`: list, show, redrive and purge dead letters.

mod change;
mod show;

use serde_json::json;
use streamjobs::Client;
use streamjobs::dead_letter::{DeadLetterSummary, DeadLetters};
use streamjobs::stream::EntryAddress;

use crate::action::{existing, group};
use crate::arguments::{Dead, DeadList, Queue};
use crate::output::{Output, cut, print_note, time};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Dead,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Dead::List(command) => list(client, &command, output).await,
        Dead::Show(command) => {
            let letters = of(client, &command.queue)?;
            show::show(&letters.get(command.id).await?, output)?;
            Ok(Exit::Ok)
        }
        Dead::Redrive(command) => {
            change::run(client, change::Action::Redrive, &command, output).await
        }
        Dead::Purge(command) => change::run(client, change::Action::Purge, &command, output).await,
    }
}

fn of(client: &Client, queue: &Queue) -> Result<DeadLetters, Failure> {
    Ok(group(client, queue)?.dead_letters())
}

async fn list(client: &Client, command: &DeadList, output: &mut Output) -> Result<Exit, Failure> {
    let letters = of(client, &command.queue)?;
    let limit = usize::try_from(command.limit)?;
    let page = if command.reason.is_none() { PAGE.min(limit.saturating_add(1)) } else { PAGE };
    let (mut listed, mut after, mut more) = (Vec::new(), command.after, None);
    loop {
        let page = letters.summaries(after, page).await?;
        let of_reason = |letter: &DeadLetterSummary| is_of(letter, command.reason.as_deref());
        for letter in page.letters.into_iter().filter(of_reason) {
            if listed.len() == limit {
                more = listed.last().map(DeadLetterSummary::address);
                break;
            }
            listed.push(letter);
        }
        after = page.next;
        if more.is_some() || after.is_none() {
            break;
        }
    }
    if listed.is_empty() && command.after.is_none() {
        known(client, &command.queue, &letters).await?;
    }
    match output.is_json() {
        true => output.document(&document(&listed, more))?,
        false => {
            table(&listed, output)?;
            if let Some(id) = more {
                output.flush()?;
                print_note(&format!("more results: --after {id}"));
            }
        }
    }
    Ok(Exit::Ok)
}

/// Fails if neither the group nor any dead letter of it exists. Dead letters outlive their group.
async fn known(client: &Client, queue: &Queue, letters: &DeadLetters) -> Result<(), Failure> {
    if letters.list(None, 1).await?.letters.is_empty() {
        existing(client, queue).await?;
    }
    Ok(())
}

/// Whether a letter has the requested reason, if any.
fn is_of(letter: &DeadLetterSummary, reason: Option<&str>) -> bool {
    reason.is_none_or(|reason| letter.reason.as_str() == reason)
}

fn table(letters: &[DeadLetterSummary], output: &mut Output) -> Result<(), Failure> {
    let row = |letter: &DeadLetterSummary| {
        [
            letter.address().to_string(),
            time(letter.id.milliseconds()),
            letter.reason.as_str().to_owned(),
            letter.event_type.as_deref().unwrap_or("-").to_owned(),
            letter.attempts.to_string(),
            letter.delivery_count.to_string(),
            letter.payload_bytes.to_string(),
            cut(letter.error.as_deref().unwrap_or("-"), ERROR_CHARACTERS_MAX),
        ]
    };
    let head =
        ["ID", "DEAD-LETTERED", "REASON", "TYPE", "ATTEMPTS", "DELIVERIES", "BYTES", "ERROR"];
    Ok(output.table(head, letters.iter().map(row).collect())?)
}

fn document(letters: &[DeadLetterSummary], more: Option<EntryAddress>) -> serde_json::Value {
    json!({
        "letters": letters.iter().map(show::summary).collect::<Vec<_>>(),
        "more_after": more.map(|id| id.to_string()),
    })
}

/// How many letters one request reads.
const PAGE: usize = 100;
const ERROR_CHARACTERS_MAX: usize = 60;
