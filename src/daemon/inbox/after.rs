//! What is done with a file once its job has ended: removed, moved away, or put aside with a reason.
//!
//! The rule: nothing is ever overwritten, and nothing is removed or moved that is not exactly the file
//! that was meant.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::settle::Stamp;
use super::shift::shift;
use crate::store::show_path;

/// Where a file is put whose job failed, in the folder where it lies.
pub(super) const FAILED: &str = "failed";
/// What the reason is written to, beside it.
const REASON: &str = ".reason.txt";
/// File systems allow no longer names.
const MAX_NAME_BYTES: usize = 255;

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done; where the file is now, if it was moved.
    Done(Option<PathBuf>),
    /// Another file is there by now, or it was written to.
    Changed,
    /// It is not there any more.
    Gone,
}

/// Removes the file.
pub(super) fn delete(path: &Path, stamp: &Stamp) -> io::Result<Fate> {
    with(path, stamp, |_| {
        fs::remove_file(path)?;
        Ok(Fate::Done(None))
    })
}

/// Moves the file into the folder, under its name or, if that is taken, with a number after it.
pub(super) fn move_into(
    folder: &Path,
    path: &Path,
    stamp: &Stamp,
    stop: &AtomicBool,
) -> io::Result<Fate> {
    with(path, stamp, |metadata| {
        fs::create_dir_all(folder)?;
        if is_same_folder(folder, path)? {
            return Ok(Fate::Done(None));
        }
        let name = path.file_name().unwrap_or_default();
        for number in 0_u32.. {
            let to = folder.join(numbered(name, number));
            match shift(path, &to, stamp, metadata, stop) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => return other,
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    })
}

/// Moves the file into `failed`, beside it, with a file that tells why.
pub(super) fn put_aside(
    path: &Path,
    stamp: &Stamp,
    why: &str,
    stop: &AtomicBool,
) -> io::Result<Fate> {
    with(path, stamp, |metadata| {
        let folder = path.with_file_name(FAILED);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let name = path.file_name().unwrap_or_default();
        for number in 0_u32.. {
            let name = numbered(name, number);
            let reason = folder.join(suffixed(&name, REASON));
            match try_put_aside(
                path,
                &folder.join(name),
                &reason,
                stamp,
                metadata,
                why,
                stop,
            ) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => return other,
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    })
}

/// The reason comes first: a reason without a file is no loss, a file without a reason is a riddle.
fn try_put_aside(
    path: &Path,
    to: &Path,
    reason: &Path,
    stamp: &Stamp,
    metadata: &Metadata,
    why: &str,
    stop: &AtomicBool,
) -> io::Result<Fate> {
    let mut file = File::create_new(reason)?;
    let done = write!(
        file,
        "{} was not stored.\n\n\
         When:      {}\n\
         Why:       {why}\n\
         Try again: put right what is wrong, then move the file back to where it was:\n           \
         {}\n",
        show_path(Path::new(path.file_name().unwrap_or_default())),
        humantime::format_rfc3339_seconds(SystemTime::now()),
        show_path(path),
    )
    .and_then(|()| shift(path, to, stamp, metadata, stop));
    if !matches!(done, Ok(Fate::Done(_))) {
        fs::remove_file(reason)?;
    }
    done
}

/// Does it if the file is the one that is meant.
pub(super) fn with(
    path: &Path,
    stamp: &Stamp,
    act: impl FnOnce(&Metadata) -> io::Result<Fate>,
) -> io::Result<Fate> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() && Stamp::of(&metadata) == *stamp => act(&metadata),
        Ok(_) => Ok(Fate::Changed),
        Err(error) if is_gone(&error) => Ok(Fate::Gone),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn is_same_folder(folder: &Path, path: &Path) -> io::Result<bool> {
    let own = path.parent().unwrap_or(Path::new("/")).metadata()?;
    let folder = folder.metadata()?;
    Ok((own.dev(), own.ino()) == (folder.dev(), folder.ino()))
}

/// The name for the first try, then with `.1`, `.2` and so on after it.
fn numbered(name: &OsStr, number: u32) -> OsString {
    match number {
        0 => name.to_owned(),
        number => suffixed(name, &format!(".{number}")),
    }
}

/// The name with something after it, cut to what a name may be long, between two characters.
pub(super) fn suffixed(name: &OsStr, suffix: &str) -> OsString {
    let name = name.as_bytes();
    let mut end = name.len().min(MAX_NAME_BYTES.saturating_sub(suffix.len()));
    while end > 0 && name.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    let mut bytes = name.get(..end).unwrap_or_default().to_vec();
    bytes.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    static STOP: AtomicBool = AtomicBool::new(false);

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(&path.symlink_metadata().unwrap())
    }

    #[test]
    fn names_stay_names() {
        let long = OsString::from("ä".repeat(127));
        assert_eq!(numbered(&long, 0), long);
        let numbered = numbered(&long, 12);
        assert!(numbered.len() <= MAX_NAME_BYTES);
        assert!(numbered.to_str().unwrap().ends_with("ä.12"));
        let strange = OsString::from_vec(vec![0x80; 255]);
        assert_eq!(suffixed(&strange, ".1"), ".1");
        let strange = OsString::from_vec(vec![0xff; 255]);
        assert_eq!(suffixed(&strange, ".1").len(), 255);
    }

    #[test]
    fn where_it_lies_already_it_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "a").unwrap();
        let done = move_into(root.path(), &path, &stamp(&path), &STOP).unwrap();
        assert_eq!(done, Fate::Done(None));
        assert!(path.exists());
    }

    #[test]
    fn what_is_not_the_file_that_was_meant_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "a").unwrap();
        let meant = stamp(&path);
        fs::write(&path, "ab").unwrap();
        let folder = root.path().join("done");
        assert_eq!(delete(&path, &meant).unwrap(), Fate::Changed);
        assert_eq!(
            move_into(&folder, &path, &meant, &STOP).unwrap(),
            Fate::Changed
        );
        assert_eq!(
            put_aside(&path, &meant, "why", &STOP).unwrap(),
            Fate::Changed
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        let now = stamp(&path);
        assert_eq!(delete(&path, &now).unwrap(), Fate::Done(None));
        assert_eq!(delete(&path, &now).unwrap(), Fate::Gone);
    }

    #[test]
    fn another_file_system_is_no_obstacle() {
        let Ok(there) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("a");
        for (content, name) in [("a", "a"), ("b", "a.1")] {
            fs::write(&path, content).unwrap();
            let fate = move_into(there.path(), &path, &stamp(&path), &STOP).unwrap();
            let to = there.path().join(name);
            assert_eq!(fate, Fate::Done(Some(to.clone())));
            assert_eq!(fs::read_to_string(to).unwrap(), content);
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 2);
    }
}
