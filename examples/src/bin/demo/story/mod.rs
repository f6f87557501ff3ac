//! The story in the terminal, step by step.

pub(crate) mod handlers;
pub(crate) mod helper;

mod web;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamjobs::Client;
use streamjobs_tests::eventually::eventually_async;
use streamjobs_tests::server::DemoServer;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::AnyError;
use crate::story::handlers::{Book, LEASE, OrderPlaced, STREAM, runtime};
use crate::story::web::Web;

/// Runs all steps. An error means that the framework broke a promise.
pub(crate) async fn tell(server: &DemoServer) -> Result<(), AnyError> {
    println!("Redis: {}", describe(server));
    let client = Client::connect(&server.url()).await?;
    let book = Book::default();
    let running = Arc::new(runtime(&client, &book, "web").start().await?);
    let web = Web::start(client.clone(), Arc::clone(&running)).await?;
    println!("Web shop: http://{} with two groups, notifications and analytics", web.address);
    let mut shop = Shop { web, book, placed: 0 };

    let mut helper = Helper::start(&server.url()).await?;
    share(&mut shop).await?;
    crash(&mut shop, &mut helper).await?;
    dead_letter_and_redrive(&mut shop, &client).await?;

    println!("\n4. A clean stop. Health says {}", shop.web.health().await?);
    shop.web.stop().await?;
    let runtime = Arc::into_inner(running).ok_or("the web server still uses the runtime")?;
    let counters = runtime.counters();
    let report = runtime.shutdown().await;
    println!("   shut down in {:?}: {} abandoned", report.took, report.abandoned.len());
    println!(
        "   claimed {} from dead processes, {} failed attempts, {} dead letters, {} leases lost",
        counters.claimed, counters.failed, counters.dead_lettered, counters.leases_lost
    );
    let (counted, cents) = shop.book.revenue();
    let lost = shop.placed - shop.book.notified().min(counted);
    println!(
        "\nplaced {}, mailed {}, counted {counted} ({cents} cents), lost {lost}",
        shop.placed,
        shop.book.notified()
    );
    if lost == 0 && report.abandoned.is_empty() { Ok(()) } else { Err("work was lost".into()) }
}

/// Where the demo runs, without the password that an address can contain.
fn describe(server: &DemoServer) -> String {
    match server {
        DemoServer::Private(server) => format!("a private server on port {}", server.port()),
        _ => format!("the given server; the demo only uses the stream {STREAM}"),
    }
}

/// The web shop, and how many orders it accepted.
struct Shop {
    web: Web,
    book: Book,
    placed: usize,
}

impl Shop {
    async fn place(&mut self, customer: &str) -> Result<String, AnyError> {
        self.placed += 1;
        let order_id = format!("o-{}", self.placed);
        let order =
            OrderPlaced { order_id: order_id.clone(), customer: customer.to_owned(), cents: 4_950 };
        self.web.order(&order).await?;
        Ok(order_id)
    }

    /// Waits until every order except `without` was mailed, and every order was counted.
    async fn caught_up(&self, without: usize) {
        let mailed = || self.book.notified() == self.placed - without;
        eventually_async(DEADLINE, "every customer has mail", async || mailed()).await;
        eventually_async(DEADLINE, "every order counted", async || {
            self.book.revenue().0 == self.placed
        })
        .await;
    }
}

async fn share(shop: &mut Shop) -> Result<(), AnyError> {
    println!("\n1. Twenty orders; two processes share the notifications of one group.");
    for _ in 0..20 {
        shop.place("alice").await?;
    }
    eventually_async(DEADLINE, "all orders counted", async || shop.book.revenue().0 == shop.placed)
        .await;
    Ok(())
}

/// The helper is killed with orders in flight; the web process claims them when their lease expires.
async fn crash(shop: &mut Shop, helper: &mut Helper) -> Result<(), AnyError> {
    println!("\n2. The helper is killed (SIGKILL) with orders in flight.");
    let in_flight = loop {
        shop.place("bob").await?;
        helper.read_for(&shop.book, Duration::from_millis(5)).await?;
        if let Some(in_flight) = helper.kill_if_busy(&shop.book).await? {
            break in_flight;
        }
    };
    let killed = Instant::now();
    println!("   in flight when it died: {}", in_flight.join(", "));
    let recovered = || in_flight.iter().all(|id| shop.book.has_notified(id));
    eventually_async(DEADLINE, "the dead process' jobs are done", async || recovered()).await;
    println!("   all done by the web process {:.1?} later (lease {LEASE:?})", killed.elapsed());
    shop.caught_up(0).await;
    Ok(())
}

async fn dead_letter_and_redrive(shop: &mut Shop, client: &Client) -> Result<(), AnyError> {
    println!("\n3. An order whose customer the mail server does not know.");
    let order_id = shop.place("unknown").await?;
    let letters = client.dead_letters(STREAM, "notifications")?;
    let letter = loop {
        let page = letters.list(None, 1_000).await?;
        if let Some(letter) = page.letters.into_iter().next_back() {
            break letter;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let error = letter.error.as_deref().unwrap_or_default();
    println!(
        "   dead letter {}: {} after {} attempts: {error}",
        letter.id,
        letter.reason.as_str(),
        letter.attempts
    );
    shop.book.repair();
    letters.redrive(letter.id).await?;
    eventually_async(DEADLINE, "the redriven order is mailed", async || {
        shop.book.has_notified(&order_id)
    })
    .await;
    println!("   repaired, redriven, mailed");
    shop.caught_up(0).await;
    Ok(())
}

/// The second process and its output.
struct Helper {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    started: Vec<String>,
}

impl Helper {
    async fn start(url: &str) -> Result<Self, AnyError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--helper", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("the helper has no output")?;
        let mut helper =
            Self { process, lines: BufReader::new(output).lines(), started: Vec::new() };
        let ready = tokio::time::timeout(DEADLINE, helper.lines.next_line()).await??;
        println!("{}", ready.ok_or("the helper ended at its start")?);
        Ok(helper)
    }

    /// Prints the helper's output for a moment, and records the jobs that it has done.
    async fn read_for(&mut self, book: &Book, moment: Duration) -> Result<(), AnyError> {
        while let Ok(line) = tokio::time::timeout(moment, self.lines.next_line()).await {
            let Some(line) = line? else { break };
            self.take(&line, book);
        }
        Ok(())
    }

    /// Kills the process if it has orders in flight, and returns them.
    async fn kill_if_busy(&mut self, book: &Book) -> Result<Option<Vec<String>>, AnyError> {
        if self.in_flight(book).is_empty() {
            return Ok(None);
        }
        self.process.kill().await?;
        // Output from before its death still counts.
        while let Some(line) = self.lines.next_line().await? {
            self.take(&line, book);
        }
        let in_flight = self.in_flight(book);
        // It may have finished all orders meanwhile; then there is nothing to recover.
        Ok(Some(in_flight))
    }

    fn in_flight(&self, book: &Book) -> Vec<String> {
        self.started.iter().filter(|id| !book.has_notified(id)).cloned().collect()
    }

    fn take(&mut self, line: &str, book: &Book) {
        println!("{line}");
        let words = line.split_whitespace().collect::<Vec<_>>();
        match words.as_slice() {
            [_, "start", id, ..] => self.started.push((*id).to_owned()),
            [_, "mailed", id] => book.notify(id),
            _ => {}
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(30);
