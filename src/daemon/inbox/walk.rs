//! Reading an inbox's folders entry by entry, to go on later from where it was.
//!
//! The rule: no folder is ever held whole, only one open reading of each that leads to the present one.
//! What has come or gone since a folder was opened may be missed; whoever walks hears of it otherwise.

use std::fs::{DirEntry, ReadDir};
use std::io;
use std::path::{Path, PathBuf};

/// Folders within folders that are entered: each keeps a file open.
const MAX_DEPTH: usize = 64;

/// A walk that is under way; paths are relative to the inbox.
#[derive(Debug, Default)]
pub(super) struct Walk {
    levels: Vec<(PathBuf, ReadDir)>,
}

impl Walk {
    /// Goes on with what is in this folder.
    pub(super) fn enter(&mut self, inbox: &Path, folder: PathBuf) -> io::Result<()> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(io::Error::other("folders are nested too deeply"));
        }
        let entries = std::fs::read_dir(inbox.join(&folder))?;
        self.levels.push((folder, entries));
        Ok(())
    }

    /// The next entry; `None` if all have been given.
    pub(super) fn next(&mut self) -> Option<io::Result<(PathBuf, DirEntry)>> {
        while let Some((folder, entries)) = self.levels.last_mut() {
            match entries.next() {
                Some(Ok(entry)) => return Some(Ok((folder.join(entry.file_name()), entry))),
                Some(Err(error)) => {
                    // The rest of this folder will not come either.
                    self.levels.pop();
                    return Some(Err(error));
                }
                None => {
                    self.levels.pop();
                }
            }
        }
        None
    }
}
