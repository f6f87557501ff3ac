//! Serves a page until the program is asked to stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodRouter, get};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::AnyError;
use crate::live::options::Place;

/// Listens where the options say.
pub(crate) async fn listen(place: Place) -> Result<TcpListener, AnyError> {
    let Place { host, port } = place;
    TcpListener::bind((host, port)).await.map_err(|error| {
        format!("cannot listen on {host}:{port}: {error}; use --port to choose another port").into()
    })
}

/// Serves until Ctrl-C or a `SIGTERM`. Waits for requests in progress, but not for event streams.
pub(crate) async fn serve_until_asked(
    listener: TcpListener,
    app: IntoMakeServiceWithConnectInfo<Router, SocketAddr>,
) -> Result<(), AnyError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, app).with_graceful_shutdown(async {
        let _dropped = stopped.await.is_err();
    });
    let asked = asked_to_stop()?;
    let shutdown = async {
        asked.await;
        let _gone = stop.send(()).is_err();
        sleep(ANSWERED_MAX).await;
    };
    tokio::select! {
        served = serve.into_future() => Ok(served?),
        () = shutdown => Ok(()),
    }
}

/// A file of the page.
pub(crate) fn asset<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    text: &'static str,
) -> MethodRouter<S> {
    get(([(CONTENT_TYPE, kind)], text))
}

fn asked_to_stop() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The largest request.
pub(crate) const BODY_MAX: usize = 64 * 1024;
const ANSWERED_MAX: Duration = Duration::from_secs(2);
