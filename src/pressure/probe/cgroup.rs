//! The memory limits that the cgroups of this process set.
//!
//! A group is limited by itself and by each of its ancestors, so all files on
//! the way up to the mount are read and the least of each kind is kept. Three
//! set-ups are met in the field, and one walk covers them, because a file that
//! is not there limits nothing:
//!
//! | set-up | line of `/proc/self/cgroup` | files |
//! |---|---|---|
//! | v2 | `0::/path` | `/sys/fs/cgroup/path/memory.{high,max}` |
//! | v1 | `9:memory:/path` | `/sys/fs/cgroup/memory/path/memory.{limit,soft_limit}_in_bytes` |
//! | hybrid | both | v2 below `/sys/fs/cgroup/unified`, memory in either |
//!
//! In a container the path may be that of the host, and only the container's
//! own group may be mounted. Then the path leads nowhere, and the mount itself,
//! where every walk ends, is the group whose limit counts.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::pressure::limits::{FoundLimit, LimitSource};
use crate::pressure::probe::{ProbeError, number, read_start};

/// A line per hierarchy, of which v1 has about a dozen, each a path at most.
const CGROUP_MAX_BYTES: u64 = 64 << 10;
/// A number of 20 digits, and enough more to see that it is none.
pub(super) const LIMIT_MAX_BYTES: u64 = 64;
/// Longer paths cannot be opened, and so limit how far we walk.
const PATH_MAX_BYTES: usize = 4096;
/// v1 writes "unlimited" as the greatest multiple of the page size that fits a
/// signed 64-bit number. Nothing that is really meant comes near it.
const V1_UNLIMITED_BYTES: u64 = 1 << 62;

/// The two interfaces that the memory controller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

impl Version {
    /// The files that set limits, and what kind each sets.
    pub(super) fn limit_files(self) -> &'static [(LimitSource, &'static str)] {
        match self {
            Version::V1 => &[
                (LimitSource::CgroupV1, "memory.limit_in_bytes"),
                (LimitSource::CgroupSoft, "memory.soft_limit_in_bytes"),
            ],
            Version::V2 => &[
                (LimitSource::CgroupHigh, "memory.high"),
                (LimitSource::CgroupMax, "memory.max"),
            ],
        }
    }
}

/// A group that this process is charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) version: Version,
    pub(super) directory: PathBuf,
}

/// What the files of our cgroups say.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct CgroupLimits {
    /// The least limit of each kind; kinds that are not set are left out.
    pub found: Vec<FoundLimit>,
    /// Files that are there but could not be read or understood. Worth a
    /// warning: a limit may have been missed.
    pub problems: Vec<ProbeError>,
}

/// Reads the limits of the cgroups this process is in, with `/proc` and `/sys`
/// below `root`, once: what [`group`](super::group) must find in the files that it keeps open.
#[cfg(test)]
pub fn limits(root: &Path) -> CgroupLimits {
    let mut limits = CgroupLimits::default();
    let (groups, problem) = groups(root);
    limits.problems.extend(problem);
    for group in groups {
        for (source, name) in group.version.limit_files() {
            let path = group.directory.join(name);
            match read_limit(&path, *source) {
                Ok(Some(bytes)) => keep_least(&mut limits.found, *source, &path, bytes),
                Ok(None) => {}
                Err(problem) => limits.problems.push(problem),
            }
        }
    }
    limits
}

/// The groups that this process is charged to with all their ancestors up to
/// the mounts, v2 before v1 and the inner before the outer. Directories may be
/// among them that are not there.
pub(super) fn groups(root: &Path) -> (Vec<Group>, Option<ProbeError>) {
    let (own, problem) = own_groups(&root.join("proc/self/cgroup"));
    let mount = root.join("sys/fs/cgroup");
    let up = |version, mount: PathBuf, own: &Path| {
        own.ancestors()
            .map(|group| Group {
                version,
                directory: mount.join(group),
            })
            .collect::<Vec<_>>()
    };
    let mut all = up(Version::V2, unified_mount(&mount), &own.unified);
    all.extend(up(Version::V1, mount.join("memory"), &own.memory));
    (all, problem)
}

/// The file that tells of the stalls of our own v2 group, or of the nearest
/// above it that has one.
pub(super) fn pressure_file(root: &Path) -> Option<PathBuf> {
    let (groups, _) = groups(root);
    groups
        .into_iter()
        .filter(|group| group.version == Version::V2)
        .map(|group| group.directory.join("memory.pressure"))
        .find(|path| path.exists())
}

/// Our groups, as paths relative to their mounts; empty for the mount itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    unified: PathBuf,
    memory: PathBuf,
}

/// Which groups we are in. Where this is not to be learnt, the mounts are still
/// worth reading.
fn own_groups(path: &Path) -> (Groups, Option<ProbeError>) {
    match read_start(path, CGROUP_MAX_BYTES) {
        Ok(content) => match parse_groups(&content) {
            Some(groups) => (groups, None),
            None => {
                let problem = ProbeError::malformed(path, "a cgroup on each line");
                (Groups::default(), Some(problem))
            }
        },
        Err(source) if is_absent(&source) => (Groups::default(), None),
        Err(source) => (Groups::default(), Some(ProbeError::read(path, source))),
    }
}

/// Adds a limit to those found, unless a lower one of its kind is there.
pub(super) fn keep_least(
    found: &mut Vec<FoundLimit>,
    source: LimitSource,
    path: &Path,
    bytes: u64,
) {
    let limit = || FoundLimit {
        source,
        path: path.to_owned(),
        bytes,
    };
    match found.iter_mut().find(|known| known.source == source) {
        Some(known) if known.bytes <= bytes => {}
        Some(known) => *known = limit(),
        None => found.push(limit()),
    }
}

/// Where v2 is mounted: below `unified` if v1 has the usual place. A v2 root
/// always has `cgroup.controllers`, and may well have a group named `unified`.
fn unified_mount(mount: &Path) -> PathBuf {
    let hybrid = mount.join("unified");
    let is_root = |directory: &Path| directory.join("cgroup.controllers").exists();
    if is_root(&hybrid) && !is_root(mount) {
        hybrid
    } else {
        mount.to_owned()
    }
}

/// `None` if a line is there, but none is of the form `id:controllers:path`.
fn parse_groups(content: &[u8]) -> Option<Groups> {
    let mut groups = Groups::default();
    let mut understood = content.trim_ascii().is_empty();
    for line in content.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if number(id).is_none() {
            continue;
        }
        understood = true;
        if id == b"0" && controllers.is_empty() {
            groups.unified = below_mount(path);
        } else if controllers
            .split(|byte| *byte == b',')
            .any(|name| name == b"memory")
        {
            groups.memory = below_mount(path);
        }
    }
    understood.then_some(groups)
}

/// The path relative to the mount. A group outside of our cgroup namespace is
/// shown as `/../..` and cannot be reached; the mount is the nearest we have.
fn below_mount(path: &[u8]) -> PathBuf {
    if path.len() > PATH_MAX_BYTES || path.contains(&0) {
        return PathBuf::new();
    }
    let path = Path::new(OsStr::from_bytes(path));
    if path.components().any(|part| part == Component::ParentDir) {
        return PathBuf::new();
    }
    path.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

/// The limit in the file, if it is there and sets one.
#[cfg(test)]
fn read_limit(path: &Path, source: LimitSource) -> Result<Option<u64>, ProbeError> {
    let content = match read_start(path, LIMIT_MAX_BYTES) {
        Ok(content) => content,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(ProbeError::read(path, error)),
    };
    parse_limit(&content, path, source)
}

/// The limit in the content of such a file, if it sets one.
pub(super) fn parse_limit(
    content: &[u8],
    path: &Path,
    source: LimitSource,
) -> Result<Option<u64>, ProbeError> {
    let value = content.trim_ascii();
    let is_v1 = matches!(source, LimitSource::CgroupV1 | LimitSource::CgroupSoft);
    if value == b"max" && !is_v1 {
        return Ok(None);
    }
    let bytes = number(value).ok_or_else(|| ProbeError::malformed(path, "a number of bytes"))?;
    let unlimited = is_v1 && bytes >= V1_UNLIMITED_BYTES;
    Ok((!unlimited).then_some(bytes))
}

/// A name too long to exist is as absent as one that does not.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

#[cfg(test)]
mod tests;
