//! The memory of our cgroup and of those above it, read again and again.
//!
//! Owns one descriptor per file that was there when the probe was opened, so a
//! reading costs one `pread` per file and no walk of paths. The rule: a reading
//! never fails as a whole. What is not there counts as absent, what cannot be
//! read or understood is left out and told of once per file.
//!
//! | | v2 | v1 |
//! |---|---|---|
//! | limit | `memory.max`, `memory.high` | `memory.limit_in_bytes` |
//! | used | `memory.current` | `memory.usage_in_bytes` |
//! | split by kind | `memory.stat` | `memory.stat`, `memory.kmem.usage_in_bytes` |
//! | kills | `memory.events` | `memory.oom_control` |
//! | limit met | `memory.events` | `memory.failcnt` |
//!
//! A group's usage includes page cache that the kernel takes back as soon as
//! somebody needs the room, so usage is never to be compared with a limit as
//! it is: without `memory.stat` a group's usage says nothing and is left out.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::pressure::limits::{FoundLimit, LimitSource};
use crate::pressure::probe::cgroup::{self, Group, LIMIT_MAX_BYTES, Version};
use crate::pressure::probe::{ProbeError, number};

/// A page or two of short lines; the kernel of today writes about 3 KiB.
const TABLE_MAX_BYTES: usize = 16 << 10;

const NUMBER: &str = "a number of bytes";
const TABLE: &str = "a name and a number on each line";

/// The memory of the group that is nearest to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// The limit: in v2 the lower of `memory.high` and `memory.max`.
    pub limit_bytes: u64,
    /// Everything charged to the group, page cache included.
    pub used_bytes: u64,
    /// The same without the pages of files that were not used lately.
    pub working_bytes: u64,
    /// What can only be freed by those it belongs to: anonymous and shared
    /// memory and the kernel's own. In v1 the kernel's part includes what it
    /// could take back, since it is not told apart.
    pub unreclaimable_bytes: u64,
    /// How many processes the kernel killed in the groups that have a limit.
    pub oom_kills: u64,
    /// How often the group met its limit. Streaming alone makes this grow.
    pub max_events: u64,
    /// How often the group was above `memory.high`; 0 in v1.
    pub high_events: u64,
}

impl GroupUsage {
    /// What can still be had before something has to be given up.
    pub fn headroom_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.unreclaimable_bytes)
    }
}

/// The open files of our groups.
#[derive(Debug)]
pub struct GroupProbe {
    groups: Vec<OpenGroup>,
    problems: RefCell<Vec<ProbeError>>,
}

impl GroupProbe {
    /// Opens what is there of our groups, with `/proc` and `/sys` below `root`.
    pub fn open(root: &Path) -> Self {
        let (groups, problem) = cgroup::groups(root);
        let mut problems = Vec::from_iter(problem);
        let groups = groups
            .iter()
            .map(|group| OpenGroup::open(group, &mut problems))
            .collect();
        Self {
            groups,
            problems: RefCell::new(problems),
        }
    }

    /// What could not be opened, read or understood since this was last asked;
    /// each file is named once.
    pub fn take_problems(&self) -> Vec<ProbeError> {
        self.problems.take()
    }

    /// Reads all limits; gives the least of each kind.
    pub fn limits(&self) -> Vec<FoundLimit> {
        let mut found = Vec::new();
        for (source, file) in self.groups.iter().flat_map(|group| &group.limits) {
            if let Some(bytes) = self.limit(*source, file) {
                cgroup::keep_least(&mut found, *source, &file.path, bytes);
            }
        }
        found
    }

    /// Reads the usage of the group with the least headroom among those that
    /// have a limit. The v1 soft limit is none: nothing happens at it.
    pub fn usage(&self) -> Option<GroupUsage> {
        self.tightest().map(|(usage, _)| usage)
    }

    /// The same with the folder of that group.
    pub fn tightest(&self) -> Option<(GroupUsage, &Path)> {
        let used: Vec<_> = self
            .groups
            .iter()
            .filter_map(|group| Some((self.group_usage(group)?, group.directory.as_path())))
            .collect();
        // Counted together: which group is the tightest may change, and a kill in any of them is one.
        let oom_kills = used.iter().map(|(usage, _)| usage.oom_kills).sum();
        let (usage, directory) = used
            .into_iter()
            .min_by_key(|(usage, _)| usage.headroom_bytes())?;
        Some((GroupUsage { oom_kills, ..usage }, directory))
    }

    /// The v1 group with the lowest limit and that limit: where a mark on the
    /// usage is worth setting.
    pub fn lowest_v1_limit(&self) -> Option<(&Path, u64)> {
        self.groups
            .iter()
            .filter(|group| group.version == Version::V1)
            .filter_map(|group| Some((group.directory.as_path(), self.hard_limit(group)?)))
            .min_by_key(|(_, bytes)| *bytes)
    }

    /// The `memory.events` that tell of our own limits: those of the v2 groups
    /// that have one.
    pub fn event_files(&self) -> Vec<PathBuf> {
        self.groups
            .iter()
            .filter(|group| group.version == Version::V2 && self.hard_limit(group).is_some())
            .filter_map(|group| Some(group.events.as_ref()?.path.clone()))
            .collect()
    }

    fn hard_limit(&self, group: &OpenGroup) -> Option<u64> {
        group
            .limits
            .iter()
            .filter(|(source, _)| *source != LimitSource::CgroupSoft)
            .filter_map(|(source, file)| self.limit(*source, file))
            .min()
    }

    fn group_usage(&self, group: &OpenGroup) -> Option<GroupUsage> {
        let limit_bytes = self.hard_limit(group)?;
        let used_bytes = self.number(group.used.as_ref()?)?;
        let mut buffer = [0; TABLE_MAX_BYTES];
        let stat = self.table(group.stat.as_ref()?, &mut buffer)?;
        let inactive_file_bytes = stat.of_version(group.version, b"inactive_file");
        let unreclaimable_bytes = match group.version {
            Version::V1 => {
                let kernel = group.kernel.as_ref().and_then(|file| self.number(file));
                v1_unreclaimable(&stat, kernel)
            }
            Version::V2 => v2_unreclaimable(&stat),
        };
        let mut usage = GroupUsage {
            limit_bytes,
            used_bytes,
            working_bytes: used_bytes.saturating_sub(inactive_file_bytes.unwrap_or(0)),
            // Counters are read one after the other and lag by some pages.
            unreclaimable_bytes: unreclaimable_bytes?.min(used_bytes),
            ..GroupUsage::default()
        };
        if let Some(events) = group.events.as_ref()
            && let Some(events) = self.table(events, &mut buffer)
        {
            usage.oom_kills = events.get(b"oom_kill").unwrap_or(0);
            usage.max_events = events.get(b"max").unwrap_or(0);
            usage.high_events = events.get(b"high").unwrap_or(0);
        }
        if let Some(failures) = &group.failures {
            usage.max_events = self.number(failures).unwrap_or(0);
        }
        Some(usage)
    }

    fn limit(&self, source: LimitSource, file: &KeptFile) -> Option<u64> {
        let mut buffer = [0; LIMIT_MAX_BYTES as usize];
        self.once(
            file,
            file.read(&mut buffer)
                .and_then(|content| cgroup::parse_limit(content, &file.path, source)),
        )?
    }

    fn number(&self, file: &KeptFile) -> Option<u64> {
        let mut buffer = [0; LIMIT_MAX_BYTES as usize];
        self.once(
            file,
            file.read(&mut buffer).and_then(|content| {
                number(content).ok_or_else(|| ProbeError::malformed(&file.path, NUMBER))
            }),
        )
    }

    fn table<'a>(&self, file: &KeptFile, buffer: &'a mut [u8]) -> Option<Table<'a>> {
        self.once(
            file,
            file.read(buffer).and_then(|content| {
                Table::parse(content).ok_or_else(|| ProbeError::malformed(&file.path, TABLE))
            }),
        )
    }

    /// Keeps the first problem of each file.
    fn once<T>(&self, file: &KeptFile, result: Result<T, ProbeError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => {
                if !file.told.replace(true) {
                    self.problems.borrow_mut().push(problem);
                }
                None
            }
        }
    }
}

/// The open files of one group.
#[derive(Debug)]
struct OpenGroup {
    version: Version,
    directory: PathBuf,
    limits: Vec<(LimitSource, KeptFile)>,
    used: Option<KeptFile>,
    stat: Option<KeptFile>,
    /// A table with the kills and, in v2, how often limits were met.
    events: Option<KeptFile>,
    /// v1: how often the limit was met.
    failures: Option<KeptFile>,
    /// v1: the kernel's part.
    kernel: Option<KeptFile>,
}

impl OpenGroup {
    fn open(group: &Group, problems: &mut Vec<ProbeError>) -> Self {
        let mut open = |name: &str| KeptFile::open(group.directory.join(name), problems);
        let limits = group
            .version
            .limit_files()
            .iter()
            .filter_map(|(source, name)| Some((*source, open(name)?)))
            .collect();
        let is_v1 = group.version == Version::V1;
        let (used, events) = if is_v1 {
            ("memory.usage_in_bytes", "memory.oom_control")
        } else {
            ("memory.current", "memory.events")
        };
        Self {
            version: group.version,
            directory: group.directory.clone(),
            limits,
            used: open(used),
            stat: open("memory.stat"),
            events: open(events),
            failures: is_v1.then(|| open("memory.failcnt")).flatten(),
            kernel: is_v1.then(|| open("memory.kmem.usage_in_bytes")).flatten(),
        }
    }
}

/// A file that stays open.
#[derive(Debug)]
struct KeptFile {
    file: File,
    path: PathBuf,
    /// Its problem is known.
    told: Cell<bool>,
}

impl KeptFile {
    fn open(path: PathBuf, problems: &mut Vec<ProbeError>) -> Option<Self> {
        match File::open(&path) {
            Ok(file) => Some(Self {
                file,
                path,
                told: Cell::new(false),
            }),
            Err(error) => {
                if !cgroup::is_absent(&error) {
                    problems.push(ProbeError::read(&path, error));
                }
                None
            }
        }
    }

    fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], ProbeError> {
        let length = self
            .file
            .read_at(buffer, 0)
            .map_err(|source| ProbeError::read(&self.path, source))?;
        Ok(buffer.get(..length).unwrap_or_default())
    }
}

/// A file with a name and a number on each line.
struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// `None` if there is no such line at all.
    fn parse(content: &'a [u8]) -> Option<Self> {
        let table = Self(content);
        table.lines().next().is_some().then_some(table)
    }

    fn lines(&self) -> impl Iterator<Item = (&'a [u8], u64)> + use<'a> {
        // What follows the last line feed may be a number cut short.
        self.0
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| {
                let line = line.strip_suffix(b"\n")?;
                let space = line.iter().position(|byte| *byte == b' ')?;
                let (name, value) = line.split_at(space);
                Some((name, number(value)?))
            })
    }

    fn get(&self, name: &[u8]) -> Option<u64> {
        self.lines()
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// In v1 the bare names count the group alone, while its usage and limit
    /// include the groups below.
    fn of_version(&self, version: Version, name: &[u8]) -> Option<u64> {
        match version {
            Version::V1 => self
                .get(&[b"total_", name].concat())
                .or_else(|| self.get(name)),
            Version::V2 => self.get(name),
        }
    }
}

/// `None` if not even the anonymous part is known.
fn v2_unreclaimable(stat: &Table<'_>) -> Option<u64> {
    let get = |name: &[u8]| stat.get(name).unwrap_or(0);
    // `kernel` is the sum of the others, and newer than them.
    let kernel = match stat.get(b"kernel") {
        Some(all) => all.saturating_sub(get(b"slab_reclaimable")),
        None => [
            b"slab_unreclaimable".as_slice(),
            b"kernel_stack",
            b"pagetables",
            b"percpu",
        ]
        .into_iter()
        .fold(0, |sum: u64, name| sum.saturating_add(get(name))),
    };
    Some(
        stat.get(b"anon")?
            .saturating_add(get(b"shmem"))
            .saturating_add(kernel),
    )
}

/// `None` if not even the anonymous part is known.
fn v1_unreclaimable(stat: &Table<'_>, kernel_bytes: Option<u64>) -> Option<u64> {
    let shared_bytes = stat.of_version(Version::V1, b"shmem").unwrap_or(0);
    Some(
        stat.of_version(Version::V1, b"rss")?
            .saturating_add(shared_bytes)
            .saturating_add(kernel_bytes.unwrap_or(0)),
    )
}

#[cfg(test)]
mod tests;
