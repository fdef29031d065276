//! Metrics for a monitoring that cannot open the control socket: `/metrics` on a loopback port, and nothing
//! else.
//!
//! Whoever is on this machine may ask, as there is nobody to tell who that is; so nothing can be changed
//! here, and whoever asks takes no place of those on the control socket.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::reply::{Answer, Refusal};
use super::{Desktop, connection};
use crate::daemon::metrics;

/// Connections at the same time.
const CONNECTIONS: usize = 4;

/// There is nobody to answer who asks for metrics.
#[derive(Debug, thiserror::Error)]
#[error("service.metrics: listen at {address}")]
pub struct MetricsError {
    /// Where they were to be.
    address: SocketAddr,
    /// Why not.
    #[source]
    source: std::io::Error,
}

/// Listens for those who ask for metrics; at port 0, on one that is free.
///
/// # Errors
///
/// When the address is in use or is not of this machine.
pub fn bind_metrics(address: SocketAddr) -> Result<StdListener, MetricsError> {
    let listen = || {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listens_at = listener.local_addr()?;
        tracing::info!(address = %listens_at, "metrics are at /metrics");
        Ok(listener)
    };
    listen().map_err(|source| MetricsError { address, source })
}

/// Answers for as long as the socket is served.
pub(super) async fn accept(listener: StdListener, desktop: Desktop) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be served"),
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async { Refusal::missing("there is nothing here but /metrics") })
        .method_not_allowed_fallback(|| async {
            let why = "metrics can only be read";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .with_state(desktop);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    tokio::spawn(connection(stream, router.clone(), place));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics cannot be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// The metrics, as OpenMetrics text.
pub(super) async fn metrics(State(desktop): State<Desktop>) -> Answer<impl IntoResponse> {
    let text = desktop
        .blocking(|service| Ok(metrics::text(service)))
        .await?;
    let kind = [(axum::http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((kind, text))
}
