//! The orders demo: a small web shop whose orders are worked on by two groups.
//!
//! `cargo demo` runs it on a private Redis; `cargo demo --redis-url redis://127.0.0.1:6379` on
//! yours, in streams of its own (`streamjobs-demo:orders`). It takes about ten seconds and shows
//! orders being shared by two processes, one of the processes being killed with work in hand, its
//! work being recovered, a failing order becoming a dead letter and being redriven, and a clean
//! stop. The last line counts what was lost.
//!
//! `cargo demo --postgres` tells another story in half the time, on a private Postgres or on that
//! of `--postgres-url`: orders that are charged once although their process is killed between
//! commit and acknowledgement, a dead letter that is found with SQL and redriven, and events that
//! the transaction of their cause publishes. It fails if an order was not charged once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks to its terminal")]

mod arguments;
mod helper;
mod postgres;
mod shop;
mod story;
mod web;

use std::process::ExitCode;

use arguments::Arguments;
use streamjobs_tests::server::DemoServer;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(std::io::stderr).init();
    let outcome = match arguments::read(std::env::args().skip(1)) {
        Ok(Arguments::Helper { url }) => helper::run(&url).await,
        Ok(Arguments::Story { url }) => tell(url).await,
        Ok(Arguments::Postgres(wish)) => postgres::tell(wish).await,
        Ok(Arguments::Charger) => postgres::charger::run().await,
        Ok(Arguments::Help) => {
            println!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            eprintln!("{fault}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn tell(url: Option<String>) -> Result<(), AnyError> {
    let server = tokio::task::spawn_blocking(move || DemoServer::start(url.as_deref())).await??;
    story::tell(&server).await
}

fn log_filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"))
}
