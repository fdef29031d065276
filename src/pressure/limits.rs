//! Which limit rules, and the marks that follow from it.
//!
//! Pure: what was configured and what the probes found come in, numbers and
//! the reason for them come out. Whatever the input, the marks that come out
//! are in order; a value that cannot be used is replaced, and the replacement
//! is among the reasons. A daemon that does not start because its cgroup has
//! an odd number in it helps nobody.

mod candidate;

use std::fmt;
use std::path::PathBuf;

use crate::pressure::level::Thresholds;
use crate::pressure::probe::host::HostMemory;
use crate::pressure::probe::rlimit::Rlimits;
use crate::pressure::size::{Size, percent_of};

/// The threshold if none is configured, in bytes.
pub const DEFAULT_THRESHOLD_BYTES: u64 = 1 << 30;
/// Resume as a share of the threshold if none is configured, in percent.
pub const DEFAULT_RESUME_PERCENT: u8 = 80;
/// A lower limit than this is raised to it, in bytes.
pub const MINIMUM_LIMIT_BYTES: u64 = 1 << 20;
/// A lower threshold than this is raised to it, in bytes: half the least limit.
pub const MINIMUM_THRESHOLD_BYTES: u64 = MINIMUM_LIMIT_BYTES / 2;

/// The greatest share of the limit the threshold may take. The rest is for
/// what comes in between a sample and the end of the relief it starts.
const THRESHOLD_PERCENT: u8 = 70;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The limit, if one is set.
    pub limit: Option<ConfiguredLimit>,
    /// The threshold, in bytes.
    pub threshold_bytes: u64,
    /// The mark below which aggressive mode ends.
    pub resume: Resume,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            limit: None,
            threshold_bytes: DEFAULT_THRESHOLD_BYTES,
            resume: Resume::default(),
        }
    }
}

/// A limit set by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredLimit {
    /// The limit, in bytes.
    pub bytes: u64,
    /// What set it, as the user knows it: `--memory`, `memory.limit`.
    pub origin: String,
}

/// Where aggressive mode ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// A share of the threshold that applies, in percent, 1 to 99.
    Percent(u8),
    /// A number of bytes.
    Bytes(u64),
}

impl Default for Resume {
    fn default() -> Self {
        Resume::Percent(DEFAULT_RESUME_PERCENT)
    }
}

/// What kind of thing sets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// The user.
    Configured,
    /// cgroup v2 `memory.high`: above it the kernel throttles.
    CgroupHigh,
    /// cgroup v2 `memory.max`: above it the kernel kills.
    CgroupMax,
    /// cgroup v1 `memory.limit_in_bytes`: above it the kernel kills.
    CgroupV1,
    /// cgroup v1 `memory.soft_limit_in_bytes`: above it the kernel takes pages
    /// back when the host runs short.
    CgroupSoft,
    /// What others left of the group's limit at start.
    GroupRoom,
    /// `RLIMIT_DATA`: above it allocations fail.
    RlimitData,
    /// `RLIMIT_AS`: above it every mapping fails.
    RlimitAddressSpace,
    /// The memory of the host that was available at start.
    HostAvailable,
    /// Nothing: the limit follows from the threshold.
    Threshold,
}

impl LimitSource {
    /// How much of the limit filed may count on, in percent. What is held back
    /// is charged to us without being ours to see: page tables, kernel buffers,
    /// other processes of the group, and on the host everybody else.
    pub fn usable_percent(self) -> u8 {
        match self {
            LimitSource::Configured
            | LimitSource::CgroupHigh
            | LimitSource::CgroupSoft
            | LimitSource::Threshold => 100,
            LimitSource::CgroupMax
            | LimitSource::CgroupV1
            | LimitSource::GroupRoom
            | LimitSource::RlimitData
            | LimitSource::RlimitAddressSpace => 90,
            LimitSource::HostAvailable => 80,
        }
    }
}

impl fmt::Display for LimitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitSource::Configured => "configuration",
            LimitSource::CgroupHigh => "cgroup memory.high",
            LimitSource::CgroupMax => "cgroup memory.max",
            LimitSource::CgroupV1 => "cgroup memory.limit_in_bytes",
            LimitSource::CgroupSoft => "cgroup memory.soft_limit_in_bytes",
            LimitSource::GroupRoom => "room that others left in the cgroup",
            LimitSource::RlimitData => "RLIMIT_DATA",
            LimitSource::RlimitAddressSpace => "RLIMIT_AS",
            LimitSource::HostAvailable => "memory available at start",
            LimitSource::Threshold => "threshold",
        })
    }
}

/// A limit read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLimit {
    /// What kind of limit the file sets.
    pub source: LimitSource,
    /// The file.
    pub path: PathBuf,
    /// What it says, in bytes.
    pub bytes: u64,
}

/// What applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What set the limit that rules.
    pub source: LimitSource,
    /// The limit and the marks below it.
    pub thresholds: Thresholds,
    /// Lines for people: first what applies and why, then what was found but
    /// does not rule, and what had to be replaced.
    pub why: Vec<String>,
}

/// Finds the least limit and derives the marks from it.
///
/// `host` is the memory of the host when filed started; `None` if unknown.
pub fn choose(
    wanted: &Wanted,
    found: &[FoundLimit],
    rlimits: Rlimits,
    host: Option<HostMemory>,
) -> Limits {
    let candidates = candidate::candidates(wanted, found, rlimits, host);
    let (ruling, others) = match candidates.split_first() {
        Some((least, others)) => (least.clone(), others),
        None => (candidate::without_any(wanted.threshold_bytes), &[][..]),
    };

    let limit_bytes = ruling.usable_bytes.max(MINIMUM_LIMIT_BYTES);
    let share_bytes = percent_of(limit_bytes, THRESHOLD_PERCENT);
    let wanted_bytes = wanted.threshold_bytes.max(MINIMUM_THRESHOLD_BYTES);
    let threshold_bytes = wanted_bytes.min(share_bytes);
    let resume_bytes = usable_resume(wanted.resume, threshold_bytes);
    let critical_bytes = threshold_bytes.midpoint(limit_bytes);
    let thresholds = Thresholds::new(
        resume_bytes.unwrap_or_else(|| percent_of(threshold_bytes, DEFAULT_RESUME_PERCENT)),
        threshold_bytes,
        critical_bytes,
        limit_bytes,
    )
    .expect(
        "threshold is 512 KiB to 70 % of a limit of 1 MiB or more, resume is checked against it",
    );

    let threshold_from = if threshold_bytes < wanted_bytes {
        format!("{THRESHOLD_PERCENT} % of the limit")
    } else {
        "as configured".to_owned()
    };
    let mut why = vec![format!(
        "limit {} ({}), threshold {} ({threshold_from}), resume {}",
        Size(limit_bytes),
        ruling.origin,
        Size(threshold_bytes),
        Size(thresholds.resume_bytes()),
    )];
    why.extend(others.iter().map(|other| {
        format!(
            "not ruling: {} ({})",
            Size(other.usable_bytes),
            other.origin
        )
    }));
    if limit_bytes > ruling.usable_bytes {
        why.push(format!(
            "limit raised from {} to the least possible",
            Size(ruling.usable_bytes)
        ));
    }
    if wanted_bytes > wanted.threshold_bytes {
        why.push(format!(
            "threshold raised from {} to the least possible",
            Size(wanted.threshold_bytes)
        ));
    }
    if resume_bytes.is_none() {
        why.push(format!(
            "resume {} is not between 0 and the threshold, {DEFAULT_RESUME_PERCENT} % of it instead",
            written(wanted.resume)
        ));
    }
    Limits {
        source: ruling.source,
        thresholds,
        why,
    }
}

/// Resume in bytes, if it lies between 0 and the threshold.
fn usable_resume(resume: Resume, threshold_bytes: u64) -> Option<u64> {
    let bytes = match resume {
        Resume::Percent(percent) => percent_of(threshold_bytes, percent),
        Resume::Bytes(bytes) => bytes,
    };
    (bytes > 0 && bytes < threshold_bytes).then_some(bytes)
}

fn written(resume: Resume) -> String {
    match resume {
        Resume::Percent(percent) => format!("{percent} %"),
        Resume::Bytes(bytes) => Size(bytes).to_string(),
    }
}

#[cfg(test)]
mod tests;
