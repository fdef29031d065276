//! Limits that change while work goes on: somebody lowers the group's, or the configuration is read
//! again.
//!
//! What must hold: whatever changes, the marks and the plan in force are those that a start at that
//! moment would have chosen, but for one thing: what runs is not ended for want of room. A limit that
//! not even one worker fits under leaves one worker, and says so; the controller does what can be done.

use std::path::Path;

use super::tuning::{self, Plan, Wish};
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
            wish: None,
            reload: None,
        };
        let mut found = live.found.clone();
        found.extend(room_left(group, &live.found));
        let limits = limits::choose(&live.wanted, &found, live.rlimits, live.host);
        (live, limits)
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
        Some(self.apply())
    }

    /// Reads the configuration again; what applies then, if it is right and anything is new.
    pub(super) fn reload(&mut self) -> Option<Applied> {
        match self.reload.as_mut()?() {
            Ok(wanted) if wanted == self.wanted => {
                tracing::info!("the configuration was read again: nothing about memory is new");
                None
            }
            Ok(wanted) => {
                self.wanted = wanted;
                Some(self.apply())
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is wrong: going on with the one before");
                None
            }
        }
    }

    fn apply(&self) -> Applied {
        let limits = limits::choose(&self.wanted, &self.found, self.rlimits, self.host);
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

/// What others leave of our group, if they hold much: a start is not to take what it sees is not there.
/// Later it would only say what our own memory is, so this is asked once.
fn room_left(group: &GroupProbe, found: &[FoundLimit]) -> Option<FoundLimit> {
    let usage = group.usage()?;
    let own = ProcSelf::open(Path::new("/")).ok()?.memory().ok()?;
    let left_bytes = left_by_others(&usage, own.anonymous_bytes())?;
    // Our own code is in files: it counts as resident, but takes nothing of the room.
    let bytes = left_bytes.saturating_add(own.shared_bytes);
    let path = found
        .iter()
        .find(|limit| limit.bytes == usage.limit_bytes)
        .map(|limit| limit.path.clone())?;
    Some(FoundLimit {
        source: LimitSource::GroupRoom,
        path,
        bytes,
    })
}

fn left_by_others(usage: &GroupUsage, own_bytes: u64) -> Option<u64> {
    let others_bytes = usage.unreclaimable_bytes.saturating_sub(own_bytes);
    (others_bytes >= OTHERS_FROM_BYTES).then(|| usage.limit_bytes.saturating_sub(others_bytes))
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
        assert_eq!(live.reload(), None, "the same as before");
        let applied = live.reload().unwrap();
        assert_eq!(applied.limits.thresholds.limit_bytes(), 20 * MIB);
        assert_eq!(applied.plan.map(|plan| plan.workers), Some(1));
        assert_eq!(live.reload(), None, "a mistake");
        let least = live.reload().unwrap().plan.unwrap();
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
    fn what_others_hold_is_taken_off_if_it_is_much() {
        let usage = GroupUsage {
            limit_bytes: 64 * MIB,
            unreclaimable_bytes: 50 * MIB,
            ..GroupUsage::default()
        };
        assert_eq!(left_by_others(&usage, 10 * MIB), Some(24 * MIB));
        assert_eq!(left_by_others(&usage, 47 * MIB), None);
    }
}
