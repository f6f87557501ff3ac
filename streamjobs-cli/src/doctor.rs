//! `streamjobs doctor`: checks whether the server is set up for jobs.

use serde_json::json;
use streamjobs::Client;
use streamjobs::doctor::{Access, Checkup, Severity};

use crate::arguments::Doctor;
use crate::color::Style;
use crate::output::Output;
use crate::{Exit, Failure};

pub(crate) async fn run(
    client: &Client,
    command: &Doctor,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let streams = command.stream.iter();
    let queues = streams.flat_map(|stream| {
        command.group.iter().map(move |group| (stream.as_str(), group.as_str()))
    });
    let checkup = client.doctor_for(queues).await?;
    match output.is_json() {
        true => output.document(&document(&checkup))?,
        false => {
            output.line(&checkup.server)?;
            for finding in &checkup.findings {
                for line in finding.to_string().lines() {
                    output.line_as(finding.severity.into(), line)?;
                }
            }
            if checkup.findings.is_empty() {
                output.line_as(Style::Good, "no findings")?;
            }
        }
    }
    Ok(match checkup.worst() {
        Some(Severity::Warning | Severity::Critical) => Exit::Findings,
        Some(Severity::Info) | None => Exit::Ok,
    })
}

/// Prints one line for each use of the streams. It needs no server.
pub(crate) fn print_rules(command: &Doctor, output: &mut Output) -> Result<Exit, Failure> {
    let rule =
        |access: Access| access.rule(&format!("streamjobs-{}", access.as_str()), &command.stream);
    let rules = Access::ALL.map(|access| (access.as_str(), rule(access)));
    match output.is_json() {
        true => output.document(&rules.into_iter().collect())?,
        false => {
            for (_, rule) in rules {
                output.line(&rule)?;
            }
        }
    }
    output.flush()?;
    Ok(Exit::Ok)
}

fn document(checkup: &Checkup) -> serde_json::Value {
    let findings = checkup.findings.iter().map(|finding| {
        json!({
            "severity": finding.severity.as_str(),
            "check": finding.check.as_str(),
            "what": finding.what,
            "meaning": finding.meaning,
            "advice": finding.advice,
            "nodes": finding.nodes.as_ref().map(|on| &on.nodes),
        })
    });
    json!({
        "server": checkup.server,
        "worst": checkup.worst().map(Severity::as_str),
        "findings": findings.collect::<Vec<_>>(),
    })
}
