//! What every row works with: the program, a folder, groups, and the scale of it all.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use tempfile::TempDir;

use crate::group::{Group, Groups};
use crate::run::Fallible;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// The share of the full sizes if `CONTRACT_SCALE` does not say.
const SCALE: f64 = 0.05;

/// Where rows are measured. Dropped, it takes its folder and groups with it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) groups: Groups,
    pub(crate) scale: f64,
    filed: PathBuf,
    me: PathBuf,
    stopped: Arc<AtomicBool>,
    named: AtomicU32,
    folder: TempDir,
}

impl Bench {
    /// Makes the folder, on a disk: files on a tmpfs are memory of the group that wrote them.
    pub(crate) fn new(groups: Groups) -> Fallible<Bench> {
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stopped))?;
        }
        let scale = match env::var("CONTRACT_SCALE") {
            Ok(text) => text.parse().map_err(|_| "CONTRACT_SCALE is no number")?,
            Err(_) => SCALE,
        };
        if !(0.0..=1.0).contains(&scale) {
            return Err("CONTRACT_SCALE is a share: between 0 and 1".into());
        }
        let temporary = env::temp_dir();
        let places = [temporary.as_path(), Path::new("/var/tmp")];
        let on_disk = places.into_iter().find(|place| !in_memory(place));
        let folder = tempfile::Builder::new()
            .prefix("filed-contract-")
            .tempdir_in(on_disk.ok_or("no folder on a disk: set TMPDIR")?)?;
        let built = PathBuf::from(env!("CARGO_BIN_EXE_filed"));
        Ok(Bench {
            groups,
            scale,
            filed: env::var_os("CONTRACT_FILED").map_or(built, PathBuf::from),
            me: env::current_exe()?,
            stopped,
            named: AtomicU32::new(0),
            folder,
        })
    }

    /// This share of `full_bytes`, in whole MiB, and at least `least_bytes`.
    pub(crate) fn scaled(&self, full_bytes: u64, least_bytes: u64) -> u64 {
        let bytes = (full_bytes as f64 * self.scale) as u64;
        (bytes.max(least_bytes) / MIB).max(1) * MIB
    }

    /// This share of `full` of something that is counted, and at least `least`.
    pub(crate) fn scaled_count(&self, full: u64, least: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(least)
    }

    /// Rounds of which the median is taken: a short run says little.
    pub(crate) fn rounds(&self) -> usize {
        if self.scale >= 0.02 && self.scale < 0.5 {
            3
        } else {
            1
        }
    }

    /// The program that is measured.
    pub(crate) fn filed(&self) -> &Path {
        &self.filed
    }

    /// This program, which plays other parts too.
    pub(crate) fn me(&self) -> &Path {
        &self.me
    }

    /// A path in the bench's folder that nobody else has.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("{number}-{name}"))
    }

    /// A group with this limit, if any.
    pub(crate) fn group(&self, limit_bytes: Option<u64>) -> Fallible<Group> {
        let group = self.groups.make(limit_bytes);
        group.map_err(|error| format!("make a group: {error}").into())
    }

    /// Whether somebody wants this to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Whether a folder's files are kept in memory, going by the mount it is on.
fn in_memory(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else {
        return true;
    };
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        folder.starts_with(path).then_some((path.len(), kind))
    });
    let mount = below.max_by_key(|(length, _)| *length);
    mount.is_some_and(|(_, kind)| matches!(kind, "tmpfs" | "ramfs"))
}

/// A folder or file that goes when this does.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = match self.0.is_dir() {
            true => fs::remove_dir_all(&self.0),
            false => fs::remove_file(&self.0),
        };
    }
}
