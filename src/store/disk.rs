//! The few operations on files whose order makes a store durable.
//!
//! Everything that must survive a power cut goes through here: a new file is only there for certain
//! when its own bytes *and* its folder have been synced, and a replaced one only after the rename.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, openat};
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

/// As [`create_new`] in the store at `root`; if root does it in somebody's store, the file and a new
/// folder around it become the owner's, who must be able to read them: the service that a store belongs to
/// goes on with what `sudo filed process` stored there.
///
/// The owner could have put links where folders should be. So nothing is given away that is not new
/// and in a folder of the owner's: the folder is looked at and used through one descriptor.
pub(crate) fn create_new_for_owner(root: &Path, path: &Path) -> io::Result<File> {
    let owner = fs::metadata(root)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return create_new(path);
    };
    if !geteuid().is_root() || owner.uid() == 0 {
        return create_new(path);
    }
    let folder = File::open(folder)?;
    if folder.metadata()?.uid() == 0 && is_empty(&folder)? && owns_parent(&owner, &folder)? {
        give(&folder, &owner)?;
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = File::from(openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    if folder.metadata()?.uid() == owner.uid() {
        give(&file, &owner)?;
    }
    Ok(file)
}

fn is_empty(folder: &File) -> io::Result<bool> {
    for entry in Dir::read_from(folder)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn owns_parent(owner: &Metadata, folder: &File) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = File::from(openat(folder, "..", flags, Mode::empty())?);
    Ok(parent.metadata()?.uid() == owner.uid())
}

/// Where not even root may give something away, it stays as it is.
fn give(made: &File, owner: &Metadata) -> io::Result<()> {
    match fchown(made, Some(owner.uid()), Some(owner.gid())) {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn root_gives_to_the_owner_of_a_store_what_is_new_in_it_and_nothing_else() {
        if !geteuid().is_root() {
            let _ = writeln!(io::stderr(), "SKIPPED: giving files away: only root can");
            return;
        }
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        let place = tempfile::tempdir().unwrap();
        let (store, elsewhere) = (place.path().join("store"), place.path().join("elsewhere"));
        for folder in ["store/packs/new", "store/packs/roots", "elsewhere/empty"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        for folder in [&store, &store.join("packs")] {
            chown(folder, Some(65534), None).unwrap();
        }
        fs::write(store.join("packs/roots/secret"), "").unwrap();
        symlink(&elsewhere, store.join("link")).unwrap();

        for (folder, given) in [
            ("packs/new", true),
            ("packs/roots", false),
            ("link/empty", false),
        ] {
            let (folder, expected) = (store.join(folder), if given { 65534 } else { 0 });
            let file = create_new_for_owner(&store, &folder.join("1")).unwrap();
            assert_eq!(file.metadata().unwrap().uid(), expected, "{folder:?}");
            assert_eq!(owner(&folder), expected, "{folder:?}");
            assert!(
                create_new_for_owner(&store, &folder.join("1")).is_err(),
                "{folder:?}"
            );
        }
        assert_eq!(owner(&store.join("packs/roots/secret")), 0);
    }
}
