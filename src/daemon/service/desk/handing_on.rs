//! Handing on: what the data plane gets next, and when it is to run at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Desk, Flow, Running, WRITE_AGAIN};
use crate::daemon::jobs::{Event, Job};
use crate::pipeline::{Fed, Feed, Found, Input, Stop, Tag, Walk, Wanted};
use crate::store::clock::now_ns;
use crate::store::error::Chain;

/// Jobs kept in memory ahead of their turn.
const SHORT_LIST: u32 = 64;

/// The data plane is kept ready for so long after its last file: the next one often follows.
const LINGER: Duration = Duration::from_secs(2);

/// Nothing new begins for so long when the data plane is to begin anew: mostly, what is open has ended by
/// then. If not, it goes on as it was until nothing is in work.
const RENEW_PATIENCE: Duration = Duration::from_secs(10);

impl Desk {
    /// Waits until there is work for the data plane; `false` when there never will be any more.
    pub fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.flow == Flow::Draining {
                state.refuse_uploads();
                return false;
            }
            let mut patience = None;
            // An upload that was accepted goes on, whatever became of the flow since.
            let is_open = state.flow == Flow::Open;
            if !state.uploads.is_empty() || is_open && !state.short_list.is_empty() {
                state.last_work = Instant::now();
                // The data plane begins anew with this.
                state.renew = None;
                return true;
            }
            if is_open {
                state.look_if_due();
                if state.look {
                    drop(state);
                    let filled = self.fill();
                    state = self.state();
                    if filled {
                        continue;
                    }
                    patience = Some(WRITE_AGAIN);
                } else if let Some(due_at) = state.due_at {
                    patience = Some(due_at.saturating_duration_since(Instant::now()));
                }
            }
            state = match patience {
                Some(patience) => {
                    let waited = self.changed.wait_timeout(state, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Fills the short list from the table, after all that has happened is in there; whether that worked.
    /// Only one thread at a time asks for work, and so does this.
    fn fill(&self) -> bool {
        let changes = self.state().changes;
        if !self.write_down() {
            return false;
        }
        let jobs = self.jobs();
        let now_ns = now_ns();
        let found = jobs.due(now_ns, SHORT_LIST).and_then(|due| {
            // A full list is looked for again before that matters.
            let next_ns = match due.len() < SHORT_LIST as usize {
                true => jobs.next_due_ns(now_ns)?,
                false => None,
            };
            Ok((due, next_ns))
        });
        match found {
            Ok((due, next_ns)) => {
                let mut state = self.state();
                if state.changes == changes {
                    state.look = due.len() == SHORT_LIST as usize;
                    state.short_list = due.into();
                    if let Some(next_ns) = next_ns {
                        state.look_at(next_ns);
                    }
                }
                true
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the jobs cannot be read");
                false
            }
        }
    }

    /// What the data plane gets next. It is over only when nothing is in work: files that are open for hours
    /// are not to keep it from what comes after.
    pub(super) fn next(&self, wanted: Wanted) -> Fed {
        let mut state = self.state();
        if state.flow == Flow::Draining {
            state.refuse_uploads();
            return Fed::Over;
        }
        if let Some(upload) = state.uploads.pop_front() {
            state.last_work = Instant::now();
            let (name, taking) = (upload.name, upload.taking);
            let tag = Tag {
                number: upload.number,
                stop: Some(upload.stop),
            };
            return Fed::Found(Box::new(Found::Handed { name, taking }), tag);
        }
        if wanted == Wanted::Handed {
            return Fed::NotYet;
        }
        let idle = state.running.is_empty() && state.uploading.is_empty();
        if state.flow == Flow::Paused {
            return if idle { Fed::Over } else { Fed::NotYet };
        }
        match state.renew {
            Some(_) if idle => {
                state.renew = None;
                return Fed::Over;
            }
            Some(since) if since.elapsed() < RENEW_PATIENCE => return Fed::NotYet,
            _ => {}
        }
        state.look_if_due();
        if state.short_list.is_empty() && state.look {
            drop(state);
            self.fill();
            state = self.state();
        }
        let Some(job) = state.short_list.pop_front() else {
            let idle = state.running.is_empty() && state.uploading.is_empty();
            return if idle && state.last_work.elapsed() >= LINGER {
                Fed::Over
            } else {
                Fed::NotYet
            };
        };
        state.last_work = Instant::now();
        let (id, stop) = (job.id, Arc::new(Stop::default()));
        self.happened(
            &mut state,
            Event::Begun {
                id,
                at_ns: now_ns(),
            },
        );
        let path = job.path.clone();
        state.running.insert(
            id,
            Running {
                job: Job {
                    attempts: job.attempts + 1,
                    ..job
                },
                since: Instant::now(),
                stop: Arc::clone(&stop),
            },
        );
        drop(state);
        let tag = Tag {
            number: id as u64,
            stop: Some(stop),
        };
        Fed::Found(Box::new(look_at(path, self.store.root())), tag)
    }

    /// Whether files are being worked on.
    pub fn is_busy(&self) -> bool {
        !self.state().running.is_empty()
    }

    /// Whether nothing is being worked on, files or streams.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.running.is_empty() && state.uploading.is_empty()
    }

    /// Waits for so long, or until the service is to end.
    pub(in crate::daemon::service) fn wait_out(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state();
        while state.flow != Flow::Draining {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The feed of the data plane.
pub struct DeskFeed(pub Arc<Desk>);

impl Feed for DeskFeed {
    fn ask(&mut self, wanted: Wanted) -> Fed {
        self.0.next(wanted)
    }
}

/// What a job's path is at this moment. A folder is none: its files are jobs of their own.
fn look_at(path: PathBuf, store: &Path) -> Found {
    let is_folder = |path: &Path| {
        path.symlink_metadata()
            .is_ok_and(|metadata| metadata.is_dir())
    };
    if is_folder(&path) {
        let why = "a folder has taken its place".to_owned();
        return Found::Failed { path, why };
    }
    let input = Input::Path {
        path: path.clone(),
        name: None,
    };
    Walk::new(vec![input], store)
        .next()
        .unwrap_or(Found::Failed {
            path,
            why: "a folder has taken its place".to_owned(),
        })
}
