//! `streamjobs rate ...`: how many jobs of a group may start in a time.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{Group, RateInfo, SetRate};

use crate::arguments::{Rates, WholeGroup};
use crate::output::{Output, milliseconds, span};
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Rates,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Rates::Show(of) => show(client, &of, output).await,
        Rates::Set(command) => set(client, &command.of, Some(command.rate()), output).await,
        Rates::Reset(of) => set(client, &of, None, output).await,
    }
}

fn group(client: &Client, of: &WholeGroup) -> Result<Group, Failure> {
    Ok(client.stream(of.stream.as_str())?.group(of.group.as_str())?)
}

async fn show(client: &Client, of: &WholeGroup, output: &mut Output) -> Result<Exit, Failure> {
    let group = group(client, of)?;
    let (rate, consumers) = (group.info().await?.rate, group.consumers().await?);
    // The server forgets the rate of the code when no process asks for a start for a while; the processes' heartbeats
    // still contain it.
    let said = consumers.iter().find_map(|consumer| consumer.rate);
    let declared = rate.and_then(|rate| rate.declared).or(said);
    let set = rate.and_then(|rate| rate.set);
    let none = || "none".to_owned();
    let waits = rate.map(|rate| rate.next).filter(|next| !next.is_zero());
    let limited = rate.and_then(|rate| rate.limited);
    let lines = [
        format!("in the code        {}", declared.map_or_else(none, |rate| rate.to_string())),
        format!("set                {}", set.map_or_else(none, |rate| rate.to_string())),
        format!(
            "next start in      {}",
            waits.map_or_else(|| "0s".to_owned(), |next| span(Some(next)))
        ),
        format!("wait asked for     {}", span(limited)),
    ];
    let document = document(of, rate.as_ref(), declared.map(|rate| rate.to_string()));
    output.answer_lines(&lines, &document)?;
    Ok(Exit::Ok)
}

async fn set(
    client: &Client,
    of: &WholeGroup,
    rate: Option<SetRate>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let changed = group(client, of)?.set_rate(rate).await?;
    let name = format!("group {} on stream {}", of.group, of.stream);
    let text = match (rate, changed) {
        (Some(rate), true) => format!("set the rate of {name} to {rate}"),
        (Some(rate), false) => format!("the rate of {name} is set to {rate} already"),
        (None, true) => format!("{name} has the rate of its code again"),
        (None, false) => format!("no rate was set for {name}"),
    };
    let document = json!({
        "action": if rate.is_some() { "set" } else { "reset" },
        "stream": of.stream.as_str(),
        "group": of.group.as_str(),
        "set": rate.map(|rate| rate.to_string()),
        "done": usize::from(changed),
    });
    output.answer(&text, &document)?;
    let nothing = rate.is_none() && !changed;
    Ok(if nothing { Exit::Findings } else { Exit::Ok })
}

fn document(of: &WholeGroup, rate: Option<&RateInfo>, declared: Option<String>) -> Value {
    json!({
        "stream": of.stream.as_str(),
        "group": of.group.as_str(),
        "declared": declared,
        "set": rate.and_then(|rate| rate.set).map(|rate| rate.to_string()),
        "next_ms": milliseconds(rate.map(|rate| rate.next)),
        "limited_ms": milliseconds(rate.and_then(|rate| rate.limited)),
    })
}
