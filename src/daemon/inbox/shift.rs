//! Moving a file to where nothing is, if need be to another file system.
//!
//! The rule: nothing is overwritten, and the source goes only when the file is durable at its new place. A
//! copy has a hidden name until it is complete, so that nobody takes it for the file.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::after::{Fate, suffixed, with};
use super::settle::Stamp;

/// What a copy that is not complete is called.
const PART: &str = ".filed-part";
const COPY_BYTES: usize = 256 * 1024;

/// Moves a file to a path where nothing is; `AlreadyExists` if there is something.
pub(super) fn shift(
    path: &Path,
    to: &Path,
    stamp: &Stamp,
    metadata: &Metadata,
    stop: &AtomicBool,
) -> io::Result<Fate> {
    match rename(path, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            copy(path, to, stamp, metadata, stop)
        }
        other => other.map(|()| Fate::Done(Some(to.to_owned()))),
    }
}

/// Renames a file, but never over another.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can do both in one.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fail_if_there(to)?;
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn fail_if_there(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn copy(
    path: &Path,
    to: &Path,
    stamp: &Stamp,
    metadata: &Metadata,
    stop: &AtomicBool,
) -> io::Result<Fate> {
    // Before everything is copied in vain.
    fail_if_there(to)?;
    let name = to.file_name().unwrap_or_default();
    let mut hidden = OsString::from(".");
    hidden.push(name);
    // One that is left from a copy that was cut short is only ever ours.
    let part = to.with_file_name(suffixed(&hidden, PART));
    let done = copy_to(path, &part, metadata, stop)
        .and_then(|()| {
            // Read while it was written to, the copy is worth nothing.
            with(path, stamp, |_| {
                rename(&part, to)?;
                sync_folder(to)?;
                Ok(Fate::Done(Some(to.to_owned())))
            })
        })
        .and_then(|done| match done {
            Fate::Done(_) => with(path, stamp, |_| fs::remove_file(path).map(|()| done)),
            _ => Ok(done),
        });
    // There is none any more if it got its name.
    let _ = fs::remove_file(&part);
    done
}

/// Copies content, mode, times and, where that is allowed, the owner; what is zero becomes a hole.
fn copy_to(path: &Path, part: &Path, metadata: &Metadata, stop: &AtomicBool) -> io::Result<()> {
    let no_link = OFlags::NOFOLLOW.bits() as i32;
    let mut from = OpenOptions::new()
        .read(true)
        .custom_flags(no_link)
        .open(path)?;
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(no_link)
        .open(part)?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped; it is done at the next start"));
        }
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = buffer.get(..length).unwrap_or_default();
        if read.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(length as i64))?;
        } else {
            to.write_all(read)?;
        }
    }
    let length = to.stream_position()?;
    to.set_len(length)?;
    // The owner before the mode, some bits of which a change of owner takes away.
    let _ = fchown(&to, Some(metadata.uid()), Some(metadata.gid()));
    to.set_permissions(metadata.permissions())?;
    to.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
    to.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_file_and_takes_its_place() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        let mut content = vec![7; COPY_BYTES + 5];
        content.extend(vec![0; COPY_BYTES * 3]);
        fs::write(&from, &content).unwrap();
        let metadata = from.symlink_metadata().unwrap();
        let stamp = Stamp::of(&metadata);
        let go = AtomicBool::new(false);
        // As if cut short before.
        fs::write(root.path().join(".to.filed-part"), vec![9; COPY_BYTES * 9]).unwrap();
        let done = copy(&from, &to, &stamp, &metadata, &go).unwrap();
        assert_eq!(done, Fate::Done(Some(to.clone())));
        assert!(fs::read(&to).unwrap() == content);
        let copied = to.metadata().unwrap();
        assert_eq!(copied.modified().unwrap(), metadata.modified().unwrap());
        assert_eq!(copied.mode(), metadata.mode());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);

        fs::write(&from, "another").unwrap();
        let error = copy(&from, &to, &stamp, &metadata, &go).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let beside = root.path().join("beside");
        let done = copy(&from, &beside, &stamp, &metadata, &go).unwrap();
        assert_eq!(done, Fate::Changed);
        let stopped = AtomicBool::new(true);
        copy(&from, &beside, &stamp, &metadata, &stopped).unwrap_err();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
