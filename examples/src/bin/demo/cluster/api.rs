//! The page of a cluster, and its HTTP API: each lever with its parameters and its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::{Value, json};
use streamjobs::StreamName;
use streamjobs_dashboard::{Access, Auth, Dashboard};

use crate::AnyError;
use crate::cluster::app::App;
use crate::cluster::levers::LeverError;
use crate::cluster::orders::{PARTITIONS, STREAM};
use crate::cluster::view;
use crate::live::guard::guard;
use crate::live::options::Place;
use crate::live::parameters::{ApiError, Flag, Parameters};
use crate::serving::{BODY_MAX, asset, listen, serve_until_asked};

type Shared = State<Arc<App>>;
type Answer = Result<Json<Value>, ApiError>;

/// Serves the page until Ctrl-C or a `SIGTERM`.
pub(crate) async fn serve(place: Place) -> Result<(), AnyError> {
    let listener = listen(place).await?;
    let address = listener.local_addr()?;
    println!("starting a cluster of three masters with a replica each …");
    let app = Arc::new(App::start().await?);
    println!("demo page:  http://{address}/");
    println!("dashboard:  http://{address}/jobs");
    println!("stream:     {STREAM}, {PARTITIONS} partitions; Ctrl-C stops all");
    let router = routes(&app).into_make_service_with_connect_info::<SocketAddr>();
    serve_until_asked(listener, router).await?;
    println!("stopping …");
    println!("stopped: {} jobs abandoned", app.stop().await);
    Ok(())
}

fn routes(app: &Arc<App>) -> Router {
    let auth = Auth::loopback_only(Access::read_only("demo").payloads().allow_all());
    let stream = StreamName::new(STREAM).ok();
    let dashboard = Dashboard::builder(app.client.clone(), auth).streams(stream);
    let dashboard = dashboard.alerts(&app.alerts).build();
    Router::new()
        .route("/", asset("text/html; charset=utf-8", include_str!("assets/cluster.html")))
        .route(
            "/demo.css",
            asset("text/css; charset=utf-8", include_str!("../live/assets/demo.css")),
        )
        .route(
            "/cluster.js",
            asset("text/javascript; charset=utf-8", include_str!("assets/cluster.js")),
        )
        .route("/state", get(state))
        .route("/load", post(load))
        .route("/kill", post(kill))
        .route("/bring-back", post(bring_back))
        .route("/reshard", post(reshard))
        .route("/add-node", post(add_node))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(guard))
        .with_state(Arc::clone(app))
        .nest_service("/jobs", dashboard.router())
}

async fn state(State(app): Shared) -> Answer {
    Ok(Json(view::state(&app).await?))
}

#[derive(Deserialize)]
struct LoadRequest {
    on: Flag,
}

async fn load(State(app): Shared, Parameters(request): Parameters<LoadRequest>) -> Answer {
    app.load.set(request.on.0);
    Ok(Json(json!({ "load": request.on.0 })))
}

#[derive(Deserialize)]
struct OnNode {
    node: u16,
}

async fn kill(State(app): Shared, Parameters(request): Parameters<OnNode>) -> Answer {
    let heir = app.kill(request.node).await.map_err(lever_failed)?;
    Ok(Json(json!({ "killed": request.node, "took_over": heir })))
}

async fn bring_back(State(app): Shared, Parameters(request): Parameters<OnNode>) -> Answer {
    app.bring_back(request.node).await.map_err(lever_failed)?;
    Ok(Json(json!({ "replica": request.node })))
}

#[derive(Deserialize)]
struct Reshard {
    partition: usize,
    to: u16,
}

async fn reshard(State(app): Shared, Parameters(request): Parameters<Reshard>) -> Answer {
    app.reshard(request.partition, request.to).await.map_err(lever_failed)?;
    Ok(Json(json!({ "partition": request.partition, "node": request.to })))
}

async fn add_node(State(app): Shared) -> Answer {
    Ok(Json(json!({ "added": app.add_node().await.map_err(lever_failed)? })))
}

fn lever_failed(error: LeverError) -> ApiError {
    let status = match &error {
        LeverError::NoNode(_) => StatusCode::NOT_FOUND,
        LeverError::Busy | LeverError::Refused(_) => StatusCode::CONFLICT,
        LeverError::NotSeen(_) | LeverError::Cluster(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    ApiError(status, error.to_string())
}
