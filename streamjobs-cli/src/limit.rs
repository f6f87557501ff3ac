//! `streamjobs limit ...`: how many jobs of a group may run at once in all processes.

use serde_json::{Value, json};
use streamjobs::Client;
use streamjobs::stream::{Group, Liveness, SetLimit};

use crate::arguments::{LimitSet, Limits, WholeGroup};
use crate::output::Output;
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: Limits,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Limits::Show(of) => show(client, &of, output).await,
        Limits::Set(command) => set(client, &command, output).await,
        Limits::Reset(of) => reset(client, &of, output).await,
    }
}

fn group(client: &Client, of: &WholeGroup) -> Result<Group, Failure> {
    Ok(client.stream(of.stream.as_str())?.group(of.group.as_str())?)
}

async fn show(client: &Client, of: &WholeGroup, output: &mut Output) -> Result<Exit, Failure> {
    let group = group(client, of)?;
    let (info, consumers) = (group.info().await?, group.consumers().await?);
    let alive = consumers.iter().filter(|consumer| consumer.liveness == Liveness::Alive);
    let mut said = alive.filter_map(|consumer| consumer.limits.clone()).collect::<Vec<_>>();
    said.sort_unstable();
    said.dedup();
    let none = || "none".to_owned();
    let in_code = if said.is_empty() { none() } else { said.join("; ") };
    let set = info.limit.as_ref().map_or_else(none, SetLimit::to_string);
    let part = match info.limit {
        Some(_) if info.limit_in < info.partitions => {
            format!(", in {} of {} partitions", info.limit_in, info.partitions)
        }
        _ => String::new(),
    };
    let followed = match &info.limit {
        Some(_) if !info.limit_is_followed(&consumers) => ", which no live process follows",
        _ => "",
    };
    let lines = [
        format!("in the code        {in_code}"),
        format!("set                {set}{part}{followed}"),
    ];
    let document = json!({
        "stream": of.stream.as_str(),
        "group": of.group.as_str(),
        "declared": said,
        "set": info.limit.as_ref().map(limit_document),
        "set_in": info.limit_in,
        "partitions": info.partitions,
        "followed": info.limit_is_followed(&consumers),
    });
    output.answer_lines(&lines, &document)?;
    Ok(Exit::Ok)
}

async fn set(client: &Client, command: &LimitSet, output: &mut Output) -> Result<Exit, Failure> {
    let LimitSet { of, limit, why, by } = command;
    let changed = group(client, of)?.set_limit(*limit, by, why).await?;
    let name = format!("group {} on stream {}", of.group, of.stream);
    let text = match changed {
        true => format!("set the limit of {name} to {limit}"),
        false => format!("the limit of {name} is set to {limit} already"),
    };
    output.answer(&text, &document("set", of, json!(limit.get()), changed))?;
    Ok(Exit::Ok)
}

async fn reset(client: &Client, of: &WholeGroup, output: &mut Output) -> Result<Exit, Failure> {
    let changed = group(client, of)?.reset_limit().await?;
    let name = format!("group {} on stream {}", of.group, of.stream);
    let text = match changed {
        true => format!("{name} has the limit of its code again"),
        false => format!("no limit was set for {name}"),
    };
    output.answer(&text, &document("reset", of, Value::Null, changed))?;
    Ok(if changed { Exit::Ok } else { Exit::Findings })
}

fn document(action: &str, of: &WholeGroup, set: Value, changed: bool) -> Value {
    json!({
        "action": action,
        "stream": of.stream.as_str(),
        "group": of.group.as_str(),
        "set": set,
        "done": usize::from(changed),
    })
}

fn limit_document(set: &SetLimit) -> Value {
    json!({
        "option": set.option.as_str(),
        "limit": set.limit,
        "from": set.from,
        "by": set.by,
        "why": set.why,
        "at_ms": set.at,
    })
}
