//! Inbox folders: what is put into them is taken in.
//!
//! Owns the thread `filed-inbox`, which watches the folders, waits until a file has settled, submits it,
//! and does with it what is to be done once its job has ended. The rule: a file that lies in an inbox is
//! never forgotten. Events only make it quick; whatever is lost, because there were too many, because
//! the queue was full or because the process ended, the next walk over the folder finds again. So
//! everything held in memory has an end, and nothing is held on disk.
//!
//! ```text
//!  closed, moved in ──┐   in work?     ┌─ waiting ─┐ settled             full: later
//!  (inotify)          ├─> stored? ─────┤ (4096)    ├─────────> batch ──────────────> queue of jobs
//!  walk: at start, ───┘     │ yes      └───────────┘           (256)                     │
//!  lost events, timer       v                                                            v
//!                   keep, delete, move  <──────────────────────────────────────────  job ended
//!                   failed/ with a reason
//! ```
//!
//! When nothing is to be done the thread sleeps until the next walk is due.

mod after;
mod batch;
mod ending;
mod folder;
mod looking;
mod pattern;
mod settle;
mod shift;
mod thread;
mod walk;
mod watch;

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::daemon::jobs::{Accepted, NewJob};
use crate::store::StoreError;

/// Jobs whose end is still to be dealt with. Of more than that, the next walk finds out by itself.
const MOST_ENDED: usize = 4096;

/// An inbox as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxOptions {
    /// The folder. It may come later, or go and come back.
    pub path: PathBuf,
    /// Names that are taken, with `*`, `?` and `[...]`; none: all.
    pub patterns: Vec<String>,
    /// Whether folders in it are looked into.
    pub recursive: bool,
    /// A file's size and times are to be the same for so long.
    pub settle: Duration,
    /// What is done with a file that is stored.
    pub after: After,
    /// Priority of its jobs.
    pub priority: i32,
}

/// What is done with a file that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays.
    Keep,
    /// It is removed.
    Delete,
    /// It is moved into this folder, relative to the inbox if it is not absolute, and there into the
    /// folders in which it lay.
    MoveTo(PathBuf),
}

/// What the inboxes need of the service.
pub trait Recipient: Send + Sync {
    /// Queues jobs; says of each in turn what came of it.
    ///
    /// # Errors
    ///
    /// When the store cannot be written; the jobs are submitted again later.
    fn submit(&self, jobs: &[NewJob]) -> Result<Vec<Accepted>, StoreError>;

    /// What is known of a file that looks like this.
    ///
    /// # Errors
    ///
    /// When the store cannot be read; the file counts as new.
    fn knows(&self, path: &Path, metadata: &Metadata) -> Result<Known, StoreError>;
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has a job that is queued or running. What is to be done is seen when that ends: submitted now, it
    /// might be queued once more after its job has ended and the file is gone.
    InWork,
    /// It is stored, and certainly unchanged since.
    Stored,
    /// Neither.
    New,
}

/// How a job of an inbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The file was stored when it looked like this.
    Stored {
        /// Length in bytes.
        size: u64,
        /// Last change of content, nanoseconds since 1970.
        mtime_ns: i64,
        /// Last change of content or metadata, nanoseconds since 1970.
        ctime_ns: i64,
        /// Inode number.
        inode: u64,
        /// Device number.
        device: u64,
    },
    /// It is given up, for this reason.
    Failed(String),
}

/// What an inbox has done since the service started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxStats {
    /// Its folder.
    pub path: PathBuf,
    /// Files that are waiting until they have settled.
    pub waiting: u64,
    /// Files that were queued.
    pub submitted: u64,
    /// Files that were stored.
    pub stored: u64,
    /// Files that could not be stored, and were put aside where that could be done.
    pub failed: u64,
    /// When the last one was stored, nanoseconds since 1970.
    pub last_success_ns: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// How often there were more events than the kernel keeps.
    pub overflows: u64,
}

/// What the thread is told.
#[derive(Default)]
struct Mail {
    ended: VecDeque<(PathBuf, Ended)>,
    replace: Option<(Vec<InboxOptions>, Duration)>,
    rescan: bool,
}

/// What the thread and its owner share.
struct Shared {
    mail: Mutex<Mail>,
    stats: Mutex<Vec<Arc<Mutex<InboxStats>>>>,
    wake: OwnedFd,
    stop: AtomicBool,
}

impl Shared {
    fn new(options: Vec<InboxOptions>, rescan: Duration) -> io::Result<Shared> {
        Ok(Shared {
            mail: Mutex::new(Mail {
                replace: Some((options, rescan)),
                ..Mail::default()
            }),
            stats: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: AtomicBool::new(false),
        })
    }

    /// Changes what the thread is told next, and wakes it.
    fn tell(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut lock(&self.mail));
        self.wake();
    }

    fn wake(&self) {
        // It fails only when the thread has been woken more often than can be counted.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The inboxes of the service. Dropping them ends the thread and waits until it has ended.
pub struct Inboxes {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Inboxes {
    /// Watches the folders on a thread of its own, and walks over each at once and then every `rescan`.
    ///
    /// # Errors
    ///
    /// When there can be no thread. A folder that is not there or cannot be watched is warned of, and
    /// looked at every 10 s.
    pub fn start(
        options: Vec<InboxOptions>,
        rescan: Duration,
        recipient: Arc<dyn Recipient>,
    ) -> io::Result<Inboxes> {
        let shared = Arc::new(Shared::new(options, rescan)?);
        let thread = thread::spawn(Arc::clone(&shared), recipient)?;
        Ok(Inboxes {
            shared,
            thread: Some(thread),
        })
    }

    /// Has these inboxes instead. One that stays as it was goes on undisturbed.
    pub fn replace(&self, options: Vec<InboxOptions>, rescan: Duration) {
        self.shared
            .tell(|mail| mail.replace = Some((options, rescan)));
    }

    /// A job of an inbox has ended, and its row says so. What is to be done with the file is done on the
    /// inboxes' thread; this never waits for it.
    pub fn ended(&self, path: PathBuf, outcome: Ended) {
        self.shared.tell(|mail| {
            if mail.ended.len() < MOST_ENDED {
                mail.ended.push_back((path, outcome));
            } else {
                mail.rescan = true;
            }
        });
    }

    /// Walks over all inboxes now.
    pub fn rescan_now(&self) {
        self.shared.tell(|mail| mail.rescan = true);
    }

    /// What each inbox has done, in the order in which they were given.
    pub fn stats(&self) -> Vec<InboxStats> {
        let inboxes = lock(&self.shared.stats);
        inboxes.iter().map(|stats| lock(stats).clone()).collect()
    }

    /// Ends the thread. What was waiting is found again at the next start.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Inboxes {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
