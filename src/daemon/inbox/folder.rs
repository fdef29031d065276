//! One inbox: what is seen in its folder, and what that leads to.
//!
//! The rule: whatever cannot be dealt with now, for want of room, of a watch or of the folder itself, has
//! the folder walked over again. A walk stops while the queue is full and goes on from where it was; the
//! next one has to wait the longer, the longer it took.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::DirEntry;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::batch::Batch;
use super::pattern::Patterns;
use super::settle::{Stamp, Waiting, later};
use super::walk::Walk;
use super::watch::Watch;
use super::{After, InboxOptions, InboxStats, lock};
use crate::store::show_path;

/// Files of one inbox that wait until they have settled.
pub(super) const MOST_WAITING: usize = 4096;
/// A folder that cannot be watched, or is not there, is walked over this often.
const EVERY_UNWATCHED: Duration = Duration::from_secs(10);
/// A file that was found may still be open, so it waits this long even if no time is asked for.
const SETTLE_FOUND: Duration = Duration::from_secs(1);
/// Walks rest four times as long as they worked, but no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Different troubles warned of before walks go well again.
const MOST_TOLD: usize = 64;

/// What came of drawing files from an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawn {
    /// There is nothing to be done now.
    Nothing,
    /// There is more, for the next turn.
    More,
    /// The batch has no room.
    NoRoom,
}

pub(super) struct Inbox {
    pub(super) options: InboxOptions,
    pub(super) root: PathBuf,
    pub(super) origin: String,
    pub(super) stats: Arc<Mutex<InboxStats>>,
    /// Where stored files are moved to.
    pub(super) into: Option<PathBuf>,
    pub(super) waiting: Waiting,
    /// Files that failed and could not be put aside: not tried again while they look like this.
    pub(super) stuck: HashMap<PathBuf, Stamp>,
    pub(super) watch: Option<Watch>,
    pub(super) patterns: Patterns,
    /// Whether all of it is watched, as far as is known.
    is_watched: bool,
    walk: Option<Walk>,
    /// Whether the walk is over all of it.
    is_whole: bool,
    /// New folders that are still to be walked over.
    pub(super) new_folders: VecDeque<PathBuf>,
    every: Duration,
    pub(super) walk_at: Option<Instant>,
    /// No walk before this, whatever happens.
    rested_at: Instant,
    /// What the present walk has taken.
    worked: Duration,
    told: HashSet<String>,
    had_trouble: bool,
}

impl Inbox {
    /// An inbox that is about to be walked over.
    pub(super) fn new(
        options: InboxOptions,
        every: Duration,
        stats: Arc<Mutex<InboxStats>>,
    ) -> Inbox {
        let root = std::path::absolute(&options.path).unwrap_or_else(|_| options.path.clone());
        let now = Instant::now();
        Inbox {
            patterns: Patterns::new(&options.patterns),
            origin: format!("inbox:{}", show_path(&root)),
            stats,
            into: match &options.after {
                After::MoveTo(folder) => Some(root.join(folder)),
                After::Keep | After::Delete => None,
            },
            waiting: Waiting::new(MOST_WAITING),
            stuck: HashMap::new(),
            watch: None,
            is_watched: true,
            walk: None,
            is_whole: false,
            new_folders: VecDeque::new(),
            every,
            walk_at: Some(now),
            rested_at: now,
            worked: Duration::ZERO,
            told: HashSet::new(),
            had_trouble: false,
            options,
            root,
        }
    }

    /// Has it walked over this often from now on.
    pub(super) fn set_every(&mut self, every: Duration) {
        self.every = every;
        if !every.is_zero() {
            self.need_walk(later(Instant::now(), every));
        }
    }

    /// Has it walked over, at the latest then.
    pub(super) fn need_walk(&mut self, at: Instant) {
        self.walk_at = Some(self.walk_at.map_or(at, |before| before.min(at)));
    }

    /// Has it walked over at once.
    pub(super) fn walk_now(&mut self) {
        self.rested_at = Instant::now();
        self.need_walk(self.rested_at);
    }

    /// When there is something to do, if nothing happens before.
    pub(super) fn next(&self) -> Option<Instant> {
        let walk_at = self.walk_at.map(|at| at.max(self.rested_at));
        [walk_at, self.waiting.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is called `path` by everybody else, if it belongs here.
    pub(super) fn own(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix(&self.root).ok()?;
        let is_near = path.parent() == Some(Path::new(""));
        (is_near || self.options.recursive).then(|| path.to_owned())
    }

    pub(super) fn settle_found(&self) -> Duration {
        self.options.settle.max(SETTLE_FOUND)
    }

    /// Draws files that are due, then walks on for so many steps.
    pub(super) fn draw(
        &mut self,
        steps: &mut usize,
        batch: &mut Batch,
        stop: &AtomicBool,
    ) -> Drawn {
        let began = Instant::now();
        loop {
            if batch.is_full() {
                break;
            }
            let Some((path, seen)) = self.waiting.take_due(began) else {
                break;
            };
            self.look_again(&path, seen, batch, stop);
        }
        let began = Instant::now();
        let drawn = loop {
            if batch.is_full() {
                break Drawn::NoRoom;
            }
            if *steps == 0 {
                break Drawn::More;
            }
            *steps -= 1;
            if !self.step(batch, stop) {
                break Drawn::Nothing;
            }
        };
        self.worked += began.elapsed();
        drawn
    }

    /// One step of a walk; whether there was one to make.
    fn step(&mut self, batch: &mut Batch, stop: &AtomicBool) -> bool {
        let Some(walk) = &mut self.walk else {
            return self.begin_walk();
        };
        match walk.next() {
            Some(Ok((path, entry))) => self.visit(path, &entry, batch, stop),
            Some(Err(error)) => {
                self.trouble(Path::new(""), &format!("cannot be read whole: {error}"));
            }
            None => self.end_walk(),
        }
        true
    }

    fn begin_walk(&mut self) -> bool {
        let now = Instant::now();
        let folder = match self.new_folders.pop_front() {
            Some(folder) => folder,
            None if self.walk_at.is_some_and(|at| at.max(self.rested_at) <= now) => PathBuf::new(),
            None => return false,
        };
        self.is_whole = folder.as_os_str().is_empty();
        if self.is_whole {
            self.walk_at = None;
            self.had_trouble = false;
            self.worked = Duration::ZERO;
            if self.watch.is_none() {
                match Watch::open(self.options.recursive) {
                    Ok(watch) => self.watch = Some(watch),
                    Err(error) => {
                        self.trouble(&folder, &format!("cannot be watched: {error}"));
                    }
                }
            }
            self.is_watched = self.watch.is_some();
        }
        self.walk = Some(Walk::default());
        self.enter(folder);
        true
    }

    fn end_walk(&mut self) {
        self.walk = None;
        let now = Instant::now();
        if !self.is_watched {
            self.need_walk(now + EVERY_UNWATCHED);
        }
        if !self.is_whole {
            return;
        }
        self.rested_at = now + (self.worked * 4).min(LONGEST_REST);
        if !self.every.is_zero() {
            self.need_walk(later(now, self.every));
        }
        if !self.had_trouble {
            self.told.clear();
        }
    }

    fn visit(&mut self, path: PathBuf, entry: &DirEntry, batch: &mut Batch, stop: &AtomicBool) {
        // What is gone by now is none of ours.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && self.enters(&path) => self.enter(path),
            Ok(kind) if kind.is_file() && self.takes(&path) => {
                if let Ok(metadata) = entry.metadata()
                    && metadata.is_file()
                {
                    self.look(&path, &metadata, self.settle_found(), batch, stop);
                }
            }
            _ => {}
        }
    }

    /// Watches a folder and then walks into it: what comes between is seen twice rather than never.
    fn enter(&mut self, folder: PathBuf) {
        let is_root = folder.as_os_str().is_empty();
        let watched = self
            .watch
            .as_mut()
            .map(|watch| watch.add(&self.root, &folder));
        let entered = match watched {
            Some(Err(Errno::NOSPC)) => {
                // Told of once for the whole inbox.
                self.is_watched = false;
                let what = "has more folders than can be watched, and is walked over every 10 s: \
                            raise fs.inotify.max_user_watches";
                self.trouble(Path::new(""), what);
                Ok(())
            }
            Some(Err(error)) => Err(io::Error::from(error)),
            Some(Ok(())) | None => Ok(()),
        };
        let entered = entered.and_then(|()| match &mut self.walk {
            Some(walk) => walk.enter(&self.root, folder.clone()),
            None => Ok(()),
        });
        match entered {
            Err(error) if is_root || error.kind() != ErrorKind::NotFound => {
                self.is_watched &= !is_root;
                self.trouble(&folder, &error.to_string());
            }
            _ => {}
        }
    }

    /// Says what is wrong: each thing once, until a walk has gone well.
    pub(super) fn trouble(&mut self, path: &Path, what: &str) {
        let path = self.root.join(path);
        let text = format!("{}: {what}", show_path(&path));
        self.had_trouble = true;
        if self.told.len() < MOST_TOLD && self.told.insert(text.clone()) {
            tracing::warn!(inbox = %show_path(&self.root), "{text}");
        }
        lock(&self.stats).last_error = Some(text);
    }
}
