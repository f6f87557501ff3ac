//! The command line `streamjobs`: what an operator asks of streams, groups and dead letters.

mod act;
mod arguments;
mod dead;
mod doctor;
mod entries;
mod fields;
mod group;
mod history;
mod look;
mod output;
mod retries;
mod trim;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use streamjobs::Client;
use streamjobs::error::ConnectError;

use self::arguments::{Arguments, Command};
use self::output::Output;

/// How a command ended that could be carried out. The numbers are the program's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Nothing is left to say.
    Ok = 0,
    /// Something was found, or was not done.
    Findings = 3,
}

/// Why a command could not be carried out.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    match run(arguments) {
        Ok(ended) => ExitCode::from(ended as u8),
        Err(failure) => fail(failure.as_ref()),
    }
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut output = Output::new(arguments.json);
    runtime.block_on(async {
        let client = Client::connect(&arguments.url).await?;
        let ended = match arguments.command {
            Command::Doctor(command) => doctor::run(&client, &command, &mut output).await?,
            Command::Look(command) => look::run(&client, command, &mut output).await?,
            Command::History(command) => history::run(&client, command, &mut output).await?,
            Command::Entries(command) => entries::run(&client, command, &mut output).await?,
            Command::Group(command) => group::run(&client, command, &mut output).await?,
            Command::Dead(command) => dead::run(&client, command, &mut output).await?,
        };
        output.flush()?;
        Ok(ended)
    })
}

/// Help is an answer, and a wrong argument is not.
fn explain(error: &clap::Error) -> ExitCode {
    // Without anybody to read it, it is as well left unsaid.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

/// A reader that has seen enough, such as `head`, is no failure.
fn fail(failure: &(dyn Error + 'static)) -> ExitCode {
    let output = failure.downcast_ref::<io::Error>().map(io::Error::kind);
    if output == Some(io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    output::complain(&output::chain(failure));
    match failure.downcast_ref() {
        Some(ConnectError::Address(_) | ConnectError::Setting(_)) => ExitCode::from(USAGE),
        _ => ExitCode::from(FAILED),
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
