//! What is left around this process: in its cgroups, or else on the host.
//!
//! Reading costs a hundred times what a look at ourselves does, so it is done seldom, and what this
//! process has grown by since is taken off in between.

use std::path::Path;
use std::time::Duration;

use crate::pressure::mode::Mode;
use crate::pressure::probe::group::{GroupProbe, GroupUsage};
use crate::pressure::probe::host::HostProbe;
use crate::pressure::sample::Sample;

/// The groups are read this often in normal mode where there is much room,
const GROUPS_EVERY: Duration = Duration::from_millis(500);
/// where there is less than this,
const MUCH_BYTES: u64 = 48 << 20;
const GROUPS_NEAR: Duration = Duration::from_millis(200);
/// in the other modes,
const GROUPS_IN_RELIEF: Duration = Duration::from_millis(100);
/// and the host, which many share and nobody of us fills in a moment, this often.
const HOST_EVERY: Duration = Duration::from_secs(1);

/// The room around us, and what it was when it was last read.
pub struct Surroundings {
    group: GroupProbe,
    /// Asked where no group has a limit.
    host: Option<HostProbe>,
    next_at: Duration,
    /// The room and our own resident bytes, when they were read.
    read: Option<(u64, u64)>,
    /// The group that is nearest to its limit, as it was then.
    usage: Option<GroupUsage>,
    kills: Option<u64>,
}

impl Surroundings {
    /// Opens the files of our groups below `root` (`/` but in tests). What cannot be read is left out,
    /// and told of once.
    pub fn open(root: &Path) -> Surroundings {
        Surroundings {
            group: GroupProbe::open(root),
            host: (root == Path::new("/")).then(HostProbe::open).flatten(),
            next_at: Duration::ZERO,
            read: None,
            usage: None,
            kills: None,
        }
    }

    /// The files of our groups.
    pub fn group(&self) -> &GroupProbe {
        &self.group
    }

    /// The group that is nearest to its limit, as it was when it was last read.
    pub(super) fn usage(&self) -> Option<GroupUsage> {
        self.usage
    }

    /// Has the next sample read anew: something was heard.
    pub(super) fn look_again(&mut self) {
        self.next_at = Duration::ZERO;
    }

    /// Adds to `sample` what is known of the room, having read it anew if that is due.
    pub(super) fn add_to(&mut self, sample: &mut Sample, mode: Mode) {
        if sample.at >= self.next_at {
            self.read(sample, mode);
        }
        sample.headroom_bytes = self.read.map(|(headroom_bytes, resident_bytes)| {
            headroom_bytes.saturating_sub(sample.resident_bytes.saturating_sub(resident_bytes))
        });
    }

    fn read(&mut self, sample: &mut Sample, mode: Mode) {
        let usage = self.group.usage();
        self.usage = usage;
        for problem in self.group.take_problems() {
            tracing::warn!(%problem, "the cgroup cannot be read: going on without it");
        }
        let every = match (usage, mode) {
            (None, _) => HOST_EVERY,
            (Some(usage), Mode::Normal) if usage.headroom_bytes() >= MUCH_BYTES => GROUPS_EVERY,
            (Some(_), Mode::Normal) => GROUPS_NEAR,
            (Some(_), _) => GROUPS_IN_RELIEF,
        };
        self.next_at = sample.at + every;
        if let Some(usage) = usage {
            let before = self.kills.replace(usage.oom_kills);
            sample.oom_killed = before.is_some_and(|before| usage.oom_kills > before);
        }
        let headroom_bytes = match usage {
            Some(usage) => Some(usage.headroom_bytes()),
            None => self
                .host
                .as_mut()
                .and_then(HostProbe::memory)
                .map(|host| host.available_bytes),
        };
        self.read = headroom_bytes.map(|headroom_bytes| (headroom_bytes, sample.resident_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_grew_by_is_taken_off_until_the_room_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let mut around = Surroundings::open(root.path());
        let mut sample = Sample::of_counters(Duration::ZERO, 100);
        around.add_to(&mut sample, Mode::Normal);
        assert_eq!(sample.headroom_bytes, None, "nobody tells");

        around.read = Some((1000, 100));
        let room = |around: &mut Surroundings, held_bytes| {
            let mut sample = Sample::of_counters(Duration::from_millis(1), held_bytes);
            around.add_to(&mut sample, Mode::Normal);
            sample.headroom_bytes
        };
        assert_eq!(room(&mut around, 50), Some(1000));
        assert_eq!(room(&mut around, 400), Some(700));
        assert_eq!(room(&mut around, 5000), Some(0));
        around.look_again();
        assert_eq!(room(&mut around, 400), None);
    }
}
