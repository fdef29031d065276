//! Limits that change while work goes on: somebody lowers the group's, or the configuration is read
//! again.
//!
//! What must hold: whatever changes, the marks and the plan in force are those that a start would have
//! chosen under the new limits, beside the same others and on the same host, but for one thing: what
//! runs is not ended for want of room. A limit that
//! not even one worker fits under leaves one worker, and says so; the controller does what can be done.

use std::path::Path;

use super::tuning::{self, Plan, TooSmall, Wish};
use crate::pressure::limits::{self, FoundLimit, LimitSource, Limits, Wanted};
use crate::pressure::probe::group::{GroupProbe, GroupUsage};
use crate::pressure::probe::host::HostMemory;
use crate::pressure::probe::proc::ProcSelf;
use crate::pressure::probe::rlimit::{self, Rlimits};

/// Where others hold less than this of our group, its limit says what there is to know.
const OTHERS_FROM_BYTES: u64 = 4 << 20;

/// Reads the configuration again, as far as it is about memory.
pub type Reload<'a> = Box<dyn FnMut() -> Result<Wanted, String> + 'a>;

/// What the limits follow from, as it was last seen.
pub struct LiveLimits<'a> {
    wanted: Wanted,
    found: Vec<FoundLimit>,
    rlimits: Rlimits,
    host: Option<HostMemory>,
    /// What others held of the tightest group at start, in bytes.
    others_bytes: u64,
    wish: Option<Wish>,
    reload: Option<Reload<'a>>,
}

/// What applies from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The limit that rules and its marks.
    pub limits: Limits,
    /// What may be used under it; none where nobody made a wish.
    pub plan: Option<Plan>,
}

impl<'a> LiveLimits<'a> {
    /// Looks for limits, and chooses.
    pub fn find(
        wanted: Wanted,
        group: &GroupProbe,
        host: Option<HostMemory>,
    ) -> (LiveLimits<'a>, Limits) {
        let live = LiveLimits {
            wanted,
            found: group.limits(),
            rlimits: rlimit::limits(),
            host,
            others_bytes: others_bytes(group).unwrap_or(0),
            wish: None,
            reload: None,
        };
        let limits = live.limits(group);
        (live, limits)
    }

    /// What rules, with what others held at start taken off what the tightest group has.
    fn limits(&self, group: &GroupProbe) -> Limits {
        let mut found = self.found.clone();
        found.extend(room_left(group, self.others_bytes));
        limits::choose(&self.wanted, &found, self.rlimits, self.host)
    }

    /// Has the plan for `wish`, if there is one, follow the limits from now on, and `reload` asked for what is wanted
    /// when somebody says that it changed.
    pub fn follow(self, wish: Option<Wish>, reload: Reload<'a>) -> LiveLimits<'a> {
        LiveLimits {
            wish,
            reload: Some(reload),
            ..self
        }
    }

    /// Looks whether a limit has changed; if so, what applies from now on.
    pub(super) fn check(&mut self, group: &GroupProbe) -> Option<Applied> {
        let (found, rlimits) = (group.limits(), rlimit::limits());
        if found == self.found && rlimits == self.rlimits {
            return None;
        }
        (self.found, self.rlimits) = (found, rlimits);
        Some(self.apply(group))
    }

    /// Reads the configuration again; what applies then, if it is right and anything is new.
    pub(super) fn reload(&mut self, group: &GroupProbe) -> Option<Applied> {
        match self.reload.as_mut()?() {
            Ok(wanted) if wanted == self.wanted => {
                tracing::info!("the configuration was read again: nothing about memory is new");
                None
            }
            Ok(wanted) => {
                self.wanted = wanted;
                Some(self.apply(group))
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is wrong: going on with the one before");
                None
            }
        }
    }

    /// Wants something else from now on; what applies then.
    ///
    /// # Errors
    ///
    /// If not even one worker fits under it: then everything stays as it was.
    pub(super) fn set(
        &mut self,
        wanted: Wanted,
        wish: Wish,
        group: &GroupProbe,
    ) -> Result<Applied, TooSmall> {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let limits = self.limits(group);
        match tuning::fit(&wish, &limits.thresholds) {
            Ok(plan) => {
                self.wish = Some(wish);
                Ok(Applied {
                    limits,
                    plan: Some(plan),
                })
            }
            Err(too_small) => {
                self.wanted = before;
                Err(too_small)
            }
        }
    }

    fn apply(&self, group: &GroupProbe) -> Applied {
        let limits = self.limits(group);
        let plan = self.wish.as_ref().map(|wish| {
            tuning::fit(wish, &limits.thresholds).unwrap_or_else(|too_small| {
                tracing::warn!(
                    limit_bytes = limits.thresholds.limit_bytes(),
                    smallest_bytes = too_small.smallest_bytes,
                    "the memory limit is too small to work with: going on with one worker"
                );
                tuning::least(wish)
            })
        });
        Applied { limits, plan }
    }
}

/// What others hold of the tightest of our groups, in bytes, if that is much: a start is not to take what
/// it sees is not there. Later our own files and tables in the kernel could not be told from theirs,
/// so this is asked once.
fn others_bytes(group: &GroupProbe) -> Option<u64> {
    let usage = group.usage()?;
    let own = ProcSelf::open(Path::new("/")).ok()?.memory().ok()?;
    let bytes = held_by_others(&usage, own.anonymous_bytes());
    (bytes >= OTHERS_FROM_BYTES).then_some(bytes)
}

fn held_by_others(usage: &GroupUsage, own_bytes: u64) -> u64 {
    usage.unreclaimable_bytes.saturating_sub(own_bytes)
}

/// What others leave of the tightest group, if they hold anything worth counting.
fn room_left(group: &GroupProbe, others_bytes: u64) -> Option<FoundLimit> {
    if others_bytes == 0 {
        return None;
    }
    let (usage, directory) = group.tightest()?;
    // Our own code is in files: it counts as resident, but takes nothing of the room.
    let own = ProcSelf::open(Path::new("/")).ok()?.memory().ok()?;
    let left_bytes = usage.limit_bytes.saturating_sub(others_bytes);
    Some(FoundLimit {
        source: LimitSource::GroupRoom,
        path: directory.to_owned(),
        bytes: left_bytes.saturating_add(own.shared_bytes),
    })
}

/// Logs which limit rules and why, and what is planned under it.
pub fn tell(why: &[String], plan: Option<&Plan>) {
    for why in why {
        tracing::info!("{why}");
    }
    if let Some(plan) = plan {
        tracing::info!(
            workers = plan.workers,
            buffer_bytes = plan.buffer_bytes,
            cache_bytes = plan.cache_bytes,
            "memory planned"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::limits::ConfiguredLimit;

    const MIB: u64 = 1 << 20;

    fn wanted(limit_bytes: u64) -> Wanted {
        Wanted {
            limit: Some(ConfiguredLimit {
                bytes: limit_bytes,
                origin: "memory.limit".to_owned(),
            }),
            ..Wanted::default()
        }
    }

    fn wish() -> Wish {
        Wish {
            workers: 4,
            cache_bytes: 4 * MIB,
            shared_buffer_bytes: 0,
            reserved_bytes: 0,
            worker_buffer_bytes: 4 * MIB,
            worker_context_bytes: MIB,
        }
    }

    #[test]
    fn a_new_configuration_applies_and_a_wrong_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let group = GroupProbe::open(root.path());
        let (live, limits) = LiveLimits::find(wanted(256 * MIB), &group, None);
        assert_eq!(limits.thresholds.limit_bytes(), 256 * MIB);
        let mut answers = vec![
            Ok(wanted(1)),
            Err("line 1".to_owned()),
            Ok(wanted(20 * MIB)),
            Ok(wanted(256 * MIB)),
        ];
        let mut live = live.follow(Some(wish()), Box::new(move || answers.pop().unwrap()));
        assert_eq!(live.check(&group), None);
        assert_eq!(live.reload(&group), None, "the same as before");
        let applied = live.reload(&group).unwrap();
        assert_eq!(applied.limits.thresholds.limit_bytes(), 20 * MIB);
        assert_eq!(applied.plan.map(|plan| plan.workers), Some(1));
        assert_eq!(live.reload(&group), None, "a mistake");
        let least = live.reload(&group).unwrap().plan.unwrap();
        assert_eq!((least.workers, least.buffer_bytes), (1, 4 * MIB));
    }

    #[test]
    fn a_lowered_group_limit_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        file("proc/self/cgroup", "0::/filed\n");
        file(
            "proc/self/mountinfo",
            "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
        file("sys/fs/cgroup/filed/memory.high", "268435456\n");
        file("sys/fs/cgroup/filed/memory.max", "max\n");
        let group = GroupProbe::open(root.path());
        let (live, limits) = LiveLimits::find(Wanted::default(), &group, None);
        assert_eq!(limits.thresholds.limit_bytes(), 256 * MIB);
        let mut live = live.follow(Some(wish()), Box::new(|| Err("not asked".to_owned())));
        assert_eq!(live.check(&group), None);
        file("sys/fs/cgroup/filed/memory.high", "33554432\n");
        let applied = live.check(&group).unwrap();
        assert_eq!(applied.limits.thresholds.limit_bytes(), 32 * MIB);
        assert_eq!(applied.plan.map(|plan| plan.workers), Some(3));
        assert_eq!(live.check(&group), None, "told once");
    }

    #[test]
    fn what_others_hold_is_the_rest_of_what_cannot_be_reclaimed() {
        let usage = GroupUsage {
            limit_bytes: 64 * MIB,
            unreclaimable_bytes: 50 * MIB,
            ..GroupUsage::default()
        };
        assert_eq!(held_by_others(&usage, 10 * MIB), 40 * MIB);
        assert_eq!(held_by_others(&usage, 60 * MIB), 0);
    }
}
