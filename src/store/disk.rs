//! The few operations on files whose order makes a store durable.
//!
//! Everything that must survive a power cut goes through here: a new file is only there for certain
//! when its own bytes *and* its folder have been synced, and a replaced one only after the rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::process::geteuid;

use super::error::{IoContext, StoreError};

/// Creates a folder (and those above it) that only its owner may enter.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    for dir in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).during("create folder", dir);
            }
            _ => {}
        }
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .during("sync folder", path)
}

/// Creates a file that must not exist yet, readable and writable by its owner only.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Gives what root made in a folder to the owner of the folder, who must be able to read it: the
/// service to whom a store belongs goes on with what `sudo filed process` stored there.
///
/// `made` is the file or the folder, open. Somebody who is not root can give nothing away, and where
/// root may not either it stays as it is.
pub(crate) fn give_to_owner_of(folder: &Path, made: &File) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (to, from) = (fs::metadata(folder)?, made.metadata()?);
    if (to.uid(), to.gid()) == (from.uid(), from.gid()) {
        return Ok(());
    }
    match fchown(made, Some(to.uid()), Some(to.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

/// Writes a small file so that either nothing or all of it is there, whatever happens.
/// Fails with `AlreadyExists` if somebody else was faster.
pub(crate) fn write_once(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let _ = fs::remove_file(temporary);
    let outcome = create_new(temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::hard_link(temporary, path))
        .during("create", path);
    let _ = fs::remove_file(temporary);
    outcome?;
    path.parent().map_or(Ok(()), sync_dir)
}
