//! Control groups to run in: made, read and taken away again.
//!
//! Version 1 where its memory controller is mounted, else version 2 with the controller given to the
//! groups below the root. Groups stand directly below the mount's root, so that no limit but their own
//! rules. A group that is dropped ends what still runs in it and goes, also after a failure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// What the names of groups begin with; the process that made them follows.
const PREFIX: &str = "filed-contract-";

/// Which kind of groups there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `memory.limit_in_bytes` and its like.
    V1,
    /// `memory.max` and its like.
    V2,
}

/// Where groups are made.
#[derive(Debug)]
pub(crate) struct Groups {
    version: Version,
    root: PathBuf,
    made: AtomicU32,
}

impl Groups {
    /// Finds the memory controller and tries it; says why it cannot be used.
    pub(crate) fn find() -> Result<Groups, String> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
        let (version, root) = find_in(&mounts).ok_or("no cgroup memory controller is mounted")?;
        let groups = Groups {
            version,
            root,
            made: AtomicU32::new(0),
        };
        groups.sweep();
        let trial = groups.make(Some(64 << 20));
        trial.map_err(|error| format!("no memory cgroup can be made: {error}"))?;
        Ok(groups)
    }

    /// Takes away the groups of benchmarks that were killed.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(Group {
                    version: self.version,
                    path: entry.path(),
                });
            }
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Makes a group with this hard limit, if any.
    pub(crate) fn make(&self, limit_bytes: Option<u64>) -> io::Result<Group> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let path = self.root.join(name);
        fs::create_dir(&path)?;
        let group = Group {
            version: self.version,
            path,
        };
        if let Some(bytes) = limit_bytes {
            group.set_limit(bytes)?;
        }
        // Fails where the controller is not given to groups below the root.
        group.usage_bytes()?;
        Ok(group)
    }
}

fn find_in(mounts: &str) -> Option<(Version, PathBuf)> {
    let fields = mounts.lines().map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next(), fields.next(), fields.next())
    });
    let mut second = None;
    for (path, kind, options) in fields {
        let path = PathBuf::from(path?);
        match kind? {
            "cgroup" if options?.split(',').any(|option| option == "memory") => {
                return Some((Version::V1, path));
            }
            "cgroup2" => {
                let controllers = fs::read_to_string(path.join("cgroup.controllers"));
                if controllers.is_ok_and(|all| all.split_whitespace().any(|one| one == "memory")) {
                    second = Some((Version::V2, path));
                }
            }
            _ => {}
        }
    }
    if let Some((_, root)) = &second {
        // Already so below systemd; where it is not allowed, making a group says so.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
    }
    second
}

/// A control group of our own.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    /// The file a process writes its id to, to be in it.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// The file that says how much memory is charged to it.
    pub(crate) fn usage_file(&self) -> PathBuf {
        self.path.join(match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        })
    }

    /// Sets the limit that nothing passes: what does not fit is killed.
    pub(crate) fn set_limit(&self, bytes: u64) -> io::Result<()> {
        self.write(
            match self.version {
                Version::V1 => "memory.limit_in_bytes",
                Version::V2 => "memory.max",
            },
            bytes,
        )
    }

    /// Sets the limit that is asked for and not enforced by killing.
    pub(crate) fn set_gentle_limit(&self, bytes: u64) -> io::Result<()> {
        self.write(self.gentle_limit(), bytes)
    }

    /// The name of the file that limit is in.
    pub(crate) fn gentle_limit(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.soft_limit_in_bytes",
            Version::V2 => "memory.high",
        }
    }

    /// Bytes charged to it now.
    pub(crate) fn usage_bytes(&self) -> io::Result<u64> {
        number(&self.usage_file())
    }

    /// The most that ever was charged to it, in bytes; none where the kernel does not keep it.
    pub(crate) fn most_bytes(&self) -> Option<u64> {
        number(&self.path.join(match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        }))
        .ok()
    }

    /// Page cache charged to it, in bytes.
    pub(crate) fn cache_bytes(&self) -> io::Result<u64> {
        match self.version {
            Version::V1 => self.field("memory.stat", "total_cache"),
            Version::V2 => self.field("memory.stat", "file"),
        }
    }

    /// Processes in it that the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self) -> io::Result<u64> {
        match self.version {
            Version::V1 => self.field("memory.oom_control", "oom_kill"),
            Version::V2 => self.field("memory.events", "oom_kill"),
        }
    }

    /// How often it was at its limit.
    pub(crate) fn times_full(&self) -> io::Result<u64> {
        match self.version {
            Version::V1 => number(&self.path.join("memory.failcnt")),
            Version::V2 => self.field("memory.events", "max"),
        }
    }

    fn field(&self, file: &str, name: &str) -> io::Result<u64> {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path)?;
        let value = text.lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key == name).then(|| value.trim().parse().ok())?
        });
        value.ok_or_else(|| io::Error::other(format!("{}: no {name}", path.display())))
    }

    fn write(&self, file: &str, bytes: u64) -> io::Result<()> {
        fs::write(self.path.join(file), bytes.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was killed takes a moment to be gone.
        for _ in 0..200 {
            let inside = fs::read_to_string(self.entrance()).unwrap_or_default();
            for pid in inside.lines().filter_map(|line| line.parse().ok()) {
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
        eprintln!("contract: {} could not be removed", self.path.display());
    }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let value = text.trim().parse();
    value.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}
