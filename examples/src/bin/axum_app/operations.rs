//! What an operator needs of the application: its metrics and the dashboard.

use std::env::{VarError, var};

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use streamjobs::Client;
use streamjobs_dashboard::{Access, Auth};

pub(crate) fn recorder() -> Result<PrometheusHandle, BuildError> {
    let buckets = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0];
    PrometheusBuilder::new().set_buckets(&buckets)?.install_recorder()
}

pub(crate) fn routes(client: &Client, scrape: PrometheusHandle) -> Result<Router, VarError> {
    let auth = Auth::basic(&var("DASHBOARD_PASSWORD")?, Access::read_only("ops"));
    let dashboard = streamjobs_dashboard::router(client.clone(), auth);
    let metrics = get(move || async move { scrape.render() });
    Ok(Router::new().route("/metrics", metrics).nest_service("/jobs", dashboard))
}
