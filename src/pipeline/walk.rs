//! Finding the files below the paths that were asked for, in order and in bounded memory.
//!
//! Names of a folder come in the order of their bytes. A folder may hold more names than memory
//! should: then only the smallest [`BATCH_NAMES`] after the last one given out are kept, and the
//! folder is read again for the next batch. (Library walkers sort by collecting a folder whole, which
//! is why this one is our own.) Links are not followed, other file systems not entered, and the
//! store itself never taken in.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags};

use super::handed::Taking;
use crate::store::FileName;

/// Names of one folder kept in memory at a time.
const BATCH_NAMES: usize = 32_768;

/// Folders within folders that are entered; file systems allow far fewer in a path.
const MAX_DEPTH: usize = 4096;

/// What to take in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, or a folder with all that is below it.
    Path {
        /// The path, absolute.
        path: PathBuf,
        /// The name to store a single file under, if not its path.
        name: Option<FileName>,
    },
    /// Standard input.
    Stdin {
        /// The name to store it under.
        name: FileName,
    },
}

/// One thing that was found.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File {
        /// Its path.
        path: PathBuf,
        /// Its name in the store, if not its path.
        name: Option<FileName>,
        /// What `lstat` said.
        metadata: std::fs::Metadata,
    },
    /// Standard input.
    Stdin {
        /// The name to store it under.
        name: FileName,
    },
    /// A stream that another thread hands in.
    Handed {
        /// The name to store it under.
        name: FileName,
        /// Its chunks.
        taking: Taking,
    },
    /// Something that filed does not store.
    Skipped {
        /// Its path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Something that could not be looked at.
    Failed {
        /// Its path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Walks over inputs; an iterator of what is found.
pub struct Walk {
    inputs: std::vec::IntoIter<Input>,
    /// Folders being walked, the innermost last.
    folders: Vec<Folder>,
    /// Device and inode of the store's folder.
    store: Option<(u64, u64)>,
}

struct Folder {
    path: PathBuf,
    device: u64,
    /// Names still to come from the last reading, the next one last.
    names: Vec<OsString>,
    /// The last name of that reading, if there may be more after it.
    more_after: Option<OsString>,
}

impl Walk {
    /// Walks over `inputs` in order, leaving out the folder `store`.
    pub fn new(inputs: Vec<Input>, store: &Path) -> Walk {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        Walk {
            inputs: inputs.into_iter(),
            folders: Vec::new(),
            store: store.metadata().ok().map(identity),
        }
    }

    /// Looks at a path and either gives it out or enters it.
    fn look(
        &mut self,
        path: PathBuf,
        name: Option<FileName>,
        within: Option<u64>,
    ) -> Option<Found> {
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                return Some(Found::Failed {
                    path,
                    why: error.to_string(),
                });
            }
        };
        let kind = metadata.file_type();
        if kind.is_file() {
            return Some(Found::File {
                path,
                name,
                metadata,
            });
        }
        if !kind.is_dir() {
            let why = match kind {
                kind if kind.is_symlink() => "a symbolic link: give the file it points to",
                kind if kind.is_fifo() => "a FIFO: pipe it into `filed process - --as NAME`",
                kind if kind.is_socket() => "a socket",
                _ => "a device",
            };
            return Some(Found::Skipped { path, why });
        }
        if name.is_some() {
            let why = "a folder: --as names a single file".to_owned();
            return Some(Found::Failed { path, why });
        }
        let device = metadata.dev();
        if Some((device, metadata.ino())) == self.store {
            let why = "this is the store itself";
            return Some(Found::Skipped { path, why });
        }
        if within.is_some_and(|within| within != device) {
            let why = "another file system: give its path to take it in";
            return Some(Found::Skipped { path, why });
        }
        if self.folders.len() >= MAX_DEPTH {
            let why = "folders are nested too deeply".to_owned();
            return Some(Found::Failed { path, why });
        }
        match read_names(&path, None) {
            Ok((names, more_after)) => {
                self.folders.push(Folder {
                    path,
                    device,
                    names,
                    more_after,
                });
                None
            }
            Err(error) => Some(Found::Failed {
                path,
                why: error.to_string(),
            }),
        }
    }

    /// The next name of the innermost folder, or `None` if there is none in memory.
    fn next_name(&mut self) -> Option<(PathBuf, u64)> {
        let folder = self.folders.last_mut()?;
        let name = folder.names.pop()?;
        Some((folder.path.join(name), folder.device))
    }

    /// Reads the next batch of names of the innermost folder, or leaves it.
    fn next_batch(&mut self) -> Option<Found> {
        let folder = self.folders.last_mut()?;
        let Some(after) = folder.more_after.take() else {
            self.folders.pop();
            return None;
        };
        match read_names(&folder.path, Some(&after)) {
            Ok((names, more_after)) => {
                folder.names = names;
                folder.more_after = more_after;
                None
            }
            Err(error) => {
                let path = folder.path.clone();
                self.folders.pop();
                let why = format!("the rest of the folder cannot be read: {error}");
                Some(Found::Failed { path, why })
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let found = if let Some((path, device)) = self.next_name() {
                self.look(path, None, Some(device))
            } else if !self.folders.is_empty() {
                self.next_batch()
            } else {
                match self.inputs.next()? {
                    Input::Stdin { name } => Some(Found::Stdin { name }),
                    Input::Path { path, name } => self.look(path, name, None),
                }
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

/// Reads the smallest names of a folder after `after`, largest first, and the last of them if there
/// are more.
fn read_names(path: &Path, after: Option<&OsStr>) -> io::Result<(Vec<OsString>, Option<OsString>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let mut smallest: BinaryHeap<OsString> = BinaryHeap::new();
    let mut left_out = false;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || after.is_some_and(|after| name <= after.as_bytes()) {
            continue;
        }
        if smallest.len() < BATCH_NAMES {
            smallest.push(OsStr::from_bytes(name).to_owned());
            continue;
        }
        left_out = true;
        if let Some(mut largest) = smallest.peek_mut()
            && name < largest.as_bytes()
        {
            *largest = OsStr::from_bytes(name).to_owned();
        }
    }
    let mut names = smallest.into_sorted_vec();
    let last = left_out.then(|| names.last().cloned()).flatten();
    names.reverse();
    Ok((names, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn paths(root: &Path, store: &Path) -> Vec<String> {
        let input = Input::Path {
            path: root.to_owned(),
            name: None,
        };
        Walk::new(vec![input], store)
            .map(|found| {
                let (mark, path) = match found {
                    Found::File { path, .. } => ("", path),
                    Found::Skipped { path, .. } => ("skipped ", path),
                    Found::Failed { path, .. } => ("failed ", path),
                    Found::Stdin { .. } | Found::Handed { .. } => ("stream", PathBuf::new()),
                };
                let path = path.strip_prefix(root).unwrap_or(&path);
                format!("{mark}{}", path.display())
            })
            .collect()
    }

    #[test]
    fn files_come_sorted_and_the_store_and_links_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for folder in ["b", "store", "a/deep"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["b/2", "b/10", "a/deep/x", "a/z", "c", "store/pack"] {
            fs::write(root.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("c", root.join("link")).unwrap();
        assert_eq!(
            paths(root, &root.join("store")),
            [
                "a/deep/x",
                "a/z",
                "b/10",
                "b/2",
                "c",
                "skipped link",
                "skipped store"
            ]
        );
    }

    #[test]
    fn a_folder_larger_than_a_batch_is_walked_whole_and_in_order() {
        let root = tempfile::tempdir().unwrap();
        let count = BATCH_NAMES + BATCH_NAMES / 2;
        for n in 0..count {
            fs::write(root.path().join(format!("{n:06}")), "").unwrap();
        }
        let found = paths(root.path(), Path::new("/nowhere"));
        assert_eq!(found.len(), count);
        assert!(found.is_sorted());
    }

    #[test]
    fn what_is_not_there_is_a_failure() {
        let found = paths(Path::new("/no/such/path"), Path::new("/nowhere"));
        assert_eq!(found, ["failed "]);
    }
}
