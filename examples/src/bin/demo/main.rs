//! The orders demo: a small web shop whose events are processed by two groups.
//!
//! `cargo demo` serves a page on http://127.0.0.1:8083 until Ctrl-C: orders are published, consumers added,
//! crashed, killed and removed, entries claimed, replayed, trimmed and redriven, while an independent
//! counter on the page shows whether anything was lost. The dashboard is mounted at `/jobs`. The demo starts a private
//! Redis; `cargo demo --redis-url redis://127.0.0.1:6379` uses yours, with a stream of its own. `--help` lists all
//! options.
//!
//! `cargo demo --story` takes about ten seconds and shows in the terminal how two processes
//! share orders, how the orders of a killed process are recovered, how a failing order becomes a dead
//! letter and is redriven, and a clean stop. The last line has the number of lost orders.
//!
//! `cargo demo --cluster` serves another page, on a private cluster of three masters with a replica each, over
//! which the partitions of one stream are spread: masters are killed, slots moved and nodes added while
//! orders are published and processed. With `--story` it shows the same in the terminal, in half a minute,
//! and fails if an order was lost.
//!
//! `cargo demo --postgres` tells another story in half the time, on a private Postgres or on that
//! of `--postgres-url`: orders that are charged once although their process is killed between
//! commit and acknowledgement, a dead letter that is found with SQL and redriven, and events that
//! the transaction of their cause publishes. It fails if an order was not charged once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks to its terminal")]

mod arguments;
mod cluster;
mod live;
mod postgres;
mod serving;
mod story;

use std::process::ExitCode;

use arguments::Arguments;
use streamjobs_tests::server::DemoServer;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(std::io::stderr).init();
    let outcome = match arguments::read(std::env::args().skip(1)) {
        Ok(Arguments::Page(options)) => live::serve(options).await,
        Ok(Arguments::Cluster(place)) => cluster::serve(place).await,
        Ok(Arguments::ClusterStory) => cluster::tell().await,
        Ok(Arguments::Worker) => live::processes::run().await,
        Ok(Arguments::Helper { url }) => story::helper::run(&url).await,
        Ok(Arguments::Story { url }) => tell(url).await,
        Ok(Arguments::Postgres(wish)) => postgres::tell(wish).await,
        Ok(Arguments::Charger) => postgres::charger::run().await,
        Err(fault) => {
            let _unseen = fault.print().is_err();
            return if fault.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
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
