//! The process of the story that charges orders until it is killed.

use std::{env, io};

use streamjobs::Client;
use streamjobs_tests::process::{Worker, end_with_parent};

use super::billing::{Desk, runtime};
use super::place::{Place, open};
use crate::AnyError;

/// Starts the process, with its own address for Redis: that of the proxy.
pub(crate) fn start(redis: &str, place: &Place) -> io::Result<Worker> {
    Worker::builder(env::current_exe()?)
        .arg("--charger")
        .env(REDIS, redis)
        .env(POSTGRES, &place.url)
        .env(SCHEMA, place.schema.as_str())
        .start()
}

/// Runs until it is killed.
pub(crate) async fn run() -> Result<(), AnyError> {
    end_with_parent();
    let (_pool, postgres) = open(&env::var(POSTGRES)?, &env::var(SCHEMA)?).await?;
    let client = Client::connect(&env::var(REDIS)?).await?;
    let desk = Desk::new(&postgres).together(ORDERS);
    let builder = runtime(&client, &postgres, &desk, "charger");
    let _runtime = builder.only_groups(["billing"]).start().await?;
    std::future::pending::<()>().await;
    Ok(())
}

/// As many as it finds. They all have a slot.
pub(crate) const ORDERS: usize = 5;
const REDIS: &str = "STREAMJOBS_DEMO_REDIS";
const POSTGRES: &str = "STREAMJOBS_DEMO_POSTGRES";
const SCHEMA: &str = "STREAMJOBS_DEMO_SCHEMA";
