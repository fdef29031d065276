//! Jobs: handing them in, looking at them, giving them up.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::Piped;
use super::asked::{InPath, InQuery, Sent};
use super::reply::{Answer, Refusal};
use super::wire::{Job, JobEvent, JobList, Submit, SubmitAnswer, SubmitPath, Submitted};
use super::{Desktop, unescape};
use crate::daemon::jobs::{self, Accepted, JobId, NewJob, State as JobState};
use crate::daemon::service::Service;
use crate::daemon::service::desk::Flow;
use crate::pipeline::{Found, Input, Walk};
use crate::store::show_path;

/// Jobs that one answer lists at most.
const PAGE: u32 = 1000;

/// Files of a folder that are submitted together.
const BATCH: usize = 256;

/// A watcher hears something this often, so that it knows that the service is there.
const BEAT: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    state: Option<String>,
    before: Option<JobId>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(desktop): State<Desktop>,
    InQuery(which): InQuery<Which>,
) -> Answer<Json<JobList>> {
    let state = which.state.as_deref().map(state_of).transpose()?;
    let most = which.limit.unwrap_or(100).clamp(1, PAGE);
    let before = which.before.unwrap_or(JobId::MAX);
    desktop
        .blocking(move |service| {
            let jobs = service.desk.jobs().list(state, before, most)?;
            let last = jobs.last().map(|job| job.id);
            Ok(Json(JobList {
                before: last.filter(|_| jobs.len() == most as usize),
                jobs: jobs.iter().map(shown).collect(),
            }))
        })
        .await
}

fn state_of(text: &str) -> Answer<JobState> {
    let found = jobs::STATES.iter().find(|state| state.name() == text);
    found.copied().ok_or_else(|| {
        Refusal::bad("there is no such state").hint("one of: queued, running, stored, failed")
    })
}

pub(super) async fn show(
    State(desktop): State<Desktop>,
    InPath(id): InPath<JobId>,
) -> Answer<Json<Job>> {
    desktop
        .blocking(move |service| {
            let job = service.desk.jobs().get(id)?;
            let job = job.ok_or_else(|| no_job(id))?;
            Ok(Json(shown(&job)))
        })
        .await
}

pub(super) async fn cancel(
    State(desktop): State<Desktop>,
    InPath(id): InPath<JobId>,
) -> Answer<StatusCode> {
    desktop
        .blocking(move |service| {
            if service.desk.cancel(id)? {
                return Ok(StatusCode::ACCEPTED);
            }
            Err(not_possible(service, id, "it has ended already")?)
        })
        .await
}

pub(super) async fn retry(
    State(desktop): State<Desktop>,
    InPath(id): InPath<JobId>,
) -> Answer<StatusCode> {
    desktop
        .blocking(move |service| {
            if service.desk.retry(id)? {
                return Ok(StatusCode::ACCEPTED);
            }
            let why = "only a job that failed or waits for its next attempt can be tried again, and \
                       only while its path has no other job";
            Err(not_possible(service, id, why)?)
        })
        .await
}

fn no_job(id: JobId) -> Refusal {
    Refusal::missing(format!("there is no job {id}"))
}

/// Why something cannot be done with a job that may not be there at all.
fn not_possible(service: &Service, id: JobId, why: &str) -> Answer<Refusal> {
    Ok(match service.desk.jobs().get(id)? {
        None => no_job(id),
        Some(_) => Refusal::new(StatusCode::CONFLICT, format!("job {id}: {why}")),
    })
}

fn shown(job: &jobs::Job) -> Job {
    Job {
        id: job.id,
        state: job.state.name().to_owned(),
        priority: job.priority,
        path: show_path(&job.path).to_string(),
        origin: job.origin.clone(),
        submitted_ns: job.submitted_ns,
        due_ns: job.due_ns,
        started_ns: job.started_ns,
        ended_ns: job.ended_ns,
        attempts: job.attempts,
        size_bytes: job.outcome.size_bytes,
        new_bytes: job.outcome.new_bytes,
        stored_bytes: job.outcome.stored_bytes,
        version: job.outcome.version,
        reason: job.reason.clone(),
    }
}

pub(super) async fn submit(
    State(desktop): State<Desktop>,
    Sent(submit): Sent<Submit>,
) -> Answer<Json<SubmitAnswer>> {
    if desktop.service.desk.flow() == Flow::Draining {
        return Err(Refusal::busy("the service is ending", 5));
    }
    desktop
        .blocking(move |service| {
            let mut submitted = Vec::with_capacity(submit.paths.len());
            let mut files = Vec::new();
            // Files are submitted together; their answers come in the order of their paths.
            for wanted in &submit.paths {
                let name = unescape(&wanted.path)?;
                let path = PathBuf::from(name.as_path());
                if !path.is_absolute() {
                    let why = format!("{}: not an absolute path", wanted.path);
                    return Err(Refusal::bad(why));
                }
                let mut answer = Submitted {
                    path: wanted.path.clone(),
                    ..Submitted::default()
                };
                match seen(&path, wanted) {
                    Err(why) => answer.unseen = Some(why),
                    Ok(Kind::Folder) => walk(service, path, submit.priority, &mut answer)?,
                    Ok(Kind::File) => files.push((submitted.len(), path)),
                    Ok(Kind::Other) => answer.skipped = 1,
                }
                submitted.push(answer);
            }
            let jobs: Vec<NewJob> = (files.iter())
                .map(|(_, path)| new_job(path.clone(), submit.priority))
                .collect();
            let accepted = service.desk.submit(&jobs)?;
            for ((at, _), accepted) in files.iter().zip(accepted) {
                count(&mut submitted[*at], accepted);
                if let Accepted::Queued(id) | Accepted::Already(id) = accepted {
                    submitted[*at].id = Some(id);
                }
            }
            Ok(Json(SubmitAnswer { submitted }))
        })
        .await
}

fn new_job(path: PathBuf, priority: i32) -> NewJob {
    NewJob {
        path,
        priority,
        origin: "submit".to_owned(),
        due_ns: 0,
    }
}

fn count(answer: &mut Submitted, accepted: Accepted) {
    match accepted {
        Accepted::Queued(_) => answer.queued += 1,
        Accepted::Already(_) => answer.already += 1,
        Accepted::Full => answer.refused += 1,
    }
}

enum Kind {
    File,
    Folder,
    Other,
}

/// What the service sees at a path, if it is what the client sees and can be read.
fn seen(path: &Path, wanted: &SubmitPath) -> Result<Kind, String> {
    let metadata = path.symlink_metadata().map_err(|error| error.to_string())?;
    let differs = |seen: u64, wanted: Option<u64>| wanted.is_some_and(|wanted| wanted != seen);
    if differs(metadata.dev(), wanted.device) || differs(metadata.ino(), wanted.inode) {
        return Err("the service sees another file there".to_owned());
    }
    if metadata.is_dir() {
        let readable = std::fs::read_dir(path).map_err(|error| error.to_string());
        return readable.map(|_| Kind::Folder);
    }
    if !metadata.is_file() {
        return Ok(Kind::Other);
    }
    let opened = std::fs::File::open(path).map_err(|error| error.to_string());
    opened.map(|_| Kind::File)
}

/// Submits all files below a folder.
fn walk(service: &Service, path: PathBuf, priority: i32, answer: &mut Submitted) -> Answer<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let input = Input::Path { path, name: None };
    for found in Walk::new(vec![input], service.store.root()) {
        match found {
            Found::File { path, .. } => batch.push(new_job(path, priority)),
            _ => answer.skipped += 1,
        }
        if batch.len() == BATCH {
            flush(service, &mut batch, answer)?;
        }
    }
    flush(service, &mut batch, answer)
}

fn flush(service: &Service, batch: &mut Vec<NewJob>, answer: &mut Submitted) -> Answer<()> {
    for accepted in service.desk.submit(batch)? {
        count(answer, accepted);
    }
    batch.clear();
    Ok(())
}

/// Tells what happens to jobs as it happens, as server-sent events.
pub(super) async fn events(State(desktop): State<Desktop>) -> Response {
    let mut news = desktop.service.desk.watch();
    let (lines, body) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let text = tokio::select! {
                heard = news.recv() => match heard {
                    Ok(news) => {
                        let event = JobEvent {
                            id: news.id,
                            state: news.state.name().to_owned(),
                        };
                        let json = serde_json::to_string(&event).unwrap_or_default();
                        format!("event: job\ndata: {json}\n\n")
                    }
                    // Whoever is slow looks at the list again.
                    Err(RecvError::Lagged(missed)) => {
                        format!("event: missed\ndata: {{\"events\":{missed}}}\n\n")
                    }
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(BEAT) => ": the service is there\n\n".to_owned(),
                () = lines.closed() => return,
            };
            if lines.send(Ok(Bytes::from(text))).await.is_err() {
                return;
            }
        }
    });
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (kind, Body::new(Piped(body))).into_response()
}
