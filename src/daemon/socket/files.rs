//! Files: which there are, one streamed in, one streamed out.
//!
//! What is streamed goes through buffers of a pool of its own, a chunk at a time, and whoever is faster
//! waits for the other: a stream of any length takes the same memory. A stream in is stored whole or not
//! at all; of a stream out every byte is proved before it leaves.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Json};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::asked::InQuery;
use super::reply::{Answer, Refusal};
use super::rights::Peer;
use super::wire::{Stored, Version, VersionList};
use super::{Desktop, unescape};
use crate::daemon::service::Service;
use crate::daemon::service::desk::Flow;
use crate::heap::{Buffer, Trim};
use crate::pipeline::restore::{Output, RestoreError, give_out};
use crate::pipeline::{
    Blame, CHUNK_BYTES, FileReport, Giving, Progress, Status, Stop, Taking, handing,
};
use crate::store::catalog::VersionRow;
use crate::store::error::Chain;
use crate::store::lists::PackLists;
use crate::store::{FileName, StoreError, hex};

/// Versions that one answer lists at most.
const PAGE: u32 = 1000;

/// Whoever streams in may pause this long: a dump that builds an index sends nothing for a while.
const READ_PATIENCE: Duration = Duration::from_secs(300);

/// What nobody wants of a body is read for so long.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// A stream out waits this long for its place.
const PLACE_PATIENCE: Duration = Duration::from_secs(1);

/// Lists of packs kept while a stream goes out, in bytes.
const LIST_BYTES: u64 = 512 << 10;

/// What is streamed out goes in parts of this many bytes.
const PART_BYTES: usize = 256 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<String>,
    limit: Option<u32>,
}

/// The stored files with their newest versions.
pub(super) async fn list(
    State(desktop): State<Desktop>,
    InQuery(page): InQuery<After>,
) -> Answer<Json<VersionList>> {
    let after = page.after.as_deref().map(unescape).transpose()?;
    let most = page.limit.unwrap_or(100).clamp(1, PAGE);
    desktop
        .blocking(move |service| {
            let database = service.store.database();
            let rows = database.files_after(after.as_ref(), most)?;
            let more = rows.len() == most as usize;
            let versions = rows.into_iter().map(|(row, versions)| Version {
                versions: Some(versions),
                ..shown(&row)
            });
            let versions = versions.collect();
            Ok(Json(VersionList { versions, more }))
        })
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfFile {
    name: String,
    after: Option<u64>,
    limit: Option<u32>,
}

/// The versions of a file.
pub(super) async fn versions(
    State(desktop): State<Desktop>,
    InQuery(page): InQuery<OfFile>,
) -> Answer<Json<VersionList>> {
    let name = unescape(&page.name)?;
    let most = page.limit.unwrap_or(100).clamp(1, PAGE);
    let after = page.after.unwrap_or(0);
    desktop
        .blocking(move |service| {
            let database = service.store.database();
            let rows = database.versions_after(&name, after, most)?;
            if rows.is_empty() && after == 0 {
                return Err(not_stored(&name, None).into());
            }
            let more = rows.len() == most as usize;
            let versions = rows.iter().map(shown).collect();
            Ok(Json(VersionList { versions, more }))
        })
        .await
}

fn shown(row: &VersionRow) -> Version {
    Version {
        name: row.name.to_string(),
        version: row.number,
        size_bytes: row.size_bytes,
        digest: hex(&row.digest),
        read_at_ns: row.read_at_ns,
        new_bytes: row.new_bytes,
        stored_bytes: row.stored_bytes,
        versions: None,
    }
}

fn not_stored(name: &FileName, number: Option<u64>) -> StoreError {
    StoreError::NotStored {
        what: match number {
            Some(number) => format!("version {number} of {name}"),
            None => name.to_string(),
        },
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    name: String,
    version: Option<u64>,
}

/// Streams a file in.
pub(super) async fn put(
    State(desktop): State<Desktop>,
    InQuery(content): InQuery<Content>,
    body: Body,
) -> Answer<(StatusCode, Json<Stored>)> {
    let (giving, taking) = handing();
    let begun = match begin(&desktop, &content, taking) {
        Ok(begun) => begun,
        Err(refusal) => {
            drain(body).await;
            return Err(refusal);
        }
    };
    let (place, answer, stop) = begun;
    // Whatever becomes of this request, its stream ends with it.
    let mut abandon = Abandon(Some(stop));
    let (parts, coming) = mpsc::channel(2);
    let service = Arc::clone(&desktop.service);
    let pump = tokio::task::spawn_blocking(move || pump(&service, coming, giving, place));
    let sent = send(body, &parts).await;
    if sent.is_ok() {
        // Nobody listens any more if the stream has failed.
        let _ = parts.send(Part::End).await;
    }
    drop(parts);
    let pumped = pump.await;
    let report = answer.await;
    abandon.0 = None;
    sent?;
    if let Ok(Err(why)) = pumped {
        return Err(Refusal::busy(why, 1));
    }
    let report = report.map_err(|_| Refusal::busy("the service is ending", 5))?;
    stored(&report)
}

type Begun = (
    OwnedSemaphorePermit,
    oneshot::Receiver<FileReport>,
    Arc<Stop>,
);

/// Finds a place for a stream and hands it in.
fn begin(desktop: &Desktop, content: &Content, taking: Taking) -> Answer<Begun> {
    if content.version.is_some() {
        return Err(Refusal::bad("a new version gets its number from the store"));
    }
    let name = unescape(&content.name)?;
    let place = Arc::clone(&desktop.uploads).try_acquire_owned();
    let full = |_| Refusal::busy("as many streams come in as there is room for", 1);
    let place = place.map_err(full)?;
    let refused = |flow| match flow {
        Flow::Paused => Refusal::busy("the service is paused", 5),
        _ => Refusal::busy("the service is ending", 5),
    };
    let uploaded = desktop.service.desk.upload(name, taking);
    let (answer, stop) = uploaded.map_err(refused)?;
    Ok((place, answer, stop))
}

/// Reads on for a moment what nobody wants: whoever still writes when its connection is closed may never
/// see the answer that says why.
pub(super) async fn drain(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DRAIN_PATIENCE, rest).await;
}

/// Stops a stream whose request has gone.
struct Abandon(Option<Arc<Stop>>);

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.request();
        }
    }
}

fn stored(report: &FileReport) -> Answer<(StatusCode, Json<Stored>)> {
    if report.status != Status::Stored {
        let why = report.error.clone().unwrap_or_default();
        return Err(match report.blame {
            Blame::Store => Refusal::new(StatusCode::INSUFFICIENT_STORAGE, why),
            Blame::Stop => Refusal::busy(why, 5),
            Blame::File => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why),
        });
    }
    let name = report.name.as_ref();
    Ok((
        StatusCode::CREATED,
        Json(Stored {
            name: name.map(FileName::to_string).unwrap_or_default(),
            version: report.version,
            size_bytes: report.size_bytes,
            new_bytes: report.new_bytes,
            stored_bytes: report.stored_bytes,
            digest: report.digest.as_ref().map(|digest| hex(digest)),
        }),
    ))
}

/// Part of a stream that comes in.
enum Part {
    Bytes(Bytes),
    /// All of it has come.
    End,
}

/// Passes a request's body on as it comes.
async fn send(mut body: Body, parts: &mpsc::Sender<Part>) -> Answer<()> {
    loop {
        let frame = match tokio::time::timeout(READ_PATIENCE, body.frame()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(_) => {
                let why = "nothing came for too long: nothing of it is stored";
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, why));
            }
        };
        let frame = frame.map_err(|error| Refusal::bad(error.to_string()))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if parts.send(Part::Bytes(bytes)).await.is_err() {
            // The stream has failed; its report says why.
            drain(body).await;
            return Ok(());
        }
    }
}

/// Gathers what comes into chunks, and hands them in. On a thread of its own: it waits for memory and for
/// the data plane.
fn pump(
    service: &Service,
    mut coming: mpsc::Receiver<Part>,
    giving: Giving,
    _place: OwnedSemaphorePermit,
) -> Result<(), &'static str> {
    let account = service.transfers.account("uploads");
    let mut chunk: Option<(Buffer, usize)> = None;
    let hand_in = |buffer, filled| {
        let given = giving.give(buffer, filled).is_ok();
        service.bell.ring();
        given
    };
    loop {
        match coming.blocking_recv() {
            Some(Part::Bytes(mut bytes)) => {
                while !bytes.is_empty() {
                    let (mut buffer, filled) = match chunk.take() {
                        Some(chunk) => chunk,
                        None => match account.take(CHUNK_BYTES) {
                            Ok(buffer) => (buffer, 0),
                            Err(_) => return Err("there is no memory for the stream"),
                        },
                    };
                    let part = bytes.split_to(bytes.len().min(CHUNK_BYTES - filled));
                    buffer[filled..filled + part.len()].copy_from_slice(&part);
                    let filled = filled + part.len();
                    if filled < CHUNK_BYTES {
                        chunk = Some((buffer, filled));
                    } else if !hand_in(buffer, filled) {
                        // Its report says why.
                        return Ok(());
                    }
                }
            }
            Some(Part::End) => {
                if let Some((buffer, filled)) = chunk.take()
                    && !hand_in(buffer, filled)
                {
                    return Ok(());
                }
                giving.finish();
                break;
            }
            // The request is gone: so is the stream.
            None => break,
        }
    }
    service.bell.ring();
    service.transfers.trim(Trim::All, std::time::Instant::now());
    Ok(())
}

/// Places for streams out. Of those who may only look, one has to give its place up as soon as somebody
/// needs it who may change things: who takes a byte now and then could keep it for ever.
pub(super) struct Downloads {
    places: Arc<Semaphore>,
    /// Cuts the stream off that goes out to somebody who may only look.
    cut: Mutex<Option<Arc<Notify>>>,
}

/// A place for a stream out, and what cuts the stream off.
struct Download {
    cut: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Downloads {
    pub(super) fn new(places: usize) -> Downloads {
        Downloads {
            places: Arc::new(Semaphore::new(places)),
            cut: Mutex::default(),
        }
    }

    async fn place(&self, may_change: bool) -> Answer<Download> {
        if may_change && let Some(cut) = self.cut().take() {
            cut.notify_one();
        }
        let full = || Refusal::busy("another stream goes out: there is memory for one", 2);
        // The one before may be through, and about to give its place back.
        let place = Arc::clone(&self.places).acquire_owned();
        let place = tokio::time::timeout(PLACE_PATIENCE, place).await;
        let place = place.map_err(|_| full())?.map_err(|_| full())?;
        let cut = Arc::new(Notify::new());
        *self.cut() = (!may_change).then(|| Arc::clone(&cut));
        Ok(Download { cut, _place: place })
    }

    fn cut(&self) -> MutexGuard<'_, Option<Arc<Notify>>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams a file, or a part of it, out.
pub(super) async fn get(
    State(desktop): State<Desktop>,
    InQuery(content): InQuery<Content>,
    peer: Option<Extension<Peer>>,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let name = unescape(&content.name)?;
    let number = content.version;
    let row = desktop
        .blocking(move |service| {
            let database = service.store.database();
            let row = match number {
                Some(number) => database.version(&name, number)?,
                None => database.latest(&name)?,
            };
            row.ok_or_else(|| not_stored(&name, number).into())
        })
        .await?;
    let tag = format!("\"{}\"", hex(&row.digest));
    // A part of what has changed since fits to nothing that the client has. A date never says that it has not.
    let same = (headers.get(header::IF_RANGE)).is_none_or(|of| of.as_bytes() == tag.as_bytes());
    let part = match headers.get(header::RANGE) {
        Some(range) if same && method == Method::GET => parse_range(range, row.size_bytes)?,
        _ => None,
    };
    let mut answer = Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, tag)
        .header("x-filed-version", row.number);
    let (first, length) = match part {
        Some((first, last)) => {
            let range = format!("bytes {first}-{last}/{}", row.size_bytes);
            answer = answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, range);
            (first, last - first + 1)
        }
        None => (0, row.size_bytes),
    };
    answer = answer.header(header::CONTENT_LENGTH, length);
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let owner = rustix::process::geteuid().as_raw();
        let may_change = peer.is_some_and(|Extension(peer)| peer.may_change(owner));
        let download = desktop.downloads.place(may_change).await?;
        Body::new(stream_out(&desktop, row, first, length, download))
    };
    let answer = answer.body(body);
    answer.map_err(|error| Refusal::bad(error.to_string()))
}

/// Streams so many bytes of a version out on a thread beside.
fn stream_out(
    desktop: &Desktop,
    row: VersionRow,
    first: u64,
    length: u64,
    download: Download,
) -> Piped {
    let (parts, body) = mpsc::channel(1);
    let service = Arc::clone(&desktop.service);
    tokio::task::spawn_blocking(move || {
        let outcome = give(&service, &row, first, length, &parts, &download.cut);
        if let Err(error) = outcome {
            tracing::warn!(
                name = %row.name,
                version = row.number,
                error = %Chain(&error),
                "a stream out was broken off"
            );
            // The client must not take what it has for the whole. It may not take this either.
            let _ = parts.try_send(Err(io::Error::other("broken off")));
        }
        service.transfers.trim(Trim::All, std::time::Instant::now());
        drop(download);
    });
    Piped(body)
}

fn give(
    service: &Service,
    row: &VersionRow,
    first: u64,
    length: u64,
    parts: &mpsc::Sender<io::Result<Bytes>>,
    cut: &Notify,
) -> Result<(), RestoreError> {
    let version = service.store.version(row.place)?;
    let lists = PackLists::new(&service.store, LIST_BYTES);
    let mut writer = Parts {
        parts,
        cut,
        runtime: Handle::current(),
        gathered: Vec::with_capacity(PART_BYTES),
    };
    let progress = Progress::default();
    give_out(
        &service.store,
        &lists,
        &version,
        &service.transfers,
        1,
        &service.stop,
        &progress,
        (first > 0 || length < row.size_bytes).then(|| first..first + length),
        Output::Stream(&mut writer),
    )?;
    writer.send().map_err(RestoreError::Write)
}

/// Writes to the body of an answer. The last part stays here until somebody [sends](Parts::send) it: with it
/// the client has all that it was promised, and only at the end is it known whether that is right.
struct Parts<'a> {
    parts: &'a mpsc::Sender<io::Result<Bytes>>,
    cut: &'a Notify,
    runtime: Handle,
    gathered: Vec<u8>,
}

impl Parts<'_> {
    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.gathered, Vec::with_capacity(PART_BYTES));
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.cut.notified() => {
                    Err(io::Error::other("its place is needed by somebody who may change things"))
                }
                sent = self.parts.send(Ok(Bytes::from(part))) => {
                    sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
                }
            }
        })
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.len() == PART_BYTES {
            self.send()?;
        }
        let room = PART_BYTES - self.gathered.len();
        let taken = bytes.len().min(room);
        self.gathered.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first and last byte that a range asks for; none if it is to be ignored, as the standard has it for
/// units and forms that a server does not know (RFC 9110, section 14.2).
fn parse_range(range: &HeaderValue, size_bytes: u64) -> Answer<Option<(u64, u64)>> {
    let Some(range) = range
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("bytes="))
    else {
        return Ok(None);
    };
    let Some((first, last)) = range.split_once('-') else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    // What is too large for a number is behind the end of any file.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let end = size_bytes.checked_sub(1);
    let (begin, until) = match (number(first), number(last)) {
        (Some(begin), Some(until)) if begin <= until => (begin, until),
        (Some(begin), None) if last.is_empty() => (begin, u64::MAX),
        // The last so many bytes; of none there is no part.
        (None, Some(count)) if first.is_empty() => match size_bytes.min(count) {
            0 => (u64::MAX, u64::MAX),
            count => (size_bytes - count, u64::MAX),
        },
        // Several ranges, for one.
        _ => return Ok(None),
    };
    match end {
        Some(end) if begin <= end => Ok(Some((begin, until.min(end)))),
        _ => Err(Refusal::no_such_part(size_bytes)),
    }
}

/// A body of what another task sends.
pub struct Piped(pub mpsc::Receiver<io::Result<Bytes>>);

impl HttpBody for Piped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let coming = self.0.poll_recv(context);
        coming.map(|part| part.map(|part| part.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, size_bytes: u64) -> Result<Option<(u64, u64)>, ()> {
        parse_range(&HeaderValue::from_str(text).unwrap(), size_bytes).map_err(drop)
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    #[test]
    fn who_may_only_look_gives_its_place_to_who_may_change_things() {
        runtime().block_on(async {
            let downloads = Downloads::new(1);
            let looks = downloads.place(false).await.unwrap();
            // Others who may only look wait, in vain.
            downloads.place(false).await.map(drop).unwrap_err();
            let holder = tokio::spawn(async move {
                looks.cut.notified().await;
                drop(looks);
            });
            let changes = downloads.place(true).await.unwrap();
            holder.await.unwrap();
            // Among those who may change things nobody takes anybody's place.
            downloads.place(true).await.map(drop).unwrap_err();
            drop(changes);
            downloads.place(false).await.unwrap();
        });
    }

    #[test]
    fn a_stream_that_is_cut_off_ends_though_nobody_takes_anything() {
        let runtime = runtime();
        let (parts, mut body) = mpsc::channel(1);
        let cut = Notify::new();
        let mut writer = Parts {
            parts: &parts,
            cut: &cut,
            runtime: runtime.handle().clone(),
            gathered: Vec::new(),
        };
        writer.write_all(&[1; PART_BYTES]).unwrap();
        // It may be the last: it stays until it is sent on purpose, or more comes.
        body.try_recv().unwrap_err();
        writer.write_all(&[2; PART_BYTES]).unwrap();
        let sent = body.try_recv().unwrap().unwrap();
        assert_eq!(sent, vec![1; PART_BYTES]);
        writer.send().unwrap();
        writer.write_all(&[3]).unwrap();
        cut.notify_one();
        let error = writer.send().unwrap_err();
        assert!(error.to_string().contains("its place is needed"));
    }

    #[test]
    fn ranges_are_read_as_the_standard_has_them() {
        assert_eq!(range("bytes=0-9", 100), Ok(Some((0, 9))));
        assert_eq!(range("bytes=90-", 100), Ok(Some((90, 99))));
        assert_eq!(range("bytes=90-500", 100), Ok(Some((90, 99))));
        assert_eq!(range("bytes=-10", 100), Ok(Some((90, 99))));
        assert_eq!(range("bytes=-500", 100), Ok(Some((0, 99))));
        assert_eq!(range("bytes=100-", 100), Err(()));
        assert_eq!(range("bytes=-0", 100), Err(()));
        assert_eq!(range("bytes=0-0", 0), Err(()));
        let large = "99999999999999999999";
        assert_eq!(range(&format!("bytes=90-{large}"), 100), Ok(Some((90, 99))));
        assert_eq!(range(&format!("bytes=-{large}"), 100), Ok(Some((0, 99))));
        assert_eq!(range(&format!("bytes={large}-"), 100), Err(()));
        assert_eq!(range("bytes=-5", 0), Err(()));
        for ignored in [
            "lines=1-2",
            "bytes=",
            "bytes=9-3",
            "bytes=-",
            "bytes=x-y",
            "bytes=5-x",
            "bytes=+5-9",
            "bytes=10-20,0-5",
            "bytes=0-5,-5",
        ] {
            assert_eq!(range(ignored, 100), Ok(None), "{ignored}");
        }
    }
}
