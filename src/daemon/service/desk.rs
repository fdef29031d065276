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

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use crate::daemon::jobs::{
    Accepted, Counts, End, Event, Job, JobId, Jobs, NewJob, Outcome, State as JobState, back_off_ns,
};
use crate::pipeline::{
    Bell, Blame, Fed, Feed, FileReport, Found, Input, Status, Stop, Tag, Taking, Walk,
};
use crate::store::error::Chain;
use crate::store::{FileName, Store, StoreError};

use super::{inboxes, now_ns};

/// Jobs kept in memory ahead of their turn.
const SHORT_LIST: u32 = 64;

/// What has happened is written down this long after the first of it, all at once.
const WRITE_AFTER: Duration = Duration::from_millis(100);

/// If it could not be written down, it is tried again after this long.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// Events that watchers may lag behind before they miss some.
const NEWS: usize = 256;

/// The data plane is kept ready for so long after its last file: the next one often follows.
const LINGER: Duration = Duration::from_secs(2);

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
    /// Writing down is due at this time.
    write_at: Option<Instant>,
    last_work: Instant,
    /// The data plane is to begin anew when it can: it follows new settings then.
    renew: bool,
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
    /// A desk for the jobs of this store, whose table has been opened. `bell` wakes the data plane.
    pub fn new(store: Arc<Store>, bell: Arc<Bell>, settings: DeskSettings) -> Desk {
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
                write_at: None,
                last_work: Instant::now(),
                renew: false,
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
        // Off the list before anybody else can take it from there.
        state.forget_list();
        let cancelled = self.jobs().cancel(id, now_ns());
        drop(state);
        if *cancelled.as_ref().unwrap_or(&false) {
            self.announce(id, JobState::Failed);
        }
        cancelled
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

    /// Has the data plane begin anew, with other settings, at the end of the files it has open.
    pub fn renew(&self) {
        self.state().renew = true;
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

    /// Waits until there is work for the data plane; `false` when there never will be any more.
    pub fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.flow == Flow::Draining {
                state.refuse_uploads();
                return false;
            }
            let mut patience = None;
            if state.flow == Flow::Open {
                if !state.uploads.is_empty() || !state.short_list.is_empty() {
                    state.last_work = Instant::now();
                    return true;
                }
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
        let found = jobs.due(now_ns(), SHORT_LIST).and_then(|due| {
            let next_ns = if due.is_empty() {
                jobs.next_due_ns()?
            } else {
                None
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

    /// Writes down what has happened; whether it is written.
    fn write_down(&self) -> bool {
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
            self.tell_of(&events, &ended);
            return true;
        };
        tracing::warn!(error = %Chain(&error), "what became of jobs cannot be written down yet");
        let mut state = self.state();
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

    fn prune(&self, settings: DeskSettings) {
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
        if let End::Again { due_ns, .. } = end {
            state.look_at(due_ns);
        }
        state.ended.push((job, end));
        drop(state);
        self.changed.notify_all();
    }

    /// How an attempt ends that has this report.
    fn end_of(&self, job: &Job, report: &FileReport, cancelled: bool, attempts: u32) -> End {
        let reason = || report.error.clone().unwrap_or_default();
        match report.status {
            Status::Stored | Status::Unchanged => End::Stored(Outcome {
                size_bytes: report.size_bytes,
                new_bytes: report.new_bytes,
                stored_bytes: report.stored_bytes,
                version: report.version,
            }),
            Status::Skipped => End::Failed(reason()),
            Status::Failed if report.blame != Blame::File => End::Stopped,
            Status::Failed if cancelled => End::Failed("cancelled".to_owned()),
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
    fn stored_since(&self, job: &Job) -> Option<Outcome> {
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
    fn tell_of(&self, events: &[Event], ended: &[(Job, End)]) {
        for event in events {
            match event {
                Event::Begun { id, .. } => self.announce(*id, JobState::Running),
                Event::Ended { id, end, .. } => self.announce(
                    *id,
                    match end {
                        End::Stored(_) => JobState::Stored,
                        End::Failed(_) => JobState::Failed,
                        End::Again { .. } | End::Stopped => JobState::Queued,
                    },
                ),
            }
        }
        if let Some(on_end) = self.on_end.get() {
            for (job, end) in ended {
                on_end(job, end);
            }
        }
    }

    fn happened(&self, state: &mut State, event: Event) {
        state.events.push(event);
        if state.write_at.is_none() {
            state.write_at = Some(Instant::now() + WRITE_AFTER);
            self.happened.notify_all();
        }
    }

    fn announce(&self, id: JobId, state: JobState) {
        // Nobody may be watching.
        let _ = self.news.send(News { id, state });
    }

    /// What the data plane gets next.
    fn next(&self) -> Fed {
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
        if state.flow == Flow::Paused || std::mem::take(&mut state.renew) {
            return Fed::Over;
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
    pub(super) fn wait_out(&self, time: Duration) {
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

/// The feed of the data plane.
pub struct DeskFeed(pub Arc<Desk>);

impl Feed for DeskFeed {
    fn ask(&mut self) -> Fed {
        self.0.next()
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

/// Waiting does not bring a file back.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
