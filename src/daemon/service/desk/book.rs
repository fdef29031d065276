//! The desk's book: what becomes of jobs, and how it gets into the table.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Desk, DeskSettings, News, Running, State, UPLOADS_FROM, WRITE_AGAIN, lock};
use crate::daemon::jobs::{End, Event, Job, JobId, Outcome, State as JobState, back_off_ns};
use crate::daemon::service::inboxes;
use crate::pipeline::{Blame, FileReport, Status};
use crate::store::clock::now_ns;
use crate::store::error::Chain;
use crate::store::{FileName, show_path};

/// What has happened is written down this long after the first of it, all at once.
const WRITE_AFTER: Duration = Duration::from_millis(100);

impl Desk {
    /// Writes down what has happened; whether it is written.
    pub(super) fn write_down(&self) -> bool {
        let _pen = lock(&self.pen);
        let mut state = self.state();
        state.write_at = None;
        let events = std::mem::take(&mut state.events);
        let ended = std::mem::take(&mut state.ended);
        drop(state);
        if events.is_empty() {
            return true;
        }
        let Err(error) = self.jobs().record(&events) else {
            if std::mem::take(&mut self.state().cannot_write) {
                tracing::info!("what became of jobs is written down again");
            }
            self.tell_of(&events, &ended);
            return true;
        };
        let mut state = self.state();
        // Once, not each time that it is tried.
        if !std::mem::replace(&mut state.cannot_write, true) {
            tracing::warn!(error = %Chain(&error), "what became of jobs cannot be written down yet");
        }
        let later = std::mem::replace(&mut state.events, events);
        state.events.extend(later);
        let later = std::mem::replace(&mut state.ended, ended);
        state.ended.extend(later);
        state.write_at = Some(Instant::now() + WRITE_AGAIN);
        false
    }

    /// Writes down what has happened as it happens, until [`close`](Desk::close); and forgets old jobs.
    pub fn keep(&self) {
        let mut pruned: Option<Instant> = None;
        let mut state = self.state();
        loop {
            if state.over {
                drop(state);
                self.write_down();
                return;
            }
            if pruned.is_none_or(|at| at.elapsed() >= Duration::from_secs(600)) {
                pruned = Some(Instant::now());
                let settings = state.settings;
                drop(state);
                self.prune(settings);
                state = self.state();
                continue;
            }
            state = match state.write_at {
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => {
                        let waited = self.happened.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    _ => {
                        drop(state);
                        self.write_down();
                        self.state()
                    }
                },
                None => {
                    let waited = self.happened.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    pub(super) fn prune(&self, settings: DeskSettings) {
        let history_ns = i64::try_from(settings.history.as_nanos()).unwrap_or(i64::MAX);
        let before_ns = now_ns().saturating_sub(history_ns);
        match self.jobs().prune(before_ns, settings.history_jobs) {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "old jobs forgotten"),
            Err(error) => tracing::warn!(%error, "old jobs cannot be forgotten"),
        }
    }

    /// Ends [`keep`](Desk::keep), after it has written down everything.
    pub fn close(&self) {
        self.state().over = true;
        self.happened.notify_all();
    }

    /// Hears what became of a file.
    pub fn report(&self, report: &FileReport) {
        if report.number >= UPLOADS_FROM {
            let uploading = self.state().uploading.remove(&report.number);
            if let Some(uploading) = uploading {
                // Whoever sent it may be gone.
                let _ = uploading.reply.send(report.clone());
            }
            return;
        }
        let id = report.number as JobId;
        let mut state = self.state();
        let Some(running) = state.running.remove(&id) else {
            return;
        };
        let Running { job, stop, .. } = running;
        let attempts = state.settings.attempts;
        drop(state);
        let end = self.end_of(&job, report, stop.requested(), attempts);
        let mut state = self.state();
        state.last_work = Instant::now();
        self.happened(
            &mut state,
            Event::Ended {
                id,
                end: end.clone(),
                at_ns: now_ns(),
            },
        );
        match end {
            End::Again { due_ns, .. } => state.look_at(due_ns),
            // It is in the table again, and nothing else may ever come that would have it looked at.
            End::Stopped => state.forget_list(),
            End::Stored(_) | End::Failed(_) | End::Cancelled => {}
        }
        state.ended.push((job, end));
        drop(state);
        self.changed.notify_all();
    }

    /// How an attempt ends that has this report.
    pub(super) fn end_of(
        &self,
        job: &Job,
        report: &FileReport,
        cancelled: bool,
        attempts: u32,
    ) -> End {
        let reason = || report.error.clone().unwrap_or_default();
        match report.status {
            Status::Stored | Status::Unchanged => End::Stored(Outcome {
                size_bytes: report.size_bytes,
                new_bytes: report.new_bytes,
                stored_bytes: report.stored_bytes,
                version: report.version,
            }),
            Status::Skipped => End::Failed(reason()),
            // Whatever kept it from being stored: it was not to be.
            Status::Failed if cancelled => End::Cancelled,
            Status::Failed if report.blame != Blame::File => End::Stopped,
            Status::Failed if is_gone(&job.path) => match self.stored_since(job) {
                Some(outcome) => End::Stored(outcome),
                None => End::Failed(reason()),
            },
            Status::Failed if job.attempts >= attempts => End::Failed(reason()),
            Status::Failed => End::Again {
                reason: reason(),
                due_ns: now_ns().saturating_add(back_off_ns(job.attempts)),
            },
        }
    }

    /// What was stored of a job's file after it was submitted: the process may have ended between storing
    /// it and writing that down, and the inbox has taken the file away since.
    pub(super) fn stored_since(&self, job: &Job) -> Option<Outcome> {
        if !job.origin.starts_with(inboxes::ORIGIN) {
            return None;
        }
        let name = FileName::new(job.path.as_os_str().as_bytes()).ok()?;
        let row = self.store.database().latest(&name).ok()??;
        (row.read_at_ns >= job.submitted_ns).then_some(Outcome {
            size_bytes: row.size_bytes,
            new_bytes: row.new_bytes,
            stored_bytes: row.stored_bytes,
            version: Some(row.number),
        })
    }

    /// Tells of what is written down now.
    pub(super) fn tell_of(&self, events: &[Event], ended: &[(Job, End)]) {
        for event in events {
            match event {
                Event::Begun { id, .. } => self.announce(*id, JobState::Running),
                Event::Ended { id, end, .. } => self.announce(
                    *id,
                    match end {
                        End::Stored(_) => JobState::Stored,
                        End::Failed(_) | End::Cancelled => JobState::Failed,
                        End::Again { .. } | End::Stopped => JobState::Queued,
                    },
                ),
            }
        }
        for (job, end) in ended {
            if let End::Failed(reason) = end {
                let path = show_path(&job.path);
                tracing::warn!(job = job.id, %path, origin = %job.origin, "given up: {reason}");
            }
        }
        let mut state = self.state();
        for (_, end) in ended {
            match end {
                End::Stored(_) => state.ends.stored += 1,
                End::Failed(_) => state.ends.failed += 1,
                End::Cancelled => state.ends.cancelled += 1,
                End::Again { .. } | End::Stopped => {}
            }
        }
        drop(state);
        if let Some(on_end) = self.on_end.get() {
            for (job, end) in ended {
                on_end(job, end);
            }
        }
    }

    pub(super) fn happened(&self, state: &mut State, event: Event) {
        state.events.push(event);
        if state.write_at.is_none() {
            state.write_at = Some(Instant::now() + WRITE_AFTER);
            self.happened.notify_all();
        }
    }

    pub(super) fn announce(&self, id: JobId, state: JobState) {
        // Nobody may be watching.
        let _ = self.news.send(News { id, state });
    }
}

/// Waiting does not bring a file back.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
