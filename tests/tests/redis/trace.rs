//! Trace context in entries, and the spans around publishing, handlers and settlements.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fmt, io};

use streamjobs::testing::Streams;
use streamjobs::{
    Client, Event, Job, JobError, ResultExt, Runtime, State, TraceContext, handler, handlers,
};
use streamjobs_tests::logs;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::app::{App, DEADLINE, OtherWork, Work, both, order, quick, until};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn context() -> TraceContext {
    let context = TraceContext::new(PARENT).unwrap().with_tracestate("vendor=1").unwrap();
    context.with_baggage("tenant=acme").unwrap()
}

type Seen = Arc<Mutex<Vec<Option<TraceContext>>>>;

/// Notes the context of each attempt of an order, and fails as often as is wanted.
fn noting(seen: &Seen, script: fn(u32) -> Result<(), JobError>) -> Work {
    let seen = seen.clone();
    Work::new(move |_, job: Job| {
        seen.lock().unwrap().push(job.trace_context().cloned());
        let result = script(job.attempt());
        async move { result }
    })
}

#[tokio::test]
async fn the_publishers_context_reaches_every_handler_retry_and_redrive() {
    let app = App::start().await;
    let builder = Client::builder(&app.server.url()).trace_context(|| Some(context()));
    let client = builder.connect().await.unwrap();
    let (seen, linked) = (Seen::default(), Seen::default());
    // Fails, then is rejected; redriven, it fails again, and is rejected again.
    let failing = noting(&seen, |attempt| match attempt {
        1 => Err("not now".into()),
        _ => Err::<(), _>("never").dead(),
    });
    let fine = noting(&seen, |_| Ok(()));
    let links = linked.clone();
    let runtime = both(&app, &failing, &fine)
        .on_process_span(move |_, context| links.lock().unwrap().push(Some(context.clone())))
        .start()
        .await
        .unwrap();
    client.publish(&order(1)).await.unwrap();
    let dead = "{orders}:dead:work";
    until(DEADLINE, "a dead letter", || app.server.length(dead) == 1).await;
    let letters = client.dead_letters("orders", "work").unwrap();
    let letter = letters.list(None, 10).await.unwrap().letters.remove(0);
    letters.redrive(letter.id).await.unwrap();
    until(DEADLINE, "five runs", || seen.lock().unwrap().len() == 5).await;
    until(DEADLINE, "a dead letter again", || app.server.length(dead) == 1).await;
    assert_eq!(*seen.lock().unwrap(), vec![Some(context()); 5]);
    assert_eq!(*linked.lock().unwrap(), vec![Some(context()); 5]);
    for stream in ["orders", dead] {
        let entry = app.server.entries(stream).remove(0);
        let text = |name: &str| entry.text(name);
        assert_eq!(text("sj-trace").as_deref(), Some(PARENT), "{stream}");
        assert_eq!(text("sj-trace-state").as_deref(), Some("vendor=1"), "{stream}");
        assert_eq!(text("sj-baggage").as_deref(), Some("tenant=acme"), "{stream}");
    }
    let _ = runtime.shutdown().await;
}

#[tokio::test]
async fn entries_without_a_trace_or_with_a_hostile_one_run_all_the_same() {
    let app = App::start().await;
    let (seen, linked) = (Seen::default(), Seen::default());
    let links = linked.clone();
    let runtime = app
        .runtime(&noting(&seen, |_| Ok(())))
        .on_process_span(move |_, context| links.lock().unwrap().push(Some(context.clone())))
        .start()
        .await
        .unwrap();
    let published = app.client.publish(&order(1)).await.unwrap();
    let entry = app.server.entries("orders").remove(0);
    assert_eq!(entry.text("sj-trace"), None, "{}", published.entry_id);
    let (long, zeros) = ("0".repeat(1_000_000), "00-".to_owned() + &"0".repeat(32) + "-1-01");
    let hostile: [&[u8]; 9] = [
        b"",
        b"\xff\x00\xfe",
        b"00-\r\nX-Injected: 1",
        b"00-00000000000000000000000000000000-0000000000000000-00",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        long.as_bytes(),
        zeros.as_bytes(),
    ];
    for value in hostile {
        let mut command = redis::cmd("XADD");
        command.arg("orders").arg("*").arg("type").arg("order.placed");
        command.arg("id").arg("x").arg("customer").arg("alice").arg("sj-trace").arg(value);
        app.run(&command);
    }
    app.drained("work").await;
    assert_eq!(*seen.lock().unwrap(), vec![None; 1 + hostile.len()]);
    assert_eq!(*linked.lock().unwrap(), vec![]);
    assert_eq!(app.server.length("{orders}:dead:work"), 0);
    let _ = runtime.shutdown().await;
}

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(stream = "mails", type = "mail.sent")]
struct Mail {}

/// Publishes from within a job of the given client, and says which trace the entry then has.
async fn trace_of_what_a_job_publishes(app: &App, client: &Client) -> Option<String> {
    let publishing = Work::new(|_, job: Job| async move {
        job.client().publish(&Mail {}).await?;
        Ok(())
    });
    let builder = Runtime::builder(client).handlers(handlers![crate::app::work]);
    let runtime = quick(builder.state(publishing)).start().await.unwrap();
    let entry = ["id", "1", "customer", "alice", "sj-trace", PARENT];
    let entry = ["XADD", "orders", "*", "type", "order.placed"].iter().chain(&entry);
    app.server.command(&entry.collect::<Vec<_>>());
    until(DEADLINE, "published", || app.server.length("mails") == 1).await;
    let _ = runtime.shutdown().await;
    app.server.entries("mails").remove(0).text("sj-trace")
}

#[tokio::test]
async fn what_a_handler_publishes_belongs_to_the_trace_of_its_job() {
    let app = App::start().await;
    let trace = trace_of_what_a_job_publishes(&app, &app.client).await;
    assert_eq!(trace.as_deref(), Some(PARENT));
}

#[tokio::test]
async fn an_application_that_says_its_trace_is_believed_within_jobs_too() {
    let app = App::start().await;
    let builder = Client::builder(&app.server.url()).trace_context(|| None);
    let client = builder.connect().await.unwrap();
    assert_eq!(trace_of_what_a_job_publishes(&app, &client).await, None);
}

/// One span, with what was written into it, and the messages logged within.
#[derive(Clone, Debug, Default)]
struct Recorded {
    name: String,
    target: String,
    declared: BTreeSet<String>,
    fields: BTreeMap<String, String>,
    logged: Vec<String>,
}

/// Keeps every span.
#[derive(Clone, Default)]
struct Recorder {
    spans: Arc<Mutex<Vec<(Id, Recorded)>>>,
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _context: Context<'_, S>) {
        let metadata = attributes.metadata();
        let mut span = Recorded {
            name: metadata.name().to_owned(),
            target: metadata.target().to_owned(),
            declared: metadata.fields().iter().map(|field| field.name().to_owned()).collect(),
            ..Recorded::default()
        };
        attributes.record(&mut Fields(&mut span.fields));
        self.spans.lock().unwrap().push((id.clone(), span));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _context: Context<'_, S>) {
        self.change(id, |span| values.record(&mut Fields(&mut span.fields)));
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let Some(span) = context.event_span(event) else { return };
        self.change(&span.id(), |span| span.logged.extend(fields.remove("message")));
    }
}

impl Recorder {
    /// Changes the span that has an id now: ids of closed spans are used again.
    fn change(&self, id: &Id, change: impl FnOnce(&mut Recorded)) {
        let mut spans = self.spans.lock().unwrap();
        change(spans.iter_mut().rfind(|(of, _)| of == id).map(|(_, span)| span).unwrap());
    }

    fn named(&self, name: &str) -> Vec<Recorded> {
        let spans = self.spans.lock().unwrap();
        spans.iter().map(|(_, span)| span).filter(|span| span.name == name).cloned().collect()
    }
}

/// The fields that `docs/tracing.md` names for a span.
fn documented(span: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/tracing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let cells = |line: &str| {
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>()
    };
    let mut rows = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let column = rows.next().unwrap().iter().position(|cell| cell == span).unwrap();
    rows.filter(|row| row[column] == "yes").map(|row| row[1].clone()).collect()
}

#[handler(group = "work")]
async fn logging(_order: crate::app::Order, State(OtherWork(work)): State<OtherWork>) {
    tracing::info!("from within, beside {}", work.count());
}

#[handler(group = "failing")]
async fn failing(_order: crate::app::Order) -> Result<(), JobError> {
    Err::<(), _>("no").dead()
}

#[tokio::test(start_paused = true)]
async fn publishing_handlers_and_settlements_run_in_spans_with_the_documented_fields() {
    let recorder = Recorder::default();
    let subscriber = tracing_subscriber::registry().with(recorder.clone());
    let _guard = logs::of_this_thread(subscriber);
    let client = Streams::new().client();
    let builder = Runtime::builder(&client).handlers(handlers![logging, failing]);
    let runtime = builder.state(OtherWork(Work::fine())).start().await.unwrap();
    let published = client.publish(&order("secret-canary")).await.unwrap();
    until(DEADLINE, "both done", || {
        let counters = runtime.counters();
        (counters.acknowledged, counters.dead_lettered) == (1, 1)
    })
    .await;
    let _ = runtime.shutdown().await;
    for job in recorder.named("job") {
        assert_eq!(job.declared, documented("job"));
        assert_eq!(job.fields["event_id"], published.event_id.as_str());
    }
    assert_eq!(recorder.named("job").len(), 2);
    for name in ["send", "process", "settle"] {
        let spans = recorder.named(name);
        assert!(!spans.is_empty(), "{name}");
        for span in spans {
            assert_eq!((&span.declared, span.target.as_str()), (&documented(name), TARGET));
            assert_eq!(span.fields["messaging.system"], "redis");
            assert!(!format!("{:?}", span.fields).contains("canary"), "{span:?}");
        }
    }
    let send = recorder.named("send").remove(0);
    assert_eq!(send.fields["otel.name"], "send orders");
    let process = recorder.named("process");
    let of_group = |group: &str| {
        let of = |span: &&Recorded| span.fields["messaging.consumer.group.name"] == group;
        process.iter().find(of).unwrap()
    };
    let (work, failing) = (of_group("work"), of_group("failing"));
    assert_eq!(work.logged, ["from within, beside 0"]);
    for (field, value) in [
        ("otel.name", "process orders"),
        ("otel.kind", "consumer"),
        ("messaging.operation.name", "process"),
        ("messaging.destination.name", "orders"),
        ("messaging.message.id", published.event_id.as_str()),
        ("streamjobs.delivery_count", "1"),
        ("streamjobs.attempt", "1"),
    ] {
        assert_eq!(work.fields[field], value, "{field}");
    }
    assert!(!work.fields.contains_key("error.type"));
    assert_eq!(failing.fields["error.type"], "error");
    assert_eq!(failing.fields["otel.status_code"], "ERROR");
    let settled = recorder.named("settle").into_iter();
    let settled = settled.map(|span| span.fields["otel.name"].clone()).collect::<BTreeSet<_>>();
    assert!(settled.contains("dead_letter orders"), "{settled:?}");
}

/// Keeps what a subscriber prints.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As an application with log lines and a collector has them.
#[tokio::test(start_paused = true)]
async fn a_line_of_a_handler_has_three_fields_in_front_while_a_collector_gets_all() {
    let (printed, recorder) = (Printed::default(), Recorder::default());
    let lines = printed.clone();
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || lines.clone());
    let spans = Targets::new().with_target(TARGET, tracing::Level::DEBUG);
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(LevelFilter::INFO))
        .with(recorder.clone().with_filter(spans));
    let _guard = logs::of_this_thread(subscriber);
    let client = Streams::new().client();
    let builder = Runtime::builder(&client).handlers(handlers![logging]);
    let runtime = builder.state(OtherWork(Work::fine())).start().await.unwrap();
    let published = client.publish(&order(1)).await.unwrap();
    until(DEADLINE, "done", || runtime.counters().acknowledged == 1).await;
    let _ = runtime.shutdown().await;
    let text = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("from within")).unwrap();
    let id = &published.event_id;
    let front = format!("job{{event_type=\"order.placed\" event_id=\"{id}\" attempt=1}}: ");
    assert!(line.contains(&front), "{line}");
    assert!(!text.contains("messaging") && !text.contains("otel"), "{text}");
    let process = recorder.named("process");
    assert_eq!(process.len(), 1);
    assert_eq!(process[0].declared, documented("process"));
    assert!(recorder.named("job").is_empty(), "it is not for collectors");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_fails_the_attempt_and_nothing_else() {
    let streams = Streams::new();
    let builder = Client::builder("redis://nowhere").trace_context(|| Some(context()));
    let client = streams.client_with(builder).unwrap();
    let builder =
        Runtime::builder(&client).handlers(handlers![crate::app::work]).state(Work::fine());
    let calls = Mutex::new(0);
    let builder = builder.on_process_span(move |_, _| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let first = *calls == 1;
        drop(calls);
        assert!(!first, "the first call panics");
    });
    let runtime = builder.start().await.unwrap();
    client.publish(&order(1)).await.unwrap();
    until(DEADLINE * 60, "done", || runtime.counters().acknowledged == 1).await;
    assert_eq!((runtime.counters().failed, runtime.counters().succeeded), (1, 1));
    let _ = runtime.shutdown().await;
}

const TARGET: &str = "streamjobs::trace";
