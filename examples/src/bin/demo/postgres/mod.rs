//! The story of the Postgres crate: orders charged once, dead letters in SQL, events from the
//! outbox.

pub(crate) mod charger;

mod billing;
mod place;
mod table;

use std::time::{Duration, Instant};

use streamjobs::{Client, EventId, Runtime};
use streamjobs_postgres::Keep;
use streamjobs_postgres::letters::{Request, Selection};
use streamjobs_tests::proxy::{FaultProxy, Mode};
use streamjobs_tests::server::RedisServer;

use self::billing::{Desk, runtime};
use self::place::Place;
use self::table::show;
use crate::AnyError;
use crate::arguments::Wish;
use crate::story::handlers::{LEASE, OrderPlaced, STREAM};

/// Runs all scenes; an error means that a guarantee of the crate did not hold.
pub(crate) async fn tell(wish: Wish) -> Result<(), AnyError> {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await??;
    let place = Place::prepare(wish).await?;
    println!("Redis: a private server on port {}", redis.port());
    println!("Postgres: {place}");
    // A given database is cleaned up in any case.
    let result = tokio::select! {
        result = play(&redis, &place) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    result.and(place.clean_up().await)
}

async fn play(redis: &RedisServer, place: &Place) -> Result<(), AnyError> {
    let client = Client::connect(&redis.url()).await?;
    let mut story = Story { client, place, desk: Desk::new(&place.postgres), placed: Vec::new() };
    story.charge_and_die(redis).await?;
    let runtime = story.take_over().await?;
    story.dead_letter_and_redrive().await?;
    story.publish_by_commit().await?;
    let report = runtime.shutdown().await;
    println!("\n5. The charges of {} orders.", story.placed.len());
    show(place, CHARGED).await?;
    story.settle_up(report.abandoned.len()).await
}

struct Story<'a> {
    client: Client,
    place: &'a Place,
    desk: Desk,
    placed: Vec<(OrderPlaced, EventId)>,
}

impl Story<'_> {
    async fn place(&mut self, customer: &str) -> Result<(), AnyError> {
        let order_id = format!("o-{}", self.placed.len() + 1);
        let order = OrderPlaced { order_id, customer: customer.to_owned(), cents: 4_950 };
        let event_id = self.client.publish(&order).await?.event_id;
        self.placed.push((order, event_id));
        Ok(())
    }

    /// Kills the charger when everything is committed and nothing is acknowledged.
    async fn charge_and_die(&mut self, redis: &RedisServer) -> Result<(), AnyError> {
        println!("\n1. A process charges five orders and cannot acknowledge them:");
        println!("   a proxy between the process and its Redis delays every XACK.");
        for _ in 0..charger::ORDERS {
            self.place("alice").await?;
        }
        let proxy = FaultProxy::start(redis)?;
        proxy.set(Mode::HoldRequest(ACKNOWLEDGES.into()));
        let mut charger = charger::start(proxy.url(), self.place)?;
        let committed = until("the charges are committed", async || {
            let charges = usize::try_from(self.charges().await?)?;
            Ok(charges == charger::ORDERS && proxy.held() > 0)
        });
        let committed = committed.await;
        charger.kill();
        // Drops the requests that the proxy has not passed on.
        proxy.sever();
        charger.lines().iter().for_each(|line| println!("{line}"));
        committed.map_err(|error| format!("{error}; {charger:?}"))?;
        let pending = self.group().await?.pending;
        println!("   killed (SIGKILL) between commit and acknowledgement:");
        let charges = self.charges().await?;
        println!("   {charges} charges are in the table, {pending} jobs are not done");
        Ok(())
    }

    /// Another process claims the jobs and finds the guard rows of their events.
    async fn take_over(&mut self) -> Result<Runtime, AnyError> {
        println!("\n2. Another process claims the jobs. It also runs archive, relay and pruner.");
        let (postgres, began) = (&self.place.postgres, Instant::now());
        let runtime = runtime(&self.client, postgres, &self.desk, "office")
            .service(postgres.archive().interval(Duration::from_millis(100)))
            .service(postgres.relay())
            .service(postgres.pruner(Keep::default()))
            .start()
            .await?;
        until("every job is acknowledged", async || self.is_done().await).await?;
        let (took, claimed) = (began.elapsed(), runtime.counters().claimed);
        println!("   {claimed} jobs claimed and acknowledged {took:.1?} later (lease {LEASE:?});");
        println!("   handlers run for that: {}", self.desk.runs());
        if let Some((order, event_id)) = self.placed.first() {
            self.client.publish_with_id(order, event_id.clone()).await?;
            until("the duplicate is acknowledged", async || self.is_done().await).await?;
            let (order_id, runs) = (&order.order_id, self.desk.runs());
            println!("   {order_id} published again under its event id; handlers run: {runs}");
        }
        if self.desk.runs() > 0 { Err("a finished job ran again".into()) } else { Ok(runtime) }
    }

    async fn dead_letter_and_redrive(&mut self) -> Result<(), AnyError> {
        println!("\n3. A card is declined twice: the job becomes a dead letter and is archived.");
        self.place("mallory").await?;
        let letters = self.place.postgres.dead_letters();
        let declined = Selection::new().group("billing").error_contains("card declined");
        until("the dead letter is archived", async || Ok(letters.count(&declined).await? > 0))
            .await?;
        show(self.place, KINDS).await?;
        show(self.place, LETTERS).await?;
        println!("   The customer pays in, and the dead letter is redriven:");
        self.desk.fund();
        let request = Request::new("alice", "mallory has paid in, ticket 4711");
        let redrive = letters.redrive(declined, request).start(&self.client).await?;
        until("the redriven order is charged", async || Ok(self.charges().await? == 6)).await?;
        show(self.place, REDRIVES).await?;
        if redrive.done == 1 { Ok(()) } else { Err("expected one redriven job".into()) }
    }

    /// Each charge has published an event in its transaction, also those of the killed process.
    async fn publish_by_commit(&self) -> Result<(), AnyError> {
        println!(
            "\n4. Each charge published an event in its transaction; rolled-back attempts published"
        );
        println!("   none. The relay has moved the events to their stream:");
        until("every charge has its receipt", async || {
            Ok(self.desk.receipts() == self.placed.len())
        })
        .await?;
        // A row goes after its event is on the stream: the receipt can be there first.
        until("no event waits", async || Ok(self.waiting_events().await? == 0)).await?;
        let waiting = self.waiting_events().await?;
        println!("   {} receipts written, {waiting} events wait", self.desk.receipts());
        Ok(())
    }

    async fn settle_up(&self, abandoned: usize) -> Result<(), AnyError> {
        let placed = i64::try_from(self.placed.len())?;
        let charged = self.number("SELECT count(DISTINCT order_id) FROM charges").await?;
        let cents = self.number("SELECT COALESCE(sum(cents), 0)::bigint FROM charges").await?;
        let (twice, lost) = (self.charges().await? - charged, placed - charged);
        println!(
            "\nplaced {placed}, charged {charged} ({cents} cents), charged twice {twice}, \
             lost {lost}"
        );
        if twice == 0 && lost == 0 && abandoned == 0 {
            Ok(())
        } else {
            Err("not every order was charged once".into())
        }
    }

    async fn waiting_events(&self) -> Result<i64, AnyError> {
        self.number("SELECT count(*) FROM streamjobs.outbox").await
    }

    async fn charges(&self) -> Result<i64, AnyError> {
        self.number("SELECT count(*) FROM charges").await
    }

    async fn number(&self, query: &str) -> Result<i64, AnyError> {
        let query = sqlx::AssertSqlSafe(self.place.sql(query));
        Ok(sqlx::query_scalar(query).fetch_one(&self.place.pool).await?)
    }

    async fn group(&self) -> Result<streamjobs::stream::GroupInfo, AnyError> {
        Ok(self.client.stream(STREAM)?.group("billing")?.info().await?)
    }

    async fn is_done(&self) -> Result<bool, AnyError> {
        let group = self.group().await?;
        Ok(group.backlog.entries + group.pending + group.retrying == 0)
    }
}

/// Waits until a condition holds. After the deadline it is an error.
async fn until(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool, AnyError>,
) -> Result<(), AnyError> {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if holds().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("timed out after {DEADLINE:?} waiting until {what}").into())
}

/// The command as it is sent. The name alone also occurs in scripts, which must pass the proxy.
const ACKNOWLEDGES: &str = "$4\r\nXACK\r\n";

const DEADLINE: Duration = Duration::from_secs(30);

const CHARGED: &str = "\
SELECT order_id, sum(cents) AS cents, count(*) AS times_charged
FROM charges GROUP BY order_id ORDER BY order_id;";

const KINDS: &str = "\
SELECT letters, group_name, event_type, reason, last_error
FROM streamjobs.dead_letter_kinds ORDER BY letters DESC;";

const LETTERS: &str = "\
SELECT id, event_id, payload ->> 'customer' AS customer, attempts, error
FROM streamjobs.open_dead_letters ORDER BY id DESC;";

const REDRIVES: &str = "\
SELECT requested_by, reason, state, letters, done, failed
FROM streamjobs.redrives ORDER BY id DESC;";
