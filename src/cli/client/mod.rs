//! The commands that talk to a running service: the other end of `daemon::socket`.
//!
//! Each opens one connection for each request. What keeps it from being answered is told apart: nobody is
//! there, the socket may not be used, the service belongs to somebody else, it is busy, or it said no.

mod heap;
mod jobs;
mod orders;
mod status;
mod submit;

use crate::store::clock::now_ns;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::args::Common;
use super::setup::common_flags;
use crate::config::{self, Role, Sources};
use crate::daemon::socket::Piped;
use crate::daemon::socket::wire::Failure;

pub(super) use heap::run as heap;
pub(super) use jobs::run as jobs;
pub(super) use orders::{collect, pause, reload, resume, trim};
pub(super) use status::run as status;
pub(super) use submit::run as submit;

/// Where a system's service listens, for those whose own is not there.
const SYSTEM_SOCKET: &str = "/run/filed/filed.sock";

/// A body is read from its source in parts of this many bytes.
const PART_BYTES: usize = 256 << 10;

/// An answer that is not a stream has at most so many bytes.
const ANSWER_BYTES: usize = 64 << 20;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{path}: no service answers here")]
    NotRunning { path: String },
    #[error("{path}: you may not use this service's socket")]
    NoPermission { path: String },
    #[error("{0}")]
    NotYours(String),
    #[error("{error}")]
    Busy {
        error: String,
        /// When to try again.
        after: Duration,
    },
    #[error("{error}")]
    Refused {
        status: StatusCode,
        error: String,
        hint: Option<String>,
    },
    #[error("talk to the service at {path}: {why}")]
    Broken { path: String, why: String },
    /// What was to be sent cannot be read.
    #[error("{0}")]
    Content(io::Error),
}

/// A way to a service.
pub(super) struct Client {
    path: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Finds the socket: the one given, else the configured one, else that of the user or the system.
    pub(super) fn new(common: &Common, socket: Option<&Path>) -> anyhow::Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let path = match socket {
            Some(path) => path.to_owned(),
            None => {
                let flags = common_flags(common)?;
                let sources = Sources::from_process(Role::Command, common.config.clone(), flags);
                let config = match config::load(&sources) {
                    Ok(loaded) => loaded.config,
                    // A service that runs has a configuration, so this must not keep anybody from asking how
                    // it is; without one the file may be why.
                    Err(error) if may_be_there(Path::new(SYSTEM_SOCKET)) => {
                        tracing::warn!(%error, "the configuration is wrong: trying the system's service");
                        config::Config::default()
                    }
                    Err(error) => return Err(error.into()),
                };
                let lookup = |name: &str| std::env::var_os(name);
                let wanted = config::socket_path(&config, lookup, geteuid().is_root());
                let system = Path::new(SYSTEM_SOCKET);
                match wanted {
                    Ok(path)
                        if config.service.socket.is_none()
                            && !may_be_there(&path)
                            && may_be_there(system) =>
                    {
                        system.to_owned()
                    }
                    Err(_) => system.to_owned(),
                    Ok(path) => path,
                }
            }
        };
        Ok(Client { path, runtime })
    }

    /// Asks for something.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None)
    }

    /// Asks for something to be done.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&impl serde::Serialize>,
    ) -> Result<T, ClientError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| self.broken(&error))?;
        self.ask(Method::POST, path, body)
    }

    /// Asks for something to be done that has no answer but that it was.
    pub(super) fn tell(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let response = self.send(method, path, Empty::new()).await?;
            self.check(response).await.map(drop)
        })
    }

    /// Sends what `content` gives as the body; an error of it breaks the request off.
    ///
    /// Nothing is read before the service has been reached, and nothing is waited for that may never come
    /// once it has refused: standard input may be a terminal.
    pub(super) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        content: Box<dyn Read + Send>,
    ) -> Result<T, ClientError> {
        let unread = Arc::new(Mutex::new(None));
        let answer = self.runtime.block_on(async {
            let (mut sender, connection) = self.connect().await?;
            let (parts, body) = mpsc::channel(2);
            let request = self.request(Method::PUT, path, Piped(body))?;
            let told = Arc::clone(&unread);
            // It ends with the content, or when the body is dropped with the connection.
            std::thread::spawn(move || feed(content, &parts, &told));
            let answer = match sender.send_request(request).await {
                Ok(response) => self.answer(response).await,
                Err(error) => Err(self.not_answered(&error)),
            };
            connection.abort();
            answer
        });
        let unread = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match unread {
            Some(error) => Err(ClientError::Content(error)),
            None => answer,
        }
    }

    /// Hears lines of a stream of events until it ends or `hear` has had enough.
    pub(super) fn listen(
        &self,
        path: &str,
        hear: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, path, Empty::new()).await?;
            let mut body = self.check(response).await?.into_body();
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.broken(&error))?;
                pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if !hear(String::from_utf8_lossy(&line).trim_end()) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        self.runtime.block_on(async {
            let response = self.send(method, path, body).await?;
            self.answer(response).await
        })
    }

    async fn send<B>(
        &self,
        method: Method,
        path: &str,
        body: B,
    ) -> Result<Response<Incoming>, ClientError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let (mut sender, _connection) = self.connect().await?;
        let request = self.request(method, path, body)?;
        let answered = sender.send_request(request).await;
        answered.map_err(|error| self.not_answered(&error))
    }

    /// A connection of its own for one request.
    async fn connect<B>(&self) -> Result<(SendRequest<B>, JoinHandle<()>), ClientError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.not_reached(&error))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Its errors come through the request too.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok((sender, connection))
    }

    fn request<B>(&self, method: Method, path: &str, body: B) -> Result<Request<B>, ClientError> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "filed")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| self.broken(&error))
    }

    fn not_answered(&self, error: &hyper::Error) -> ClientError {
        if hung_up(error) {
            return ClientError::Busy {
                error: format!(
                    "{}: the service hung up: it ends, or has too many clients",
                    self.shown()
                ),
                after: Duration::from_secs(1),
            };
        }
        self.broken(error)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        response: Response<Incoming>,
    ) -> Result<T, ClientError> {
        let response = self.check(response).await?;
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES);
        let collected = body.collect().await;
        let collected = collected.map_err(|error| ClientError::Broken {
            path: self.shown(),
            why: error.to_string(),
        })?;
        Ok(collected.to_bytes())
    }

    /// Tells a refusal from an answer.
    async fn check(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = self.collect(response).await?;
        let failure = serde_json::from_slice(&bytes).unwrap_or_else(|_| Failure {
            // What axum says of a request that it could not read is plain text.
            error: match String::from_utf8_lossy(&bytes).trim() {
                "" => format!("the service answered {status}"),
                text => text.to_owned(),
            },
            hint: None,
        });
        Err(match status {
            StatusCode::FORBIDDEN => ClientError::NotYours(failure.error),
            StatusCode::SERVICE_UNAVAILABLE => ClientError::Busy {
                error: failure.error,
                after: Duration::from_secs(after.unwrap_or(1)),
            },
            status => ClientError::Refused {
                status,
                error: failure.error,
                hint: failure.hint,
            },
        })
    }

    fn not_reached(&self, error: &io::Error) -> ClientError {
        let path = self.shown();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { path }
            }
            io::ErrorKind::PermissionDenied => ClientError::NoPermission { path },
            _ => self.broken(error),
        }
    }

    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Broken {
            path: self.shown(),
            why: crate::store::error::Chain(error).to_string(),
        }
    }

    fn shown(&self) -> String {
        crate::store::show_path(&self.path).to_string()
    }
}

/// Whether the other end went away before it had answered.
fn hung_up(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    let gone = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    error.is_incomplete_message()
        || error.is_canceled()
        || io.is_some_and(|io| gone.contains(&io.kind()))
}

/// Reads `content` into parts of a body. An error of it stands in `unread` before the body breaks off.
fn feed(
    mut content: Box<dyn Read + Send>,
    parts: &mpsc::Sender<io::Result<Bytes>>,
    unread: &Mutex<Option<io::Error>>,
) {
    loop {
        let mut part = vec![0; PART_BYTES];
        let read = match content.read(&mut part) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                *unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // The service must not take what it has for the whole.
                let _ = parts.blocking_send(Err(io::Error::other("broken off")));
                return;
            }
        };
        part.truncate(read);
        if read == 0 || parts.blocking_send(Ok(Bytes::from(part))).is_err() {
            return;
        }
    }
}

/// Whether there is something at this path, or may be: who may not look must not take it for nothing.
fn may_be_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// Text as it stands in the query of a path: what is not plain becomes `%HH`.
fn in_query(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                quoted.push(char::from(byte));
            }
            _ => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

/// How long ago that was.
fn ago(ns: i64) -> String {
    let passed_ns = now_ns().saturating_sub(ns).max(0);
    let seconds = passed_ns / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_every_byte() {
        assert_eq!(in_query("/a b&c=ä\\x0a"), "/a%20b%26c%3D%C3%A4%5Cx0a");
    }
}
