//! What the kernel says of an inbox's folders, through an inotify instance of the inbox's own.
//!
//! Asked for are files closed after writing and files moved in, new folders if the inbox is recursive,
//! and that a watched folder itself was moved; never reads or writes, which would wake the process for
//! every chunk that somebody writes. The rule: a path that is told of is only where something was, so it
//! is looked at before anything is believed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Room for about two thousand events.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
/// Folders watched for one inbox.
const MAX_FOLDERS: usize = 16_384;

/// What is told; paths are relative to the inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A file was closed after writing, or moved in.
    File(PathBuf),
    /// A folder is new here.
    Folder(PathBuf),
    /// Events were lost.
    Overflow,
    /// The inbox is gone, or a folder of it is not where it was.
    Gone,
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) inotify: OwnedFd,
    folders: HashMap<i32, PathBuf>,
    is_recursive: bool,
}

impl Watch {
    pub(super) fn open(is_recursive: bool) -> io::Result<Watch> {
        Ok(Watch {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            folders: HashMap::new(),
            is_recursive,
        })
    }

    /// Watches a folder of the inbox; it may be watched already, or be known by another name.
    pub(super) fn add(&mut self, inbox: &Path, folder: &Path) -> Result<(), Errno> {
        let number = add(&self.inotify, self.is_recursive, inbox, folder)?;
        if !self.folders.contains_key(&number) {
            if self.folders.len() >= MAX_FOLDERS {
                let _ = inotify::remove_watch(&self.inotify, number);
                return Err(Errno::NOSPC);
            }
            if folder.as_os_str().is_empty() {
                // Another folder is at this path now; what was there is none of ours.
                self.remove(|_| true);
            }
        }
        self.folders.insert(number, folder.to_owned());
        Ok(())
    }

    fn remove(&mut self, is_gone: impl Fn(&Path) -> bool) {
        let inotify = &self.inotify;
        self.folders.retain(|number, folder| {
            let is_gone = is_gone(folder);
            if is_gone {
                // The kernel may have removed it already.
                let _ = inotify::remove_watch(inotify, *number);
            }
            !is_gone
        });
    }

    /// Takes in as many events as there are and the buffer holds.
    pub(super) fn read(
        &mut self,
        inbox: &Path,
        buffer: &mut [MaybeUninit<u8>],
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), Errno> {
        let mut moved = Vec::new();
        let mut reader = Reader::new(&self.inotify, buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                tell(Event::Overflow);
            } else if flags.contains(ReadFlags::IGNORED) {
                // With a folder in it goes what could be found there.
                let gone = self.folders.remove(&event.wd());
                if gone.is_some_and(|folder| folder.as_os_str().is_empty()) {
                    tell(Event::Gone);
                }
            } else if flags.contains(ReadFlags::MOVE_SELF) {
                moved.push(event.wd());
            } else if let Some(folder) = self.folders.get(&event.wd())
                && let Some(name) = event.file_name()
            {
                let path = folder.join(OsStr::from_bytes(name.to_bytes()));
                if flags.contains(ReadFlags::ISDIR) {
                    tell(Event::Folder(path));
                } else if flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
                    tell(Event::File(path));
                }
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        for number in moved {
            self.check_moved(number, inbox, tell);
        }
        Ok(())
    }

    /// Whether a folder that was moved is by now known by its new name; if not, it has left.
    fn check_moved(&mut self, number: i32, inbox: &Path, tell: &mut dyn FnMut(Event)) {
        let Some(folder) = self.folders.get(&number).cloned() else {
            return;
        };
        match add(&self.inotify, self.is_recursive, inbox, &folder) {
            Ok(found) if found == number => {}
            found => {
                if let Ok(found) = found
                    && !self.folders.contains_key(&found)
                {
                    let _ = inotify::remove_watch(&self.inotify, found);
                }
                self.remove(|path| path.starts_with(&folder));
                tell(Event::Gone);
            }
        }
    }
}

fn add(inotify: &OwnedFd, is_recursive: bool, inbox: &Path, folder: &Path) -> Result<i32, Errno> {
    let mut flags = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::EXCL_UNLINK;
    if is_recursive {
        flags |= WatchFlags::CREATE;
    }
    if folder.as_os_str().is_empty() {
        // The inbox itself may be named by a link.
        return inotify::add_watch(inotify, inbox, flags);
    }
    inotify::add_watch(inotify, inbox.join(folder), flags | WatchFlags::DONT_FOLLOW)
}
