//! The control socket: HTTP and JSON on a Unix socket.
//!
//! ```text
//!   listener ─> connection (its own task) ─> rights ─> router ─> handler ─> desk, store, orders
//! ```
//!
//! A thread of its own runs all of it; what may wait for the disk runs on blocking threads beside it. What
//! the paths are and say is in `openapi.json` beside this file, which a test holds against `routes` and
//! against what is really answered.
//!
//! The rule: **no client harms anybody else.** Every connection answers one request; heads and bodies have
//! limits in size and time; whoever does not read what it asked for is cut off; clients that may only look
//! never take all places; and what streams carry is in buffers of a pool of their own.

mod asked;
mod files;
mod jobs;
mod listen;
mod loopback;
mod memory;
mod patience;
mod reply;
mod rights;
mod status;
#[cfg(test)]
mod tests;
pub mod wire;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router, middleware};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use files::Piped;
pub use listen::{BindError, Listening, bind};
pub use loopback::{MetricsError, bind_metrics};

use super::service::Service;
use crate::heap::{Pool, held_by};
use crate::pipeline::{CHUNK_BYTES, restore};
use files::Downloads;
use patience::Patient;
use reply::{Answer, Refusal};
use rights::{Owner, Peer};

/// Connections of those who may only look, and of those who may change things: neither can shut the others
/// out. Of the first there are few, as each may hold [`HEAD_BYTES`] of memory: 2.25 MiB in all.
const CONNECTIONS: [usize; 2] = [24, 64];

/// A request's head must be there within this time.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Whoever takes nothing of an answer for this long is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// A request's body, but for streams, has at most so many bytes.
const BODY_BYTES: usize = 1 << 20;

/// A request's head has at most so many bytes: the longest path and query that HTTP's library takes are 64
/// KiB, and names that are longer, escaped and in percent, cannot be asked for.
const HEAD_BYTES: usize = 96 << 10;

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
    downloads: Arc<Downloads>,
    /// The place for a look at the heap.
    looks: Arc<Semaphore>,
    snapshots: Arc<memory::Snapshots>,
}

impl Desktop {
    fn new(service: Arc<Service>) -> Desktop {
        Desktop {
            service,
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            downloads: Arc::new(Downloads::new(DOWNLOADS)),
            looks: Arc::new(Semaphore::new(1)),
            snapshots: Arc::default(),
        }
    }

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
    /// Serves requests that come in on `listening`, and those for metrics on `metrics`.
    ///
    /// # Errors
    ///
    /// When there can be no thread or no event queue for it.
    pub fn serve(
        listening: Listening,
        metrics: Option<TcpListener>,
        service: Arc<Service>,
    ) -> std::io::Result<Socket> {
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
                    let desktop = Desktop::new(service);
                    if let Some(metrics) = metrics {
                        tokio::spawn(loopback::accept(metrics, desktop.clone()));
                    }
                    match listening.listener() {
                        Ok(listener) => accept(listener, desktop, stopped).await,
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

async fn accept(listener: UnixListener, desktop: Desktop, mut stopped: oneshot::Receiver<()>) {
    let owner = Owner(rustix::process::geteuid().as_raw());
    let router = router(desktop, owner);
    let places = CONNECTIONS.map(|places| Arc::new(Semaphore::new(places)));
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
            let router = router.clone().layer(Extension(peer));
            tokio::spawn(connection(stream, router, place));
        }
    }
}

/// Answers one request.
async fn connection<S>(stream: S, router: Router, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TokioIo::new(Patient::new(stream, WRITE_PATIENCE));
    let service = TowerToHyperService::new(router);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection was broken off");
    }
}

/// A path with a method that it knows, and who answers.
struct Route {
    path: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read where openapi.json is checked")
    )]
    method: MethodFilter,
    answers: MethodRouter<Desktop>,
}

/// All that can be asked for.
fn routes() -> Vec<Route> {
    const DELETE: MethodFilter = MethodFilter::DELETE;
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PUT: MethodFilter = MethodFilter::PUT;
    vec![
        route(GET, "/v1/status", status::status),
        route(GET, "/v1/live", status::live),
        route(GET, "/v1/ready", status::ready),
        route(GET, "/v1/metrics", loopback::metrics),
        route(GET, "/v1/jobs", jobs::list),
        route(POST, "/v1/jobs", jobs::submit),
        route(GET, "/v1/jobs/events", jobs::events),
        route(GET, "/v1/jobs/{id}", jobs::show),
        route(DELETE, "/v1/jobs/{id}", jobs::cancel),
        route(POST, "/v1/jobs/{id}/retry", jobs::retry),
        route(GET, "/v1/files", files::list),
        route(GET, "/v1/files/versions", files::versions),
        route(GET, "/v1/files/content", files::get),
        route(PUT, "/v1/files/content", files::put).of_any_length(),
        route(POST, "/v1/pause", status::pause),
        route(POST, "/v1/resume", status::resume),
        route(POST, "/v1/reload", status::reload),
        route(POST, "/v1/stop", status::stop),
        route(POST, "/v1/collect", memory::collect),
        route(POST, "/v1/trim", memory::trim),
        route(GET, "/v1/heap", memory::census),
        route(GET, "/v1/heap/snapshots", memory::snapshots),
        route(POST, "/v1/heap/snapshots", memory::snapshot),
        route(GET, "/v1/heap/compare", memory::compare),
        route(GET, "/v1/heap/leaks", memory::leaks),
        route(GET, "/v1/openapi.json", status::openapi),
    ]
}

fn route<H, T>(method: MethodFilter, path: &'static str, handler: H) -> Route
where
    H: Handler<T, Desktop>,
    T: 'static,
{
    Route {
        path,
        method,
        answers: on(method, handler),
    }
}

impl Route {
    /// The same with a body without end.
    fn of_any_length(self) -> Route {
        Route {
            answers: self.answers.layer(DefaultBodyLimit::disable()),
            ..self
        }
    }
}

fn router(desktop: Desktop, owner: Owner) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| {
            router.route(route.path, route.answers)
        })
        .fallback(|| async { Refusal::missing("there is no such path") })
        .method_not_allowed_fallback(|| async {
            let why = "this path does not know this method";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
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
