//! Where a restored file is written: under a temporary name beside its place, renamed at the end.
//!
//! Until [`Target::finish`] has synced the content and renamed it, nothing is where the user asked
//! for it; if the target is dropped before, nothing stays behind. Folders below a root are entered
//! one component at a time with `openat2(RESOLVE_BENEATH)`, so no name from a store and no symlink
//! in the tree leads out of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RawMode, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::error::{IoContext, StoreError};
use super::manifest::Metadata;

/// What to do when something is already there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Replace it.
    Replace,
}

/// A file being restored.
pub struct Target {
    folder: OwnedFd,
    temporary: OsString,
    name: OsString,
    path: PathBuf,
    existing: Existing,
    file: File,
    renamed: bool,
}

/// A part of the metadata that could not be put back, as the user reads it.
pub type Unrestored = String;

impl Target {
    /// A target at `path`; its folder must exist.
    pub fn at(path: &Path, existing: Existing) -> Result<Target, StoreError> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::from(Errno::ISDIR)).during("restore to", path);
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder =
            rustix::fs::open(parent, flags, Mode::empty()).during("open folder", parent)?;
        Target::in_folder(folder, name, path.to_owned(), existing)
    }

    /// A target at `relative` below the folder `root`, creating the folders between. Only plain
    /// components are taken: no `..`, nothing absolute.
    pub fn beneath(root: &Path, relative: &Path, existing: Existing) -> Result<Target, StoreError> {
        let path = root.join(relative);
        let escapes = || {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name leads out of the folder",
            );
            Err(error).during("restore to", &path)
        };
        let mut names = Vec::new();
        for component in relative.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::CurDir => {}
                _ => return escapes(),
            }
        }
        let Some(name) = names.pop() else {
            return escapes();
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut folder =
            rustix::fs::open(root, flags, Mode::empty()).during("open folder", root)?;
        for step in names {
            folder = enter(folder.as_fd(), step).during("create folder for", &path)?;
        }
        Target::in_folder(folder, name, path, existing)
    }

    fn in_folder(
        folder: OwnedFd,
        name: &OsStr,
        path: PathBuf,
        existing: Existing,
    ) -> Result<Target, StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let present = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
        if existing == Existing::Keep && present.is_ok() {
            return Err(io::Error::from(Errno::EXIST)).during("restore to", &path);
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temporary, file) = loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let temporary = OsString::from(format!(".filed-{}-{count}.tmp", std::process::id()));
            match rustix::fs::openat(&folder, &temporary, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => {}
                opened => break (temporary, opened.during("create", &path)?),
            }
        };
        Ok(Target {
            folder,
            temporary,
            name: name.to_owned(),
            path,
            existing,
            file: File::from(file),
            renamed: false,
        })
    }

    /// The file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets length and metadata, syncs, and puts the file in its place. Gives what of the metadata
    /// could not be restored.
    pub fn finish(
        mut self,
        size_bytes: u64,
        metadata: Option<&Metadata>,
    ) -> Result<Vec<Unrestored>, StoreError> {
        self.file
            .set_len(size_bytes)
            .during("set the length of", &self.path)?;
        let unrestored = match metadata {
            Some(metadata) => self.restore_metadata(metadata),
            None => self.default_mode(),
        };
        self.file.sync_all().during("sync", &self.path)?;
        self.rename().during("restore to", &self.path)?;
        self.renamed = true;
        rustix::fs::fsync(&self.folder).during("sync the folder of", &self.path)?;
        Ok(unrestored)
    }

    fn restore_metadata(&self, metadata: &Metadata) -> Vec<Unrestored> {
        let mut unrestored = Vec::new();
        let mut note = |what: &str, outcome: Result<(), Errno>| {
            if let Err(error) = outcome {
                unrestored.push(format!("{what}: {}", io::Error::from(error)));
            }
        };
        let (uid, gid) = (metadata.uid, metadata.gid);
        let ours = rustix::fs::fstat(&self.file).map(|stat| (stat.st_uid, stat.st_gid));
        if ours != Ok((uid, gid)) {
            // Before the mode: a change of owner clears the set-user-id bit.
            let outcome = if rustix::process::geteuid().is_root() {
                rustix::fs::fchown(
                    &self.file,
                    Some(Uid::from_raw(uid)),
                    Some(Gid::from_raw(gid)),
                )
            } else {
                Err(Errno::PERM)
            };
            note(&format!("owner {uid}:{gid}"), outcome);
        }
        let mode = Mode::from_raw_mode((metadata.mode & 0o7777) as RawMode);
        note("mode", rustix::fs::fchmod(&self.file, mode));
        let mtime = Timespec {
            tv_sec: metadata.mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: metadata.mtime_ns.rem_euclid(1_000_000_000) as _,
        };
        let times = Timestamps {
            last_access: mtime,
            last_modification: mtime,
        };
        note(
            "modification time",
            rustix::fs::futimens(&self.file, &times),
        );
        unrestored
    }

    /// A stream had no mode: what a new file of this user gets.
    fn default_mode(&self) -> Vec<Unrestored> {
        let mask = rustix::process::umask(Mode::empty());
        rustix::process::umask(mask);
        let mode = Mode::from_raw_mode(0o666) & !mask;
        match rustix::fs::fchmod(&self.file, mode) {
            Ok(()) => Vec::new(),
            Err(error) => vec![format!("mode: {}", io::Error::from(error))],
        }
    }

    fn rename(&self) -> Result<(), Errno> {
        let (from, to) = (&self.temporary, &self.name);
        if self.existing == Existing::Replace {
            return rustix::fs::renameat(&self.folder, from, &self.folder, to);
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.folder, from, &self.folder, to, flags) {
            // Some file systems cannot rename without replacing; a link refuses to replace anywhere.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(&self.folder, from, &self.folder, to, AtFlags::empty())?;
                rustix::fs::unlinkat(&self.folder, from, AtFlags::empty())
            }
            outcome => outcome,
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = rustix::fs::unlinkat(&self.folder, &self.temporary, AtFlags::empty());
        }
    }
}

/// Opens the folder `name` in `folder`, creating it if need be, and not following it anywhere else.
fn enter(folder: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let open = || {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
            // One component, not followed: as safe, where the kernel or a sandbox lacks openat2.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::fs::openat(folder, name, flags, Mode::empty())
            }
            outcome => outcome,
        }
    };
    match open() {
        Err(Errno::NOENT) => match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => open(),
            Err(error) => Err(error),
        },
        outcome => outcome,
    }
}

/// The path below a root at which a file of this name is restored: without its leading slashes.
pub fn relative(name: &Path) -> PathBuf {
    let bytes = name.as_os_str().as_bytes();
    let start = bytes
        .iter()
        .position(|&byte| byte != b'/')
        .unwrap_or(bytes.len());
    PathBuf::from(OsStr::from_bytes(&bytes[start..]))
}
