//! The command line `streamjobs`: inspects and manages streams, groups and dead letters.

mod about;
mod action;
#[cfg(feature = "postgres")]
mod archive;
mod arguments;
mod attempts;
mod cancel;
mod color;
mod connect;
mod dead;
mod doctor;
mod entries;
mod event;
mod fields;
mod find;
mod finished;
mod group;
mod history;
mod inspect;
mod limit;
mod output;
mod publish;
mod rate;
mod retries;
mod schedule;
mod scheduled;
mod trend;
mod trim;
mod unique;
mod watch;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use streamjobs::Client;
use streamjobs::error::ConnectError;

use self::arguments::{Arguments, Command};
use self::output::Output;

/// The result of a command that ran. The numbers are the program's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Everything was done, and no problem was found.
    Ok = 0,
    /// A problem was found, or something was not done.
    Findings = 3,
}

/// Why a command could not run.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) if arguments.watch.is_none() || arguments.command.is_reading() => arguments,
        Ok(_) => {
            let text = "--watch is for commands that only read";
            return print_usage(&Arguments::command().error(ErrorKind::ArgumentConflict, text));
        }
        Err(error) => return print_usage(&error),
    };
    match run(arguments) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => fail(failure.as_ref()),
    }
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    if let Command::About(command) = &arguments.command {
        return about::run(command);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut output = Output::new(arguments.json, arguments.color.is_on());
    if let Command::Doctor(command) = &arguments.command
        && command.acl
    {
        return doctor::print_rules(command, &mut output);
    }
    #[cfg(feature = "postgres")]
    if let Command::Archive(command) = &arguments.command {
        let exit = runtime.block_on(archive::run(&arguments, command, &mut output))?;
        output.flush()?;
        return Ok(exit);
    }
    runtime.block_on(async {
        let client = connect::client(&arguments).await?;
        if let Some(every) = arguments.watch {
            // A command is used up by its run, so each round parses the arguments again. They were
            // parsed without an error before.
            let round = async |output: &mut Output| {
                run_once(&client, Arguments::try_parse()?.command, output).await
            };
            return watch::run(every, &mut output, round).await;
        }
        let exit = run_once(&client, arguments.command, &mut output).await?;
        output.flush()?;
        Ok(exit)
    })
}

/// Runs a command to its end.
async fn run_once(client: &Client, command: Command, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        Command::About(command) => about::run(&command),
        // The archive has a database of its own, and its commands ran before this point.
        #[cfg(feature = "postgres")]
        Command::Archive(_) => Ok(Exit::Ok),
        Command::Doctor(command) => doctor::run(client, &command, output).await,
        Command::Inspect(command) => inspect::run(client, command, output).await,
        Command::Event(command) => event::run(client, command, output).await,
        Command::Publish(command) => publish::run(client, command, output).await,
        Command::History(command) => history::run(client, command, output).await,
        Command::Entries(command) => entries::run(client, command, output).await,
        Command::Group(command) => group::run(client, command, output).await,
        Command::Dead(command) => dead::run(client, command, output).await,
        Command::Scheduled(command) => scheduled::run(client, command, output).await,
        Command::Cancels(command) => cancel::run(client, command, output).await,
        Command::Schedule(command) => schedule::run(client, command, output).await,
        Command::Unique(command) => unique::run(client, command, output).await,
        Command::Rate(command) => rate::run(client, command, output).await,
        Command::Limit(command) => limit::run(client, command, output).await,
    }
}

/// Prints help, or what is wrong with the arguments. Help is a success.
fn print_usage(error: &clap::Error) -> ExitCode {
    // A closed output changes nothing about the exit code.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

/// Prints the error. A reader that closes the output early, such as `head`, is not a failure.
fn fail(failure: &(dyn Error + 'static)) -> ExitCode {
    let output = failure.downcast_ref::<io::Error>().map(io::Error::kind);
    if output == Some(io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    output::print_error(&output::chain(failure));
    match failure.downcast_ref() {
        Some(ConnectError::Address(_) | ConnectError::Setting(_)) => ExitCode::from(USAGE),
        _ => ExitCode::from(FAILED),
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
