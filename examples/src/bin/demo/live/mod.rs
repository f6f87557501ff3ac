//! The demo page: a web shop whose workers can be added, crashed, killed and recovered.

pub(crate) mod guard;
pub(crate) mod options;
pub(crate) mod parameters;
pub(crate) mod processes;

mod api;
mod archive;
mod demo;
mod ledger;
mod orders;
mod settings;
mod simulation;
mod view;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use streamjobs::config::Retention;
use streamjobs::{Client, StreamName};
use streamjobs_dashboard::{Access, AlertLog, Auth, Dashboard};
use streamjobs_tests::server::DemoServer;

use self::archive::Archive;
use self::demo::Demo;
use self::ledger::Ledger;
use self::options::Options;
use self::processes::{Processes, WorkerOptions};
use self::settings::Settings;
use self::simulation::Simulation;
use self::workers::WorkerPool;
use crate::AnyError;
use crate::serving::{BODY_MAX, asset, listen, serve_until_asked};

/// Serves the page until Ctrl-C or a `SIGTERM`.
pub(crate) async fn serve(options: Options) -> Result<(), AnyError> {
    let listener = listen(options.place).await?;
    let address = listener.local_addr()?;
    let url = options.redis_url.clone();
    let server = tokio::task::spawn_blocking(move || DemoServer::start(url.as_deref())).await??;
    let alerts = AlertLog::new();
    let demo = Arc::new(open(&options, &server, &alerts).await?);
    begin(&demo, &options).await?;
    println!("demo page:  http://{address}/");
    println!("dashboard:  http://{address}/jobs");
    println!(
        "redis:      {}, stream {} with a cap of {}",
        place_of(&server, &demo.worker_options.url),
        demo.stream.name(),
        if demo.cap == 0 { "none".to_owned() } else { format!("{} entries", demo.cap) }
    );
    println!(
        "workers:    {} in this process, {} in processes of their own; Ctrl-C stops them",
        demo::SEED.len(),
        api::PROCESSES_SEEDED
    );
    let app = routes(&demo, &alerts).into_make_service_with_connect_info::<SocketAddr>();
    serve_until_asked(listener, app).await?;
    println!("stopping …");
    let (released, abandoned) = demo.pool.stop().await;
    demo.processes.stop().await?;
    println!("stopped: {released} jobs released, {abandoned} abandoned");
    Ok(())
}

async fn open(options: &Options, server: &DemoServer, alerts: &AlertLog) -> Result<Demo, AnyError> {
    let url = server.url();
    let retention = match std::num::NonZeroU64::new(options.maxlen) {
        // Keeps this many entries, and all that a group has not finished.
        Some(entries) => Retention::History(entries),
        None => Retention::Unlimited,
    };
    let key = options.stream_key.clone();
    let client = Client::builder(&url).retention(key.clone(), retention).connect().await?;
    let stream = client.stream(&key)?;
    let (settings, ledger) = (Settings::default(), Arc::<std::sync::Mutex<Ledger>>::default());
    let book = Arc::clone(&ledger);
    let simulation = Simulation::new(settings.clone(), move |delivery| {
        book.lock().unwrap_or_else(std::sync::PoisonError::into_inner).tell(delivery);
    });
    let archive = match &options.archive {
        Some(store) => Some(Archive::open(store).await?),
        None => None,
    };
    // The stream's name is the same for the whole run.
    let name = Box::leak(key.clone().into_boxed_str());
    let postgres = archive.as_ref().map(|archive| archive.postgres.clone());
    let pool =
        WorkerPool::new(client.clone(), name, options.lease, simulation, alerts.clone(), postgres);
    let worker_options = WorkerOptions { url, stream: key, lease: options.lease };
    let (processes, read) = (Processes::default(), tokio::sync::Mutex::default());
    Ok(Demo {
        client,
        stream,
        worker_options,
        cap: options.maxlen,
        pool,
        processes,
        settings,
        ledger,
        read,
        archive,
        publishing: tokio::sync::RwLock::default(),
    })
}

/// Deletes existing data if --reset was given, and starts the workers.
async fn begin(demo: &Demo, options: &Options) -> Result<(), AnyError> {
    if options.reset {
        println!(
            "data:       deleting the stream {} with its groups and dead letters (--reset)",
            demo.stream.name()
        );
        return demo.reset(api::PROCESSES_SEEDED).await;
    }
    let kept = demo.stream.length().await?;
    println!("data:       kept {kept} entries of earlier runs; --reset deletes them");
    demo.seed(api::PROCESSES_SEEDED).await
}

fn routes(demo: &Arc<Demo>, alerts: &AlertLog) -> Router {
    let auth = Auth::loopback_only(Access::read_only("demo").payloads().allow_all());
    let streams = StreamName::new(demo.stream.name().as_str()).ok();
    let dashboard = Dashboard::builder(demo.client.clone(), auth).streams(streams).alerts(alerts);
    let dashboard = match &demo.archive {
        Some(archive) => dashboard.archive(&archive.postgres),
        None => dashboard,
    };
    let page = || asset("text/html; charset=utf-8", include_str!("assets/page.html"));
    Router::new()
        .route("/", page())
        .route("/index.html", page())
        .route("/demo.css", asset("text/css; charset=utf-8", include_str!("assets/demo.css")))
        .route("/demo.js", asset("text/javascript; charset=utf-8", include_str!("assets/demo.js")))
        .route("/state", get(api::state))
        .route("/replay", get(api::replay))
        .route("/produce", post(api::produce))
        .route("/poison", post(api::poison))
        .route("/add-worker", post(api::add_worker))
        .route("/remove-worker", post(api::remove_worker))
        .route("/crash", post(api::crash))
        .route("/kill", post(api::kill))
        .route("/start-process", post(api::start_process))
        .route("/pause", post(api::pause))
        .route("/resume", post(api::resume))
        .route("/settings", post(api::settings))
        .route("/reap", post(api::reap))
        .route("/trim", post(api::trim))
        .route("/redrive", post(api::redrive))
        .route("/delete-group", post(api::delete_group))
        .route("/reset", post(api::reset))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(guard::guard))
        .with_state(Arc::clone(demo))
        .nest_service("/jobs", dashboard.build().router())
}

fn place_of(server: &DemoServer, url: &str) -> String {
    match server {
        DemoServer::Private(server) => format!("a private server on port {}", server.port()),
        _ => options::without_secrets(url),
    }
}
