//! Memory: giving it back, and what is on the heap of the fingerprint cache.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Desktop;
use super::asked::InQuery;
use super::reply::{Answer, Refusal};
use crate::daemon::service::control::{Order, Trimmed};
use crate::daemon::timeline::MarkKind;
use crate::heap::{GroupBy, Heap, SiteCount, SiteGrowth, Snapshot, TypeGrowth};

/// Snapshots that are kept; of more, the oldest goes.
const SNAPSHOTS: usize = 8;

/// Allocation sites that an answer lists.
const SITES: usize = 20;

/// The cache's thread has this long to answer: it does so between two chunks.
const PATIENCE: Duration = Duration::from_secs(30);

/// Snapshots of the heap, with their numbers.
#[derive(Default)]
pub(super) struct Snapshots(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    last: u64,
    snapshots: VecDeque<(u64, Arc<Snapshot>)>,
}

impl Snapshots {
    fn add(&self, snapshot: Snapshot) -> u64 {
        let mut kept = self.lock();
        kept.last += 1;
        let number = kept.last;
        if kept.snapshots.len() == SNAPSHOTS {
            kept.snapshots.pop_front();
        }
        kept.snapshots.push_back((number, Arc::new(snapshot)));
        number
    }

    fn get(&self, number: u64) -> Answer<Arc<Snapshot>> {
        let kept = self.lock();
        let found = kept.snapshots.iter().find(|(known, _)| *known == number);
        let missing = || {
            Refusal::missing(format!("there is no snapshot {number}"))
                .hint(format!("the last {SNAPSHOTS} are kept"))
        };
        Ok(Arc::clone(&found.ok_or_else(missing)?.1))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desktop {
    /// Gives the control loop an order.
    pub(super) fn give(&self, order: Order) -> Answer<()> {
        if self.service.order(order) {
            return Ok(());
        }
        Err(Refusal::busy(
            "the service is too busy for this at the moment",
            1,
        ))
    }

    /// Looks at the heap for somebody who may only look: one at a time, for a look may walk all that is on
    /// the heap, on the thread that knows the pieces of files in work.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Heap) -> T + Send + 'static,
    ) -> Answer<T> {
        let place = Arc::clone(&self.looks).try_acquire_owned();
        let place = place.map_err(|_| Refusal::busy("somebody else looks at the heap", 1))?;
        self.examine(move |heap| {
            // The place is free when the work is done, not when nobody waits for it any more.
            let _place = place;
            look(heap)
        })
        .await
    }

    /// Does something with the heap on its thread.
    async fn examine<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Heap) -> T + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.give(Order::Examine(Box::new(move |heap| {
            // Whoever asked may have gone.
            if !reply.is_closed() {
                let _ = reply.send(look(heap));
            }
        })))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(seen)) => Ok(seen),
            _ => Err(Refusal::busy("the heap is in use and does not answer", 5)),
        }
    }
}

pub(super) async fn collect(State(desktop): State<Desktop>) -> Answer<Json<Value>> {
    let (objects, before_bytes, after_bytes) = desktop
        .examine(|heap| {
            let before = heap.held_bytes();
            let objects = heap.collect_critical();
            (objects, before, heap.held_bytes())
        })
        .await?;
    let freed_bytes = before_bytes.saturating_sub(after_bytes);
    let board = &desktop.service.board;
    board.mark(&MarkKind::Collection, freed_bytes);
    Ok(Json(json!({
        "collected": objects,
        "held_before_bytes": before_bytes,
        "held_after_bytes": after_bytes,
    })))
}

pub(super) async fn trim(State(desktop): State<Desktop>) -> Answer<Json<Trimmed>> {
    let (reply, answer) = oneshot::channel();
    desktop.give(Order::Trim(reply))?;
    let trimmed = answer.await;
    trimmed
        .map(Json)
        .map_err(|_| Refusal::busy("the service is ending", 5))
}

/// What is on the heap, by type.
pub(super) async fn census(State(desktop): State<Desktop>) -> Answer<Json<Value>> {
    let value = desktop
        .look(|heap| {
            let stats = heap.stats();
            let census = heap.census();
            let types = census.types().iter().map(|row| {
                json!({
                    "type": row.name,
                    "objects": row.objects,
                    "bytes": row.bytes,
                    "external_bytes": row.external_bytes,
                    "cyclic": row.cyclic,
                })
            });
            json!({
                "objects": census.objects(),
                "bytes": census.bytes(),
                "held_bytes": heap.held_bytes(),
                "overhead_bytes": heap.overhead_bytes(),
                "objects_by_generation": heap.objects_by_generation(),
                "frozen": heap.frozen_count(),
                "longest_pause_seconds": stats.longest_pause().as_secs_f64(),
                "total_pause_seconds": stats.total_pause().as_secs_f64(),
                "types": types.collect::<Vec<_>>(),
            })
        })
        .await?;
    Ok(Json(value))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    #[serde(default)]
    label: String,
}

/// Takes a snapshot and keeps it.
pub(super) async fn snapshot(
    State(desktop): State<Desktop>,
    InQuery(Label { label }): InQuery<Label>,
) -> Answer<(StatusCode, Json<Value>)> {
    if label.len() > 200 {
        return Err(Refusal::bad("a label has at most 200 bytes"));
    }
    let snapshot = desktop.examine(move |heap| heap.snapshot(&label)).await?;
    let mut shown = show(&snapshot);
    let number = desktop.snapshots.add(snapshot);
    shown["id"] = number.into();
    Ok((StatusCode::CREATED, Json(shown)))
}

/// The snapshots that are kept.
pub(super) async fn snapshots(State(desktop): State<Desktop>) -> Json<Value> {
    let kept = desktop.snapshots.lock();
    let all = kept.snapshots.iter().map(|(number, snapshot)| {
        let mut shown = show(snapshot);
        shown["id"] = (*number).into();
        shown
    });
    Json(json!({ "snapshots": all.collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Between {
    /// The earlier snapshot.
    since: u64,
    /// The later one; without it, the heap as it is now.
    to: Option<u64>,
}

/// What has changed between two snapshots.
pub(super) async fn compare(
    State(desktop): State<Desktop>,
    InQuery(Between { since, to }): InQuery<Between>,
) -> Answer<Json<Value>> {
    let earlier = desktop.snapshots.get(since)?;
    let later = match to {
        Some(to) => desktop.snapshots.get(to)?,
        None => Arc::new(desktop.look(|heap| heap.snapshot("now")).await?),
    };
    let compared = later.compare(&earlier, GroupBy::Line);
    let types = later.census.growth_since(&earlier.census);
    Ok(Json(json!({
        "since": show(&earlier),
        "to": show(&later),
        "types": types.iter().map(growth).collect::<Vec<_>>(),
        "grown": compared.grown(SITES).map(site_growth).collect::<Vec<_>>(),
        "shrunk": compared.shrunk(SITES).map(site_growth).collect::<Vec<_>>(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    since: u64,
}

/// What grew since a snapshot and what keeps it alive, and what only cycles hold.
pub(super) async fn leaks(
    State(desktop): State<Desktop>,
    InQuery(Since { since }): InQuery<Since>,
) -> Answer<Json<Value>> {
    let earlier = desktop.snapshots.get(since)?;
    let report = desktop.look(move |heap| heap.leaks(&earlier)).await?;
    let grown = report.grown.iter().map(|grown| {
        let mut row = growth(&grown.growth);
        row["held_by"] = (grown.held_by.iter())
            .map(|(objects, types)| json!({ "objects": objects, "types": types }))
            .collect();
        row
    });
    let cycles = report.cycles.iter().map(|cycle| {
        json!({
            "type": cycle.name,
            "objects": cycle.objects,
            "bytes": cycle.bytes,
            "finalizes": cycle.finalizes,
            "held_by": (cycle.held_by.iter())
                .map(|(name, handles)| json!({ "type": name, "handles": handles }))
                .collect::<Vec<_>>(),
        })
    });
    Ok(Json(json!({
        "grown": grown.collect::<Vec<_>>(),
        "sites": report.sites.iter().take(SITES).map(site_growth).collect::<Vec<_>>(),
        "cycles": cycles.collect::<Vec<_>>(),
    })))
}

fn show(snapshot: &Snapshot) -> Value {
    let sites = snapshot.top(GroupBy::Line, SITES);
    json!({
        "label": snapshot.label,
        "seconds_ago": snapshot.taken.elapsed().as_secs_f64(),
        "resident_bytes": snapshot.resident_bytes,
        "held_bytes": snapshot.held_bytes,
        "peak_bytes": snapshot.peak_bytes,
        "objects": snapshot.census.objects(),
        "sites": sites.iter().map(site).collect::<Vec<_>>(),
    })
}

fn site(count: &SiteCount) -> Value {
    json!({
        "file": count.site.file,
        "line": count.site.line,
        "frames": count.site.frames,
        "objects": count.objects,
        "bytes": count.bytes,
        "total_bytes": count.total_bytes,
    })
}

fn site_growth(growth: &SiteGrowth) -> Value {
    json!({
        "file": growth.site.file,
        "line": growth.site.line,
        "frames": growth.site.frames,
        "objects": growth.objects,
        "bytes": growth.bytes,
    })
}

fn growth(growth: &TypeGrowth) -> Value {
    json!({
        "type": growth.name,
        "objects": growth.objects,
        "bytes": growth.bytes,
    })
}
