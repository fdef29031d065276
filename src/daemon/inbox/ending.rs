//! What becomes of a file of an inbox once its job has ended.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::after::{self, Fate};
use super::batch::Batch;
use super::folder::Inbox;
use super::settle::{Moment, Stamp, Verdict, later};
use super::{After, Ended, lock};
use crate::store::show_path;

/// Files that could neither be stored nor put aside; more of them are tried again at each walk.
const MOST_STUCK: usize = 1024;

/// Two changes within one tick of the file system's clock show the same times.
const SAME_TIMES: Duration = Duration::from_millis(20);

impl Inbox {
    /// Deals with the end of a job. A file that is not what was stored is a new one, and so is one that
    /// failed while it is still written to.
    pub(super) fn end(
        &mut self,
        path: PathBuf,
        ended: Ended,
        batch: &mut Batch,
        stop: &AtomicBool,
    ) {
        let now = Moment::now();
        if let Ended::Stored { .. } = ended {
            let mut stats = lock(&self.stats);
            stats.stored += 1;
            stats.last_success_ns = Some(now.wall_ns);
        }
        let metadata = match self.root.join(&path).symlink_metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            // Somebody has taken it away.
            _ => return,
        };
        let stamp = Stamp::of(&metadata);
        match ended {
            Ended::Stored {
                size,
                mtime_ns,
                ctime_ns,
                inode,
                device,
            } => {
                let stored = Stamp {
                    size_bytes: size,
                    mtime_ns,
                    ctime_ns,
                    inode,
                    device,
                };
                if stored == stamp {
                    self.carry_out(&path, &stamp, stop);
                } else {
                    self.look(&path, &metadata, self.settle_found(), batch, stop);
                }
            }
            Ended::Failed(why) => {
                let is_written = stamp.age(&now).is_some_and(|age| age < self.options.settle);
                if is_written {
                    self.look(&path, &metadata, self.settle_found(), batch, stop);
                } else {
                    self.put_aside(path, &stamp, &why, stop);
                }
            }
        }
    }

    /// Does with a stored file what is to be done with it, once it has been the same for as long as before it
    /// was taken: whoever has gone on writing since is not to write to what is gone.
    pub(super) fn carry_out(&mut self, path: &Path, stamp: &Stamp, stop: &AtomicBool) {
        if matches!(self.options.after, After::Keep) {
            return;
        }
        let now = Moment::now();
        let settle = self.options.settle.max(SAME_TIMES);
        match self.waiting.look(path, *stamp, settle, &now) {
            Verdict::Settled => self.carry_out_now(path, stamp, stop),
            Verdict::Waits => {}
            Verdict::NoRoom => self.need_walk(later(now.at, self.settle_found())),
        }
    }

    /// The same with one that has been.
    pub(super) fn carry_out_now(&mut self, path: &Path, stamp: &Stamp, stop: &AtomicBool) {
        let full = self.root.join(path);
        let done = match (&self.options.after, &self.into) {
            (After::Keep, _) => return,
            (After::Delete, _) => after::delete(&full, stamp),
            (After::MoveTo(_), into) => {
                let below = path.parent().unwrap_or(Path::new(""));
                let folder = into.as_deref().unwrap_or(&self.root).join(below);
                after::move_into(&folder, &full, stamp, stop)
            }
        };
        match done {
            Ok(Fate::Done(to)) => {
                tracing::debug!(path = %show_path(&full), ?to, "stored, so out of the inbox");
            }
            Ok(Fate::Changed) => self.need_walk(later(Instant::now(), self.settle_found())),
            Ok(Fate::Gone) => {}
            Err(error) => self.trouble(path, &format!("stored, but stays here: {error}")),
        }
    }

    fn put_aside(&mut self, path: PathBuf, stamp: &Stamp, why: &str, stop: &AtomicBool) {
        let full = self.root.join(&path);
        let done = after::put_aside(&full, stamp, why, stop);
        if matches!(done, Ok(Fate::Done(_)) | Err(_)) {
            let mut stats = lock(&self.stats);
            stats.failed += 1;
            stats.last_error = Some(format!("{}: {why}", show_path(&full)));
        }
        match done {
            Ok(Fate::Done(to)) => {
                tracing::info!(path = %show_path(&full), ?to, "failed, so put aside");
            }
            Ok(Fate::Changed) => self.need_walk(later(Instant::now(), self.settle_found())),
            Ok(Fate::Gone) => {}
            Err(error) => {
                self.trouble(&path, &format!("{why}; it cannot be put aside: {error}"));
                if self.stuck.len() < MOST_STUCK {
                    self.stuck.insert(path, *stamp);
                }
            }
        }
    }
}
