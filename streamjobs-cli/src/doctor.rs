//! `streamjobs doctor`: checks whether the server is set up for jobs.

use serde_json::json;
use streamjobs::Client;
use streamjobs::doctor::{Checkup, Severity};

use crate::arguments::Doctor;
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
            for line in checkup.to_string().lines() {
                output.line(line)?;
            }
        }
    }
    Ok(match checkup.worst() {
        Some(Severity::Warning | Severity::Critical) => Exit::Findings,
        Some(Severity::Info) | None => Exit::Ok,
    })
}

fn document(checkup: &Checkup) -> serde_json::Value {
    let findings = checkup.findings.iter().map(|finding| {
        json!({
            "severity": finding.severity.as_str(),
            "check": finding.check.as_str(),
            "what": finding.what,
            "meaning": finding.meaning,
            "advice": finding.advice,
        })
    });
    json!({
        "server": checkup.server,
        "worst": checkup.worst().map(Severity::as_str),
        "findings": findings.collect::<Vec<_>>(),
    })
}
