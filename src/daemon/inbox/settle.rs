//! Files that are watched until they have been the same for long enough to be taken.
//!
//! The rule: there are never more than were allowed, and one that does not fit is refused, so that
//! whoever offered it looks again later. Nothing here reads a clock or a file.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What tells whether a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size_bytes: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub inode: u64,
    pub device: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Stamp {
            size_bytes: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// How long ago it last changed; `None` if that is in the future, where no clock can be believed.
    pub(super) fn age(&self, now: &Moment) -> Option<Duration> {
        let changed_ns = self.mtime_ns.max(self.ctime_ns);
        let age_ns = now.wall_ns.checked_sub(changed_ns)?;
        u64::try_from(age_ns).ok().map(Duration::from_nanos)
    }

    /// How long it is still to be watched, by its times alone.
    fn wait(&self, settle: Duration, now: &Moment) -> Duration {
        settle.saturating_sub(self.age(now).unwrap_or_default())
    }

    /// Whether its content is the same, as far as can be seen. A change of its owner or mode is none.
    fn has_content_of(&self, other: &Stamp) -> bool {
        Stamp {
            ctime_ns: other.ctime_ns,
            ..*self
        } == *other
    }
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub at: Instant,
    pub wall_ns: i64,
}

impl Moment {
    pub(super) fn now() -> Moment {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ns = since.map_or(0, |since| since.as_nanos());
        Moment {
            at: Instant::now(),
            wall_ns: i64::try_from(ns).unwrap_or(i64::MAX),
        }
    }
}

/// Nothing is waited for longer than this, whatever is configured: times have an end.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// So much later.
pub(super) fn later(at: Instant, wait: Duration) -> Instant {
    at + wait.min(LONGEST_WAIT)
}

/// What was seen of a file, and until when it is to stay like that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    stamp: Stamp,
    settle: Duration,
    due: Instant,
}

impl Seen {
    pub(super) fn settle(&self) -> Duration {
        self.settle
    }

    /// Whether the file may be taken now that it looks like this.
    pub(super) fn is_settled(&self, stamp: &Stamp) -> bool {
        self.settle.is_zero() || stamp.has_content_of(&self.stamp)
    }
}

/// Files that wait, by their paths.
#[derive(Debug)]
pub(super) struct Waiting {
    files: HashMap<Arc<Path>, Seen>,
    by_due: BTreeSet<(Instant, Arc<Path>)>,
    most: usize,
}

/// What becomes of a file that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be taken.
    Settled,
    /// It waits.
    Waits,
    /// It would have to wait, and there is no room.
    NoRoom,
}

impl Waiting {
    pub(super) fn new(most: usize) -> Waiting {
        Waiting {
            files: HashMap::new(),
            by_due: BTreeSet::new(),
            most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.len() >= self.most / 2
    }

    /// Looks at a file: one that last changed `settle` ago may be taken, another waits until it has not
    /// changed for so long. One that waits already and has not changed goes on waiting.
    pub(super) fn look(
        &mut self,
        path: &Path,
        stamp: Stamp,
        settle: Duration,
        now: &Moment,
    ) -> Verdict {
        let wait = stamp.wait(settle, now);
        if wait.is_zero() {
            self.forget(path);
            return Verdict::Settled;
        }
        self.wait(path, stamp, settle, later(now.at, wait))
    }

    /// Has a file that may be taken wait until there is somebody to take it.
    pub(super) fn keep(
        &mut self,
        path: &Path,
        stamp: Stamp,
        settle: Duration,
        now: &Moment,
    ) -> Verdict {
        self.wait(path, stamp, settle, now.at)
    }

    fn wait(&mut self, path: &Path, stamp: Stamp, settle: Duration, due: Instant) -> Verdict {
        if let Some(seen) = self.files.get(path)
            && seen.stamp.has_content_of(&stamp)
            && seen.due <= due
        {
            return Verdict::Waits;
        }
        self.forget(path);
        if self.files.len() >= self.most {
            return Verdict::NoRoom;
        }
        let path: Arc<Path> = path.into();
        let seen = Seen { stamp, settle, due };
        self.files.insert(Arc::clone(&path), seen);
        self.by_due.insert((due, path));
        Verdict::Waits
    }

    fn forget(&mut self, path: &Path) {
        if let Some((path, seen)) = self.files.remove_entry(path) {
            self.by_due.remove(&(seen.due, path));
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// One that is due; it waits no longer.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Arc<Path>, Seen)> {
        if self.next_due()? > now {
            return None;
        }
        let (_, path) = self.by_due.pop_first()?;
        let seen = self.files.remove(&path)?;
        Some((path, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(10);
    const SECOND_NS: i64 = 1_000_000_000;

    fn at(start: Instant, seconds: i64) -> Moment {
        Moment {
            at: start + Duration::from_secs(seconds as u64),
            wall_ns: (1000 + seconds) * SECOND_NS,
        }
    }

    fn changed(seconds: i64) -> Stamp {
        Stamp {
            size_bytes: 1,
            mtime_ns: (1000 + seconds) * SECOND_NS,
            ctime_ns: (1000 + seconds) * SECOND_NS,
            inode: 1,
            device: 1,
        }
    }

    #[test]
    fn what_is_old_is_taken_at_once_and_what_is_new_waits_for_the_rest() {
        let start = Instant::now();
        let mut waiting = Waiting::new(9);
        let path = Path::new("a");
        let mut look = |stamp, now| waiting.look(path, stamp, SETTLE, &at(start, now));
        assert_eq!(look(changed(-10), 0), Verdict::Settled);
        assert_eq!(look(changed(-4), 0), Verdict::Waits);
        assert_eq!(waiting.next_due(), Some(at(start, 6).at));
        assert!(waiting.take_due(at(start, 5).at).is_none());
        let (_, seen) = waiting.take_due(at(start, 6).at).unwrap();
        assert!(seen.is_settled(&changed(-4)));
        assert!(!seen.is_settled(&changed(3)));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn times_in_the_future_are_watched_and_a_change_begins_again() {
        let start = Instant::now();
        let mut waiting = Waiting::new(9);
        let path = Path::new("a");
        for (stamp, now, due) in [
            (changed(500), 0, 10),
            // Seen again as it was: the time goes on.
            (changed(500), 7, 10),
            (changed(600), 8, 18),
            // With an old time of its content, but changed just now.
            (
                Stamp {
                    mtime_ns: 0,
                    ..changed(9)
                },
                9,
                19,
            ),
        ] {
            let verdict = waiting.look(path, stamp, SETTLE, &at(start, now));
            assert_eq!(verdict, Verdict::Waits);
            assert_eq!(waiting.next_due(), Some(at(start, due).at));
        }
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let start = Instant::now();
        let now = at(start, 0);
        let mut waiting = Waiting::new(2);
        let mut look = |name, stamp| waiting.look(Path::new(name), stamp, SETTLE, &now);
        assert_eq!(look("a", changed(0)), Verdict::Waits);
        assert_eq!(look("b", changed(-1)), Verdict::Waits);
        assert_eq!(look("c", changed(0)), Verdict::NoRoom);
        assert_eq!(look("a", changed(-2)), Verdict::Waits);
        assert_eq!(look("b", changed(-20)), Verdict::Settled);
        assert_eq!(look("c", changed(0)), Verdict::Waits);
        assert_eq!(
            waiting.keep(Path::new("c"), changed(0), SETTLE, &now),
            Verdict::Waits
        );
        assert_eq!(waiting.next_due(), Some(start));
        assert_eq!(waiting.by_due.len(), waiting.files.len());
    }
}
