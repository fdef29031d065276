//! The board: what the control loop has decided and done, for others to read.
//!
//! The control loop writes, at each change; the socket and the metrics read. Nothing here is decided, and
//! nobody waits for anybody longer than it takes to copy a few numbers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::daemon::timeline::MarkKind;
use crate::daemon::tuning::Plan;
use crate::pressure::level::{Level, Thresholds};
use crate::pressure::mode::Mode;
use crate::pressure::probe::group::GroupUsage;
use crate::store::clock::now_ns;

/// Changes of mode that are remembered.
const CHANGES: usize = 16;

/// The last of a kind of relief, and all of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Given {
    /// How often.
    pub count: u64,
    /// Bytes that came back, as far as that was seen.
    pub bytes: u64,
    /// When the last was, nanoseconds since 1970; 0 if never.
    pub last_ns: i64,
    /// Bytes that came back then.
    pub last_bytes: u64,
}

impl Given {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.last_ns = now_ns();
        self.last_bytes = bytes;
    }
}

/// A change of mode.
#[derive(Clone, Debug, Serialize)]
pub struct ModeChange {
    /// When, nanoseconds since 1970.
    pub at_ns: i64,
    /// The mode that was left.
    pub from: Mode,
    /// The mode that was entered.
    pub to: Mode,
    /// The numbers that caused it.
    pub why: String,
    /// What was resident less after what followed at once, in bytes.
    pub freed_bytes: u64,
}

/// What stands on the board.
#[derive(Clone, Debug)]
pub struct Shown {
    /// When the service began, nanoseconds since 1970.
    pub started_ns: i64,
    /// The mode.
    pub mode: Mode,
    /// Since when, nanoseconds since 1970.
    pub mode_since_ns: i64,
    /// What the last sample said by itself.
    pub level: Level,
    /// Resident memory at the last sample, in bytes.
    pub resident_bytes: u64,
    /// Of it what no file backs, in bytes.
    pub anonymous_bytes: u64,
    /// Room left around us then, if anybody could tell, in bytes.
    pub headroom_bytes: Option<u64>,
    /// The cgroup that is nearest to its limit, if one has a limit.
    pub group: Option<GroupUsage>,
    /// The marks.
    pub thresholds: Thresholds,
    /// Which limit rules, and why.
    pub limits: Vec<String>,
    /// What may be used under it.
    pub plan: Plan,
    /// The last changes of mode, the newest last.
    pub changes: VecDeque<ModeChange>,
    /// How often each mode was entered.
    pub entered: [u64; 3],
    /// Idle buffers given back.
    pub trims: Given,
    /// Collections of everything that were ordered, and shrinkings of the cache.
    pub collections: Given,
    /// Other things given back: by malloc, by the database.
    pub other: Given,
    /// Bytes of files dealt with in a second, over the last seconds.
    pub bytes_per_second: u64,
    /// When the configuration was last read successfully, nanoseconds since 1970.
    pub configured_ns: i64,
    /// What keeps the service from its work at present.
    pub problem: Option<String>,
}

/// See the head of this file.
pub struct Board(Mutex<Shown>);

impl Board {
    /// A board at the beginning.
    pub fn new(thresholds: Thresholds, limits: Vec<String>, plan: Plan) -> Board {
        let now_ns = now_ns();
        Board(Mutex::new(Shown {
            started_ns: now_ns,
            mode: Mode::Normal,
            mode_since_ns: now_ns,
            level: Level::default(),
            resident_bytes: 0,
            anonymous_bytes: 0,
            headroom_bytes: None,
            group: None,
            thresholds,
            limits,
            plan,
            changes: VecDeque::new(),
            entered: [0; 3],
            trims: Given::default(),
            collections: Given::default(),
            other: Given::default(),
            bytes_per_second: 0,
            configured_ns: now_ns,
            problem: None,
        }))
    }

    /// What stands on it now.
    pub fn read(&self) -> Shown {
        self.lock().clone()
    }

    /// Changes what stands on it.
    pub fn write<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.lock())
    }

    /// Notes something that was done about memory.
    pub(in crate::daemon) fn mark(&self, what: &MarkKind, freed_bytes: u64) {
        let mut shown = self.lock();
        match what {
            MarkKind::ModeChange { from, to, why } => {
                let now_ns = now_ns();
                shown.mode = *to;
                shown.mode_since_ns = now_ns;
                shown.entered[*to as usize] += 1;
                if shown.changes.len() == CHANGES {
                    shown.changes.pop_front();
                }
                shown.changes.push_back(ModeChange {
                    at_ns: now_ns,
                    from: *from,
                    to: *to,
                    why: why.clone(),
                    freed_bytes,
                });
            }
            MarkKind::Trim => shown.trims.add(freed_bytes),
            MarkKind::Collection | MarkKind::CacheShrunk => shown.collections.add(freed_bytes),
            MarkKind::DatabaseShrunk | MarkKind::MallocTrim => shown.other.add(freed_bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
