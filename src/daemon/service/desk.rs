//! The desk: where jobs and uploads are handed in, and handed on to the data plane.
//!
//! ```text
//!  socket, inbox ──submit──> job table ──short list──┐
//!  socket ──upload───────────────────────────────────┴─> feed ─> data plane
//!                            job table <──written down── report ────┘
//! ```
//!
//! The table is the truth about jobs, and this is in front of it so that the data plane never waits for
//! it: a short list of what comes next, and what has happened and is not written down yet, which a thread
//! of its own does some times a second. Three rules hold. A job is accepted only when it is in the table.
//! What was written down too late is not lost, only done again: the table then says queued where the file
//! is stored. And whatever cannot be written down now (a full disk) is kept and written later.

mod book;
mod handing_on;
#[cfg(test)]
mod tests;

pub use handing_on::DeskFeed;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use crate::daemon::jobs::{
    Accepted, Counts, End, Event, Job, JobId, Jobs, NewJob, State as JobState,
};
use crate::pipeline::{Bell, FileReport, Stop, Taking};
use crate::store::{FileName, Store, StoreError};

use crate::store::clock::now_ns;

/// If it could not be written down, it is tried again after this long.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// Events that watchers may lag behind before they miss some.
const NEWS: usize = 256;

/// Numbers of uploads in reports begin here; those of jobs do not get so far.
const UPLOADS_FROM: u64 = 1 << 62;

/// What may be set while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeskSettings {
    /// Jobs that may be queued or running.
    pub most_open: u64,
    /// Attempts before a job is given up.
    pub attempts: u32,
    /// Ended jobs are kept this long.
    pub history: Duration,
    /// And at most so many of them.
    pub history_jobs: u64,
}

/// Whether work is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As it comes.
    Open,
    /// Not until somebody resumes it.
    Paused,
    /// Never again: the service ends.
    Draining,
}

/// How many jobs have ended since the service began, each once however often it was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Stored.
    pub stored: u64,
    /// Given up.
    pub failed: u64,
    /// Given up because somebody asked for it.
    pub cancelled: u64,
}

/// Something that watchers of jobs are told.
#[derive(Clone, Debug)]
pub struct News {
    /// The job.
    pub id: JobId,
    /// Where it stands now.
    pub state: JobState,
}

/// Somebody who is told what became of a job.
pub type OnEnd = Box<dyn Fn(&Job, &End) + Send + Sync>;

/// See the head of this file.
pub struct Desk {
    store: Arc<Store>,
    bell: Arc<Bell>,
    state: Mutex<State>,
    /// Something came, or the flow changed.
    changed: Condvar,
    /// There is something to write down.
    happened: Condvar,
    /// Held by whoever writes down, before the state: what happened is written in its order.
    pen: Mutex<()>,
    news: broadcast::Sender<News>,
    on_end: OnceLock<OnEnd>,
}

struct State {
    settings: DeskSettings,
    flow: Flow,
    short_list: VecDeque<Job>,
    /// The table may have jobs that the short list lacks.
    look: bool,
    /// Counts what makes a short list that is being read out of date.
    changes: u64,
    /// The table is to be looked at again at this time: a job will be due.
    due_at: Option<Instant>,
    running: BTreeMap<JobId, Running>,
    uploads: VecDeque<Upload>,
    uploading: BTreeMap<u64, Uploading>,
    next_upload: u64,
    events: Vec<Event>,
    /// Jobs whose end is among the events, to be told of when it is written down.
    ended: Vec<(Job, End)>,
    /// How jobs have ended, those included that the start gave up.
    ends: Ends,
    /// Jobs that were given up at the start, until somebody takes them.
    given_up: Vec<Job>,
    /// Writing down is due at this time.
    write_at: Option<Instant>,
    /// It was tried last and could not be done.
    cannot_write: bool,
    last_work: Instant,
    /// Since when the data plane is to begin anew when it can: it follows new settings then.
    renew: Option<Instant>,
    over: bool,
}

/// A job in the data plane.
#[derive(Clone, Debug)]
pub struct Running {
    /// The job.
    pub job: Job,
    /// Since when.
    pub since: Instant,
    /// Stops it.
    stop: Arc<Stop>,
}

/// A stream that waits to be taken in.
struct Upload {
    name: FileName,
    taking: Taking,
    number: u64,
    stop: Arc<Stop>,
}

struct Uploading {
    name: FileName,
    since: Instant,
    reply: oneshot::Sender<FileReport>,
}

/// What is in the data plane or on its way there.
#[derive(Clone, Debug)]
pub struct InWork {
    /// A path, or the name of an upload.
    pub what: PathBuf,
    /// Since when.
    pub for_: Duration,
}

impl Desk {
    /// A desk for the jobs of this store, whose table has been opened, which gave up these. `bell` wakes the
    /// data plane.
    pub fn new(
        store: Arc<Store>,
        bell: Arc<Bell>,
        settings: DeskSettings,
        given_up: Vec<Job>,
    ) -> Desk {
        Desk {
            store,
            bell,
            state: Mutex::new(State {
                settings,
                flow: Flow::Open,
                short_list: VecDeque::new(),
                look: true,
                changes: 0,
                due_at: None,
                running: BTreeMap::new(),
                uploads: VecDeque::new(),
                uploading: BTreeMap::new(),
                next_upload: UPLOADS_FROM,
                events: Vec::new(),
                ended: Vec::new(),
                ends: Ends {
                    failed: given_up.len() as u64,
                    ..Ends::default()
                },
                given_up,
                write_at: None,
                cannot_write: false,
                last_work: Instant::now(),
                renew: None,
                over: false,
            }),
            changed: Condvar::new(),
            happened: Condvar::new(),
            pen: Mutex::default(),
            news: broadcast::Sender::new(NEWS),
            on_end: OnceLock::new(),
        }
    }

    /// The table.
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs::of(self.store.database())
    }

    /// Has `on_end` told of every job that has ended or failed an attempt, once that is written down. The
    /// first who asks for it is told.
    pub fn tell(&self, on_end: OnEnd) {
        let _ = self.on_end.set(on_end);
    }

    /// Follows other settings.
    pub fn set(&self, settings: DeskSettings) {
        self.state().settings = settings;
    }

    /// What it follows.
    pub fn settings(&self) -> DeskSettings {
        self.state().settings
    }

    /// Accepts jobs; those that are queued when this returns are in the table.
    ///
    /// # Errors
    ///
    /// When the table cannot be written.
    pub fn submit(&self, jobs: &[NewJob]) -> Result<Vec<Accepted>, StoreError> {
        let most_open = self.state().settings.most_open;
        let accepted = self.jobs().submit(jobs, most_open, now_ns())?;
        for accepted in &accepted {
            if let Accepted::Queued(id) = accepted {
                self.announce(*id, JobState::Queued);
            }
        }
        self.look_again();
        Ok(accepted)
    }

    /// The table was changed: what comes next may be another job.
    fn look_again(&self) {
        self.state().forget_list();
        self.wake();
    }

    /// Accepts a stream. What became of it is told through `reply`.
    ///
    /// # Errors
    ///
    /// When nothing is accepted any more, or not now: the flow says which.
    pub fn upload(
        &self,
        name: FileName,
        taking: Taking,
    ) -> Result<(oneshot::Receiver<FileReport>, Arc<Stop>), Flow> {
        let (reply, answer) = oneshot::channel();
        let stop = Arc::new(Stop::default());
        let mut state = self.state();
        if state.flow != Flow::Open {
            return Err(state.flow);
        }
        let number = state.next_upload;
        state.next_upload += 1;
        state.uploading.insert(
            number,
            Uploading {
                name: name.clone(),
                since: Instant::now(),
                reply,
            },
        );
        state.uploads.push_back(Upload {
            name,
            taking,
            number,
            stop: Arc::clone(&stop),
        });
        drop(state);
        self.wake();
        Ok((answer, stop))
    }

    /// Gives up a job: one that is queued at once, one that runs at its next chunk. False if it is
    /// neither.
    ///
    /// # Errors
    ///
    /// When the table cannot be written.
    pub fn cancel(&self, id: JobId) -> Result<bool, StoreError> {
        let mut state = self.state();
        if let Some(running) = state.running.get(&id) {
            running.stop.request();
            drop(state);
            self.bell.ring();
            return Ok(true);
        }
        state.forget_list();
        // Nobody is to wait for the disk meanwhile.
        drop(state);
        let jobs = self.jobs();
        if !jobs.cancel(id, now_ns())? {
            return Ok(false);
        }
        let mut state = self.state();
        state.ends.cancelled += 1;
        // It may have been read into the list again, or have begun, before it was cancelled in the table.
        state.short_list.retain(|job| job.id != id);
        if let Some(running) = state.running.get(&id) {
            running.stop.request();
        }
        drop(state);
        self.bell.ring();
        self.announce(id, JobState::Failed);
        if let Some(on_end) = self.on_end.get()
            && let Some(job) = jobs.get(id)?
        {
            on_end(&job, &End::Cancelled);
        }
        Ok(true)
    }

    /// Queues a failed job again, or one that waits for its next attempt at once; whether it could be.
    ///
    /// # Errors
    ///
    /// When the table cannot be written.
    pub fn retry(&self, id: JobId) -> Result<bool, StoreError> {
        let retried = self.jobs().retry(id, now_ns())?;
        if retried {
            self.announce(id, JobState::Queued);
            self.look_again();
        }
        Ok(retried)
    }

    /// What watchers of jobs are told from now on.
    pub fn watch(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Opens, pauses or ends the flow. Once it is ending it stays so.
    pub fn set_flow(&self, flow: Flow) {
        let mut state = self.state();
        if state.flow != Flow::Draining {
            state.flow = flow;
        }
        drop(state);
        self.wake();
    }

    /// How work flows.
    pub fn flow(&self) -> Flow {
        self.state().flow
    }

    /// Has the data plane begin anew, with other settings, as soon as nothing is in work.
    pub fn renew(&self) {
        self.state().renew = Some(Instant::now());
        self.bell.ring();
    }

    /// What is being worked on, the longest first.
    pub fn in_work(&self) -> Vec<InWork> {
        let state = self.state();
        let jobs = state.running.values().map(|running| InWork {
            what: running.job.path.clone(),
            for_: running.since.elapsed(),
        });
        let uploads = state.uploading.values().map(|upload| InWork {
            what: PathBuf::from(upload.name.to_string()),
            for_: upload.since.elapsed(),
        });
        let mut all: Vec<InWork> = jobs.chain(uploads).collect();
        drop(state);
        all.sort_by_key(|in_work| std::cmp::Reverse(in_work.for_));
        all
    }

    /// How many jobs stand where, what has not been written down yet included.
    ///
    /// # Errors
    ///
    /// When the table cannot be asked.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let mut counts = self.jobs().counts()?;
        let running = self.state().running.len() as u64;
        // Those that run are queued in the table until that is written down.
        let queued = counts.queued + counts.running;
        counts.running = running.min(queued);
        counts.queued = queued - counts.running;
        Ok(counts)
    }

    /// Jobs that were given up at the start, once.
    pub fn take_given_up(&self) -> Vec<Job> {
        std::mem::take(&mut self.state().given_up)
    }

    /// How many have ended.
    pub fn ends(&self) -> Ends {
        self.state().ends
    }

    fn wake(&self) {
        self.changed.notify_all();
        self.bell.ring();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// The table has changed otherwise than by what happened here.
    fn forget_list(&mut self) {
        self.short_list.clear();
        self.look = true;
        self.changes += 1;
    }

    /// A job will be due at this time, nanoseconds since 1970.
    fn look_at(&mut self, due_ns: i64) {
        let left_ns = due_ns.saturating_sub(now_ns()).max(0);
        // Not so long that it would matter if the clock were set.
        let left = Duration::from_nanos(left_ns as u64).min(Duration::from_secs(60));
        let at = Instant::now() + left;
        self.due_at = Some(self.due_at.map_or(at, |before| before.min(at)));
    }

    fn look_if_due(&mut self) {
        if self.due_at.is_some_and(|at| at <= Instant::now()) {
            self.due_at = None;
            self.look = true;
        }
    }

    /// Turns away uploads that nobody has begun to take in.
    fn refuse_uploads(&mut self) {
        for upload in self.uploads.drain(..) {
            self.uploading.remove(&upload.number);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
