//! The web application that runs beside the runtime.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use streamjobs::{Client, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::AnyError;
use crate::story::handlers::OrderPlaced;

/// A web server on a free local port.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Web {
    pub(crate) async fn start(client: Client, runtime: Arc<Runtime>) -> Result<Self, AnyError> {
        let orders = axum::Router::new().route("/orders", post(place)).with_state(client);
        let health = axum::Router::new().route("/health", get(health)).with_state(runtime);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, orders.merge(health)).with_graceful_shutdown(async {
            let _dropped = stopped.await.is_err();
        });
        #[expect(clippy::disallowed_methods, reason = "`stop` ends the task and waits for it")]
        let serving = tokio::spawn(serve.into_future());
        Ok(Self { address, stop, serving })
    }

    /// Places an order over HTTP.
    pub(crate) async fn order(&self, order: &OrderPlaced) -> Result<(), AnyError> {
        let body = serde_json::to_string(order)?;
        let answer = self.request("POST /orders", &body).await?;
        if answer.starts_with("HTTP/1.1 202") { Ok(()) } else { Err(answer.into()) }
    }

    pub(crate) async fn health(&self) -> Result<String, AnyError> {
        let answer = self.request("GET /health", "").await?;
        Ok(answer.lines().last().unwrap_or_default().to_owned())
    }

    /// Stops the server after requests in progress.
    pub(crate) async fn stop(self) -> Result<(), AnyError> {
        let _gone = self.stop.send(()).is_err();
        Ok(self.serving.await??)
    }

    async fn request(&self, line: &str, body: &str) -> Result<String, AnyError> {
        let mut connection = TcpStream::connect(self.address).await?;
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

async fn place(
    State(client): State<Client>,
    Json(order): Json<OrderPlaced>,
) -> (StatusCode, Json<Value>) {
    match client.publish(&order).await {
        Ok(published) => {
            (StatusCode::ACCEPTED, Json(json!({ "event_id": published.event_id.as_str() })))
        }
        Err(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error.to_string() })))
        }
    }
}

async fn health(State(runtime): State<Arc<Runtime>>) -> (StatusCode, Json<Value>) {
    let health = runtime.health();
    let status = if health.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let groups =
        health.queues.iter().map(|queue| json!({ "group": queue.group, "healthy": queue.healthy }));
    (status, Json(json!({ "groups": groups.collect::<Vec<_>>() })))
}
