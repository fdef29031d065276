//! What an inbox makes of what it sees: which names are its own, which files may be taken now.
//!
//! The rule: an event and a walk lead to the same look at the file, and only that decides. One that has a
//! job already is left to it; one that is stored already is done with; one that has not settled waits; one
//! that can neither be taken nor wait has the folder walked over again.

use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::after::FAILED;
use super::batch::Batch;
use super::folder::Inbox;
use super::settle::{Moment, Seen, Stamp, Verdict, later};
use super::watch::Event;
use super::{Known, lock};
use crate::daemon::jobs::NewJob;

/// New folders that are still to be walked over; beyond that, the whole inbox is.
const MOST_FOLDERS: usize = 256;

impl Inbox {
    /// Takes in what the kernel has to tell.
    pub(super) fn read_events(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        batch: &mut Batch,
        stop: &AtomicBool,
    ) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        let root = self.root.clone();
        match watch.read(&root, buffer, &mut |event| self.hear(event, batch, stop)) {
            Ok(()) => self.watch = Some(watch),
            Err(error) => {
                self.trouble(Path::new(""), &format!("is not watched any more: {error}"));
                self.need_walk(Instant::now());
            }
        }
    }

    pub(super) fn hear(&mut self, event: Event, batch: &mut Batch, stop: &AtomicBool) {
        match event {
            Event::File(path) if self.takes(&path) => {
                if let Ok(metadata) = self.root.join(&path).symlink_metadata()
                    && metadata.is_file()
                {
                    self.look(&path, &metadata, self.options.settle, batch, stop);
                }
            }
            Event::Folder(path) if self.enters(&path) => {
                if self.new_folders.len() < MOST_FOLDERS {
                    self.new_folders.push_back(path);
                } else {
                    self.need_walk(Instant::now());
                }
            }
            Event::File(_) | Event::Folder(_) => {}
            Event::Overflow => {
                lock(&self.stats).overflows += 1;
                self.need_walk(Instant::now());
            }
            Event::Gone => self.need_walk(Instant::now()),
        }
    }

    /// Whether a file of this name is taken.
    pub(super) fn takes(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_bytes();
        !name.starts_with(b".") && self.patterns.fit(name)
    }

    /// Whether this is a folder that is looked into.
    pub(super) fn enters(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        if !self.options.recursive || name == FAILED || name.as_bytes().starts_with(b".") {
            return false;
        }
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let Ok(found) = self.root.join(path).symlink_metadata() else {
            return false;
        };
        let into = self.into.as_ref().and_then(|into| into.metadata().ok());
        found.is_dir() && into.map(identity) != Some(identity(found))
    }

    /// Looks at a file that is there.
    pub(super) fn look(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        settle: Duration,
        batch: &mut Batch,
        stop: &AtomicBool,
    ) {
        let stamp = Stamp::of(metadata);
        if let Some(stuck) = self.stuck.get(path) {
            if *stuck == stamp {
                return;
            }
            self.stuck.remove(path);
        }
        match batch.recipient().knows(&self.root.join(path), metadata) {
            Ok(Known::InWork) => return,
            Ok(Known::Stored) => return self.carry_out(path, &stamp, stop),
            Ok(Known::New) => {}
            Err(error) => self.trouble(path, &error.to_string()),
        }
        let now = Moment::now();
        let mut verdict = self.waiting.look(path, stamp, settle, &now);
        if verdict == Verdict::Settled {
            if !batch.is_full() {
                return self.submit(path, batch);
            }
            verdict = self.waiting.keep(path, stamp, settle, &now);
        }
        if verdict == Verdict::NoRoom {
            self.need_walk(later(now.at, self.settle_found()));
        }
    }

    /// Looks at a file that has waited.
    pub(super) fn look_again(
        &mut self,
        path: &Path,
        seen: Seen,
        batch: &mut Batch,
        stop: &AtomicBool,
    ) {
        match self.root.join(path).symlink_metadata() {
            Ok(metadata) if metadata.is_file() => {
                let stamp = Stamp::of(&metadata);
                if !seen.is_settled(&stamp) {
                    return self.look(path, &metadata, seen.settle(), batch, stop);
                }
                match batch.recipient().knows(&self.root.join(path), &metadata) {
                    Ok(Known::InWork) => {}
                    Ok(Known::Stored) => self.carry_out_now(path, &stamp, stop),
                    Ok(Known::New) | Err(_) => self.submit(path, batch),
                }
            }
            _ => {}
        }
    }

    fn submit(&self, path: &Path, batch: &mut Batch) {
        let job = NewJob {
            path: self.root.join(path),
            priority: self.options.priority,
            origin: self.origin.clone(),
            due_ns: 0,
        };
        batch.push(job, &self.stats);
    }
}
