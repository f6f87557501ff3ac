//! Starts something, prints what it is, and aborts: for the tests that nothing is left behind.
//!
//! `abandon` starts a private server. `abandon serve` does too, but waits to be killed. `abandon
//! postgres` does the same with the shared Postgres. `abandon worker` starts another process of
//! this program with `abandon wait`, which waits for its parent to end.

use std::error::Error;
use std::time::Duration;

use streamjobs_tests::postgres::PgServer;
use streamjobs_tests::process::{Worker, end_with_parent};
use streamjobs_tests::server::RedisServer;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("wait") => {
            end_with_parent();
            println!("ready");
            wait_forever()
        }
        Some("serve") => {
            let server = RedisServer::start()?;
            println!("{} {}", server.pid(), server.dir().display());
            wait_forever()
        }
        Some("postgres") => {
            let server = PgServer::shared();
            println!("{} {}", server.pid(), server.dir().display());
            wait_forever()
        }
        Some("worker") => {
            let worker = Worker::builder(std::env::current_exe()?).arg("wait").start()?;
            worker.wait_for(|line| line == "ready", Duration::from_secs(10));
            println!("{}", worker.pid());
            std::process::abort();
        }
        _ => {
            let server = RedisServer::start()?;
            println!("{} {}", server.pid(), server.dir().display());
            std::process::abort();
        }
    }
}

fn wait_forever() -> ! {
    loop {
        std::thread::park();
    }
}
