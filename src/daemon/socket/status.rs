//! How the service is, and what may be said to all of it.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use tokio::sync::oneshot;

use super::Desktop;
use super::reply::{Answer, Refusal};
use super::wire::{Change, Done, Given, Heap, InWork, Inbox, JobCounts, Memory, Scrub, Status};
use crate::daemon::inbox::InboxStats;
use crate::daemon::service::Service;
use crate::daemon::service::board;
use crate::daemon::service::control::Order;
use crate::daemon::service::desk::Flow;
use crate::daemon::service::reload::Reloaded;
use crate::pipeline::scrub::{PauseFor, ScrubStatus};
use crate::store::show_path;

pub(super) async fn status(State(desktop): State<Desktop>) -> Answer<Json<Status>> {
    desktop
        .blocking(|service| Ok(Json(status_of(service)?)))
        .await
}

/// How the service is at this moment.
fn status_of(service: &Service) -> Answer<Status> {
    let shown = service.board.read();
    let counts = service.desk.counts()?;
    let progress = &service.progress;
    let heap = service.heap.now();
    Ok(Status {
        v: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        store: show_path(service.store.root()).to_string(),
        started_ns: shown.started_ns,
        configured_ns: shown.configured_ns,
        flow: match service.desk.flow() {
            Flow::Open => "open",
            Flow::Paused => "paused",
            Flow::Draining => "draining",
        }
        .to_owned(),
        problem: shown.problem.clone(),
        memory: Memory {
            mode: shown.mode.to_string(),
            mode_since_ns: shown.mode_since_ns,
            why: shown.changes.back().map(|change| change.why.clone()),
            level: format!("{:?}", shown.level).to_lowercase(),
            resident_bytes: shown.resident_bytes,
            anonymous_bytes: shown.anonymous_bytes,
            threshold_bytes: shown.thresholds.threshold_bytes(),
            limit_bytes: shown.thresholds.limit_bytes(),
            limits: shown.limits.clone(),
            workers: service.limits.workers() as u64,
            workers_planned: shown.plan.workers as u64,
            owners: service.owners(shown.resident_bytes),
            changes: shown.changes.iter().map(change).collect(),
            trims: given(shown.trims),
            collections: given(shown.collections),
            other: given(shown.other),
        },
        jobs: JobCounts {
            queued: counts.queued,
            running: counts.running,
            stored: counts.stored,
            failed: counts.failed,
        },
        in_work: service
            .desk
            .in_work()
            .into_iter()
            .map(|in_work| InWork {
                what: show_path(&in_work.what).to_string(),
                seconds: in_work.for_.as_secs_f64(),
            })
            .collect(),
        done: Done {
            files: progress.files.load(Ordering::Relaxed),
            bytes: progress.done_bytes.load(Ordering::Relaxed),
            new_bytes: progress.new_bytes.load(Ordering::Relaxed),
            stored_bytes: progress.stored_bytes.load(Ordering::Relaxed),
            bytes_per_second: shown.bytes_per_second,
        },
        heap: Heap {
            objects: heap.live_objects,
            held_bytes: heap.held_bytes,
            collections: heap.collections,
            collected: heap.collected,
            longest_pause_seconds: heap.longest_pause.as_secs_f64(),
        },
        scrub: scrub(&service.scrub.status()),
        inboxes: (service.inboxes.get())
            .map(|inboxes| inboxes.stats().iter().map(inbox).collect())
            .unwrap_or_default(),
    })
}

fn change(change: &board::ModeChange) -> Change {
    Change {
        at_ns: change.at_ns,
        from: change.from.to_string(),
        to: change.to.to_string(),
        why: change.why.clone(),
        freed_bytes: change.freed_bytes,
    }
}

fn scrub(status: &ScrubStatus) -> Scrub {
    Scrub {
        state: format!("{:?}", status.state).to_lowercase(),
        pass_began_ns: status.pass_began_ns,
        checked_bytes: status.checked_bytes,
        total_bytes: status.pass_total_bytes,
        last_pass_seconds: status.last_pass.map(|took| took.as_secs_f64()),
        last_pass_ended_ns: status.last_pass_ended_ns,
        expected_pass_seconds: status.expected_pass.map(|took| took.as_secs_f64()),
        read_bytes: status.read_bytes,
        damaged_places: status.damage.open,
        replaced_places: status.damage.replaced,
    }
}

fn inbox(stats: &InboxStats) -> Inbox {
    Inbox {
        path: show_path(&stats.path).to_string(),
        waiting: stats.waiting,
        submitted: stats.submitted,
        stored: stats.stored,
        failed: stats.failed,
        last_success_ns: stats.last_success_ns,
        last_error: stats.last_error.clone(),
        overflows: stats.overflows,
    }
}

fn given(given: board::Given) -> Given {
    Given {
        count: given.count,
        bytes: given.bytes,
        last_ns: given.last_ns,
        last_bytes: given.last_bytes,
    }
}

/// Whoever can answer this is alive.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Whether files that come in now are taken in.
pub(super) async fn ready(State(desktop): State<Desktop>) -> Answer<&'static str> {
    let service = &desktop.service;
    match service.desk.flow() {
        Flow::Draining => return Err(Refusal::busy("the service is ending", 5)),
        Flow::Paused => return Err(Refusal::busy("the service is paused", 5)),
        Flow::Open => {}
    }
    match service.board.read().problem {
        Some(problem) => Err(Refusal::busy(problem, 5)),
        None => Ok("ready\n"),
    }
}

pub(super) async fn pause(State(desktop): State<Desktop>) -> StatusCode {
    desktop.service.desk.set_flow(Flow::Paused);
    desktop.service.scrub.pause(PauseFor::Request, true);
    tracing::info!("paused, as a client asked for");
    StatusCode::NO_CONTENT
}

pub(super) async fn resume(State(desktop): State<Desktop>) -> StatusCode {
    desktop.service.desk.set_flow(Flow::Open);
    desktop.service.scrub.pause(PauseFor::Request, false);
    tracing::info!("resumed, as a client asked for");
    StatusCode::NO_CONTENT
}

pub(super) async fn reload(State(desktop): State<Desktop>) -> Answer<Json<Reloaded>> {
    let (reply, answer) = oneshot::channel();
    desktop.give(Order::Reload(reply))?;
    match answer.await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(why)) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Refusal::new(status, why).hint("the configuration before it stays in force"))
        }
        Err(_) => Err(Refusal::busy("the service is ending", 5)),
    }
}

pub(super) async fn stop(State(desktop): State<Desktop>) -> Answer<StatusCode> {
    desktop.give(Order::Stop)?;
    Ok(StatusCode::ACCEPTED)
}

/// What the paths are, for people and for programs that make clients.
pub(super) async fn openapi() -> impl IntoResponse {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, include_str!("openapi.json"))
}
