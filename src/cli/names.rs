//! From what the user typed to a name in the store, or a path to take in.
//!
//! A name is taken as the bytes that were typed. If no file is called that, it is read as the escape
//! in which names are shown, and then as a path from the working folder.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::store::catalog::VersionRow;
use crate::store::{FileName, Store, StoreError};

/// The newest version of the file that the user means.
pub(super) fn find(store: &Store, typed: &OsStr) -> Result<VersionRow, StoreError> {
    let bytes = typed.as_bytes();
    let absolute = absolute(Path::new(typed)).ok();
    let readings = [
        FileName::new(bytes).ok(),
        FileName::unescape(bytes),
        absolute.and_then(|path| FileName::new(path.as_os_str().as_bytes()).ok()),
    ];
    for name in readings.into_iter().flatten() {
        if let Some(row) = store.database().latest(&name)? {
            return Ok(row);
        }
    }
    Err(StoreError::NotStored {
        what: crate::store::show_path(Path::new(typed)).to_string(),
    })
}

/// The absolute path under which a file is stored: from the working folder, without `.`. Links on
/// the way are kept, as the user wrote them, unless `..` makes the path mean something else.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    if !absolute
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Ok(absolute.components().collect());
    }
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => absolute.canonicalize(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_doubled_slashes_are_taken_out() {
        assert_eq!(
            absolute(Path::new("/a//b/./c/")).unwrap(),
            Path::new("/a/b/c")
        );
    }

    #[test]
    fn parent_folders_are_resolved() {
        assert_eq!(
            absolute(Path::new("/usr/../etc/x")).unwrap(),
            Path::new("/etc/x")
        );
        assert_eq!(absolute(Path::new("/usr/..")).unwrap(), Path::new("/"));
    }
}
