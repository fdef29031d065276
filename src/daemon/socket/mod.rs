//! The control socket: HTTP and JSON on a Unix socket.
//!
//! ```text
//!   listener ─> connection (its own task) ─> rights ─> router ─> handler ─> desk, store, orders
//! ```
//!
//! A thread of its own runs all of it; what may wait for the disk runs on blocking threads beside it. What
//! the paths are and say is in `openapi.json` beside this file, which a test holds against the router.
//!
//! The rule: **no client harms anybody else.** Every connection answers one request; heads and bodies have
//! limits in size and time; whoever does not read what it asked for is cut off; clients that may only look
//! never take all places; and what streams carry is in buffers of a pool of their own.

mod files;
mod jobs;
mod listen;
mod memory;
mod patience;
mod reply;
mod rights;
mod status;
pub mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use files::Piped;
pub use listen::{Listening, bind};

use super::service::Service;
use crate::heap::{Pool, held_by};
use crate::pipeline::{CHUNK_BYTES, restore};
use patience::Patient;
use reply::{Answer, Refusal};
use rights::{Owner, Peer};

/// Connections of those who may change things, and as many of others: neither can shut the others out.
const CONNECTIONS: usize = 64;

/// A request's head must be there within this time.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Whoever takes nothing of an answer for this long is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// A request's body, but for streams, has at most so many bytes.
const BODY_BYTES: usize = 1 << 20;

/// A request's head has at most so many bytes: the longest name, escaped and in percent.
const HEAD_BYTES: usize = 1 << 20;

/// Streams in at the same time.
const UPLOADS: usize = 4;

/// Streams out at the same time.
const DOWNLOADS: usize = 1;

/// Threads that wait for the disk or for a stream.
const BLOCKING_THREADS: usize = 16;

/// Bytes of buffers that streams on the socket may use.
pub fn buffer_bytes() -> u64 {
    UPLOADS as u64 * held_by(CHUNK_BYTES) + DOWNLOADS as u64 * restore::buffer_bytes(1)
}

/// What handlers work with.
#[derive(Clone)]
struct Desktop {
    service: Arc<Service>,
    /// Places for streams in.
    uploads: Arc<Semaphore>,
    /// Places for streams out.
    downloads: Arc<Semaphore>,
    snapshots: Arc<memory::Snapshots>,
}

impl Desktop {
    /// Asks something that may wait for the disk, where waiting keeps nobody else.
    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Service) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let service = Arc::clone(&self.service);
        tokio::task::spawn_blocking(move || ask(&service))
            .await
            .unwrap_or_else(|_| {
                let why = "the request failed inside the service";
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why))
            })
    }
}

/// The socket, served; ends when dropped.
pub struct Socket {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Socket {
    /// Serves requests that come in on `listening`.
    ///
    /// # Errors
    ///
    /// When there can be no thread or no event queue for it.
    pub fn serve(listening: Listening, service: Arc<Service>) -> std::io::Result<Socket> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("filed-socket".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    match listening.listener() {
                        Ok(listener) => accept(listener, service, stopped).await,
                        Err(error) => {
                            tracing::error!(%error, "the control socket cannot be served")
                        }
                    }
                });
                // Streams that wait for the data plane end with it.
                runtime.shutdown_timeout(Duration::from_secs(1));
                drop(listening);
            })?;
        Ok(Socket {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: UnixListener, service: Arc<Service>, mut stopped: oneshot::Receiver<()>) {
    let owner = Owner(rustix::process::geteuid().as_raw());
    let router = router(service, owner);
    let places = [(); 2].map(|()| Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No more descriptors, for one: some will be free in a moment.
                tracing::warn!(%error, "a connection to the control socket cannot be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let peer = Peer::of(&stream);
        let places = &places[usize::from(peer.may_change(owner.0))];
        // Whoever finds no place is turned away, not kept waiting in front of others.
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            tokio::spawn(connection(stream, peer, router.clone(), place));
        }
    }
}

/// Answers one request.
async fn connection(stream: UnixStream, peer: Peer, router: Router, _place: OwnedSemaphorePermit) {
    let stream = TokioIo::new(Patient::new(stream, WRITE_PATIENCE));
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the control socket was broken off");
    }
}

fn router(service: Arc<Service>, owner: Owner) -> Router {
    let desktop = Desktop {
        service,
        uploads: Arc::new(Semaphore::new(UPLOADS)),
        downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        snapshots: Arc::default(),
    };
    let streams = Router::new()
        .route("/v1/files/content", get(files::get).put(files::put))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/live", get(status::live))
        .route("/v1/ready", get(status::ready))
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/v1/jobs/events", get(jobs::events))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/files", get(files::list))
        .route("/v1/files/versions", get(files::versions))
        .route("/v1/pause", post(status::pause))
        .route("/v1/resume", post(status::resume))
        .route("/v1/reload", post(status::reload))
        .route("/v1/stop", post(status::stop))
        .route("/v1/collect", post(memory::collect))
        .route("/v1/trim", post(memory::trim))
        .route("/v1/heap", get(memory::census))
        .route(
            "/v1/heap/snapshots",
            get(memory::snapshots).post(memory::snapshot),
        )
        .route("/v1/heap/compare", get(memory::compare))
        .route("/v1/heap/leaks", get(memory::leaks))
        .route("/v1/openapi.json", get(status::openapi))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .merge(streams)
        .fallback(|| async { Refusal::missing("there is no such path") })
        .method_not_allowed_fallback(|| async {
            let why = "this path does not know this method";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .layer(middleware::from_fn_with_state(owner, rights::check))
        .with_state(desktop)
}

/// The pool that streams on the socket take their buffers from.
pub fn pool() -> Pool {
    Pool::new(buffer_bytes())
}

/// A path or name from the text that stands for it.
fn unescape(text: &str) -> Answer<crate::store::FileName> {
    crate::store::FileName::unescape(text.as_bytes()).ok_or_else(|| {
        Refusal::bad(format!(
            "not a name: {}",
            crate::store::show_path(Path::new(text))
        ))
    })
}
