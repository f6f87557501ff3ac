//! What `#[handler]` leaves of a function, and what it says about it.

use std::num::NonZeroU32;
use std::time::Duration;

use streamjobs::__private::{HandlerDef, HandlerItem, Requirements};
use streamjobs::config::{Start, Unhandled};
use streamjobs::{
    Backoff, Entry, EntryId, FromJob, Job, JobError, JobResource, State, handler, handlers,
};

#[path = "../../ui/cases/support.rs"]
mod support;

use support::{Mailer, OrderPlaced, Tenant, Transaction};

#[handler(group = "notifications")]
async fn bare(order: OrderPlaced, State(mailer): State<Mailer>) -> Result<(), JobError> {
    (order.amount == mailer.0).then_some(()).ok_or_else(|| JobError::dead("the amounts differ"))
}

#[handler(
    group = "billing",
    concurrency = 32,
    max_attempts = 7,
    max_deliveries = 9,
    timeout = "30s",
    expires = "2h",
    backoff = "1s..10m",
    lease = "500ms",
    start = "1700000000000-3",
    unhandled = "leave",
    unhandled_after = "90s"
)]
async fn full(_: OrderPlaced) {}

#[handler(
    group = "audit",
    stream = "everything",
    backoff = "2h",
    start = "$",
    unhandled = "dead-letter"
)]
async fn raw(_: Entry) {}

#[handler(group = "audit", stream = "everything", start = "0", unhandled = "acknowledge")]
async fn defaults_said_aloud(_: Entry) {}

mod facade {
    pub(crate) use streamjobs as framework;
}

#[handler(group = "facade", stream = "everything", crate = facade::framework)]
async fn through_another_path(_: Entry) {}

fn definition<T: HandlerItem>() -> HandlerDef {
    T::HANDLER
}

#[tokio::test]
async fn the_function_is_called_as_it_was_written() {
    let order = |amount| OrderPlaced { customer: String::from("alice"), amount };
    assert!(bare(order(7), State(Mailer(7))).await.is_ok());
    assert!(bare(order(8), State(Mailer(7))).await.unwrap_err().is_dead());
}

#[test]
fn the_definition_says_where_the_function_stands() {
    let bare = definition::<bare>();
    assert_eq!((bare.name, bare.module), ("bare", "memory::handlers"));
    assert!(bare.file.ends_with("tests/memory/handlers.rs"), "{}", bare.file);
    assert_eq!(definition::<full>().line, bare.line + 5, "the line of the attribute");
}

#[test]
fn an_event_names_stream_and_types_and_a_raw_handler_its_stream() {
    let bare = definition::<bare>();
    assert_eq!(
        (bare.group, bare.stream, bare.types),
        ("notifications", "orders", Some(&["order.placed"][..]))
    );
    let raw = definition::<raw>();
    assert_eq!((raw.group, raw.stream, raw.types), ("audit", "everything", None));
}

#[test]
fn every_option_reaches_the_definition() {
    let options = definition::<full>().options;
    let counts = [options.concurrency, options.max_attempts, options.max_deliveries];
    assert_eq!(counts.map(|count| count.map(NonZeroU32::get)), [Some(32), Some(7), Some(9)]);
    assert_eq!(options.timeout, Some(Duration::from_secs(30)));
    assert_eq!(options.expires, Some(Duration::from_secs(7200)));
    assert_eq!(
        options.backoff,
        Some(Backoff::exponential(Duration::from_secs(1), Duration::from_secs(600)))
    );
    assert_eq!(options.lease, Some(Duration::from_millis(500)));
    assert_eq!(options.start, Some(Start::After(EntryId::new(1_700_000_000_000, 3))));
    assert_eq!(options.unhandled, Some(Unhandled::Leave));
    assert_eq!(options.unhandled_after, Some(Duration::from_secs(90)));

    let options = definition::<raw>().options;
    assert_eq!(options.backoff, Some(Backoff::fixed(Duration::from_secs(7200))));
    assert_eq!((options.start, options.unhandled), (Some(Start::End), Some(Unhandled::DeadLetter)));
    let options = definition::<defaults_said_aloud>().options;
    assert_eq!(
        (options.start, options.unhandled),
        (Some(Start::Beginning), Some(Unhandled::Acknowledge))
    );
}

#[test]
fn an_option_that_is_not_said_is_none() {
    let options = definition::<bare>().options;
    assert_eq!(
        (options.concurrency, options.max_attempts, options.max_deliveries),
        (None, None, None)
    );
    assert_eq!((options.timeout, options.backoff, options.lease), (None, None, None));
    assert_eq!((options.start, options.unhandled), (None, None));
}

/// Each of these says that it was asked, by needing a state of its own type.
struct First;
struct Second;

impl FromJob for First {
    fn from_job(_: &Job) -> Result<Self, JobError> {
        Ok(Self)
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<u8>();
    }
}

impl JobResource for Second {
    async fn begin(job: &Job) -> Result<streamjobs::Begin<Self>, JobError> {
        First::from_job(job)?;
        Ok(streamjobs::Begin::Run(Self))
    }

    async fn commit(self) -> Result<(), JobError> {
        Ok(())
    }

    async fn rollback(self) {}

    fn require(requirements: &mut Requirements) {
        requirements.state::<u16>();
    }
}

#[test]
fn all_arguments_are_asked_what_they_need_in_their_order() {
    #[handler(group = "needs")]
    async fn needs(
        _: OrderPlaced,
        _: &mut Second,
        _: First,
        _: State<u32>,
        _: Tenant,
        _: &mut Transaction,
    ) {
    }

    let mut requirements = Requirements::default();
    (definition::<needs>().require)(&mut requirements);
    let shown = format!("{requirements:?}");
    let places = ["\"u16\"", "\"u8\"", "\"u32\""].map(|name| shown.find(name));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{shown}");
}

#[test]
fn a_handler_in_a_function_body_is_found_and_one_that_is_configured_away_is_not() {
    #[handler(group = "body", stream = "everything")]
    async fn in_a_body(_: Entry) {}

    #[handler(group = "body", stream = "everything")]
    #[cfg(any())]
    async fn gone(_: Entry, _: NoSuchType) {}

    let linked = streamjobs::__private::linked();
    let in_body =
        linked.iter().filter(|handler| handler.group == "body").map(|handler| handler.name);
    assert_eq!(in_body.collect::<Vec<_>>(), ["in_a_body"]);
    assert_eq!(handlers![in_a_body].len(), 1);
}

#[test]
fn linked_handlers_and_listed_handlers_are_the_same() {
    let listed = handlers![bare, full, raw, defaults_said_aloud, through_another_path];
    let linked = streamjobs::__private::linked();
    let linked = linked
        .iter()
        .filter(|found| listed.iter().any(|handler| handler.location() == found.location()));
    let locations = |handler: &HandlerDef| handler.location();
    assert_eq!(
        linked.map(locations).collect::<Vec<_>>(),
        listed.iter().map(locations).collect::<Vec<_>>()
    );
}
