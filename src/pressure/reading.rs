//! How much page cache reading may use, stepped with what is left.
//!
//! Page cache is not ours to count, but it fills the group: what the kernel
//! reads ahead is gone before it is used where there is no room for it, and is
//! read twice. Like the share of the workers it gets stricter at once and
//! looser one step a second.

use std::time::Duration;

use crate::pressure::mode::Mode;

/// What the kernel holds of a file it reads ahead as it sees fit: two windows of
/// as much as disks are set to, 8 MiB, for each of two files.
const AHEAD_BYTES: u64 = 32 << 20;
/// It does not get looser faster than by one step in this time.
const LOOSEN_TIME: Duration = Duration::from_secs(1);

/// How much page cache reading may use, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileReading {
    /// The kernel reads ahead as it sees fit.
    #[default]
    Ahead,
    /// A few chunks are read ahead, and no more.
    Near,
    /// Nothing is read ahead.
    Lean,
    /// The page cache is read past where the file system can.
    Direct,
}

impl FileReading {
    /// What the mode and the room around us, with what is needed of it, call for.
    fn called_for(mode: Mode, headroom_and_need: Option<(u64, u64)>) -> FileReading {
        let by_headroom = match headroom_and_need {
            Some((headroom, need)) if headroom < need.saturating_mul(2) => FileReading::Lean,
            Some((headroom, _)) if headroom < AHEAD_BYTES => FileReading::Near,
            _ => FileReading::Ahead,
        };
        let by_mode = match mode {
            Mode::Normal => FileReading::Ahead,
            Mode::Aggressive => FileReading::Near,
            Mode::Critical => FileReading::Direct,
        };
        by_mode.max(by_headroom)
    }

    fn looser(self) -> FileReading {
        match self {
            FileReading::Ahead | FileReading::Near => FileReading::Ahead,
            FileReading::Lean => FileReading::Near,
            FileReading::Direct => FileReading::Lean,
        }
    }
}

/// What is in force.
#[derive(Debug, Default)]
pub(super) struct Reader {
    reading: FileReading,
    changed_at: Duration,
}

impl Reader {
    /// Follows what was seen at `now`; the way of reading if it changed.
    pub(super) fn follow(
        &mut self,
        now: Duration,
        mode: Mode,
        headroom_and_need: Option<(u64, u64)>,
    ) -> Option<FileReading> {
        let wanted = FileReading::called_for(mode, headroom_and_need);
        let may_loosen = now.saturating_sub(self.changed_at) >= LOOSEN_TIME;
        let next = if wanted > self.reading {
            wanted
        } else if wanted < self.reading && may_loosen {
            self.reading.looser()
        } else {
            return None;
        };
        self.reading = next;
        self.changed_at = now;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: u64 = 6 << 20;

    #[test]
    fn the_less_room_the_less_is_read_ahead() {
        let with = |mode, mib: u64| FileReading::called_for(mode, Some((mib << 20, NEED)));
        let normal = |mib| with(Mode::Normal, mib);
        assert_eq!([100, 32].map(normal), [FileReading::Ahead; 2]);
        assert_eq!([31, 12].map(normal), [FileReading::Near; 2]);
        assert_eq!([11, 0].map(normal), [FileReading::Lean; 2]);
        assert_eq!(with(Mode::Aggressive, 100), FileReading::Near);
        assert_eq!(with(Mode::Aggressive, 11), FileReading::Lean);
        assert_eq!(with(Mode::Critical, 100), FileReading::Direct);
        let unknown = FileReading::called_for(Mode::Normal, None);
        assert_eq!(unknown, FileReading::Ahead);
    }

    #[test]
    fn it_gets_strict_at_once_and_looser_a_step_a_second() {
        let mut reader = Reader::default();
        let at = Duration::from_millis;
        assert_eq!(reader.follow(at(0), Mode::Normal, None), None);
        let strict = reader.follow(at(10), Mode::Critical, None);
        assert_eq!(strict, Some(FileReading::Direct));
        let looser: Vec<_> = (1..=20)
            .filter_map(|step| {
                let now = at(10 + step * 200);
                Some((now.as_millis(), reader.follow(now, Mode::Normal, None)?))
            })
            .collect();
        assert_eq!(
            looser,
            [
                (1010, FileReading::Lean),
                (2010, FileReading::Near),
                (3010, FileReading::Ahead)
            ]
        );
    }
}
