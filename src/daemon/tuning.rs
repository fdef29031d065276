//! How much a limit allows: workers, buffers and caches, worked out before anything starts.
//!
//! The sum of what is given out here stays below the limit even if everything is used at once, so
//! that under a hard limit nothing depends on how fast pressure is noticed. The figures for what is
//! not counted exactly are measured (`BASE_BYTES`, [`context_bytes`]).

use crate::pressure::level::Thresholds;

/// What the process needs before it has done anything, and beside what is counted below: code that
/// is touched, the database's two connections, stacks, the catalog's pages in a commit. Measured as
/// peak memory of `process` less buffers, contexts and caches, rounded up.
const BASE_BYTES: u64 = 10 << 20;

/// What a worker holds beside buffers and its compression context: its pack's list and its share of
/// claims that are not committed yet.
const WORKER_BYTES: u64 = 1 << 20;

/// The least that the cache of known pieces is given.
const LEAST_CACHE_BYTES: u64 = 256 << 10;

/// What passes through the page cache for each worker at a time, in bytes.
const PASSING_BYTES: u64 = 2 << 20;

/// What a run may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Threads of the data plane.
    pub workers: usize,
    /// Budget of the buffer pool, in bytes.
    pub buffer_bytes: u64,
    /// Bound of the cache of known pieces, in bytes.
    pub cache_bytes: u64,
}

/// The limit is too small for even one worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the memory limit is too small to work with")]
pub struct TooSmall {
    /// The smallest limit that does, in bytes.
    pub smallest_bytes: u64,
}

/// What a run would like to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Threads of the data plane.
    pub workers: usize,
    /// Bound of the cache of known pieces, in bytes.
    pub cache_bytes: u64,
    /// Buffers whatever the number of workers, in bytes.
    pub shared_buffer_bytes: u64,
    /// What others use beside the pool, whatever the number of workers, in bytes.
    pub reserved_bytes: u64,
    /// Buffers of each worker, in bytes.
    pub worker_buffer_bytes: u64,
    /// Compression context of each worker, in bytes.
    pub worker_context_bytes: u64,
}

/// Fits a wish under a limit: first fewer workers, then a smaller cache, which is no larger than half
/// of the threshold: what makes filed faster may take it to its threshold, not beyond.
///
/// # Errors
///
/// If not even one worker fits.
pub fn fit(wish: &Wish, marks: &Thresholds) -> Result<Plan, TooSmall> {
    let wish = Wish {
        cache_bytes: wish.cache_bytes.min(marks.threshold_bytes() / 2),
        ..*wish
    };
    fit_under(&wish, marks.limit_bytes())
}

/// The least that work can be done with.
pub fn least(wish: &Wish) -> Plan {
    Plan {
        workers: 1,
        buffer_bytes: wish.shared_buffer_bytes + wish.worker_buffer_bytes,
        cache_bytes: LEAST_CACHE_BYTES.min(wish.cache_bytes),
    }
}

/// The room that should be left around this process for what so many workers have the kernel hold for
/// a moment, in bytes: what is read and not yet dropped from the page cache, and what is written and
/// not yet on disk.
pub fn need_bytes(workers: usize) -> u64 {
    (workers as u64 + 1) * PASSING_BYTES
}

fn fit_under(wish: &Wish, limit_bytes: u64) -> Result<Plan, TooSmall> {
    let each = wish.worker_buffer_bytes + wish.worker_context_bytes + WORKER_BYTES;
    let least_cache = LEAST_CACHE_BYTES.min(wish.cache_bytes);
    let fixed = BASE_BYTES + wish.shared_buffer_bytes + wish.reserved_bytes + least_cache;
    let smallest_bytes = fixed + each;
    let Some(left) = limit_bytes.checked_sub(smallest_bytes) else {
        return Err(TooSmall { smallest_bytes });
    };
    let workers = (1 + left / each).min(wish.workers.max(1) as u64);
    let left = left - (workers - 1) * each;
    Ok(Plan {
        workers: workers as usize,
        buffer_bytes: wish.shared_buffer_bytes + workers * wish.worker_buffer_bytes,
        cache_bytes: wish.cache_bytes.min(least_cache + left / 2),
    })
}

/// What a compression context for 1 MiB holds at this level, in bytes, rounded up: measured at levels
/// 1, 3, 6, 9, 15 and 19, the levels between taken as the next one above or near it.
pub fn context_bytes(level: u8) -> u64 {
    let tenths_of_mib = match level {
        0..=2 => 9,
        3 => 14,
        4..=5 => 24,
        6 => 32,
        7..=8 => 60,
        9..=12 => 110,
        13..=15 => 170,
        _ => 180,
    };
    tenths_of_mib * (1 << 20) / 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn wish() -> Wish {
        Wish {
            workers: 8,
            cache_bytes: 4 * MIB,
            shared_buffer_bytes: MIB,
            reserved_bytes: 0,
            worker_buffer_bytes: 3 * MIB,
            worker_context_bytes: MIB,
        }
    }

    #[test]
    fn a_large_limit_grants_the_wish() {
        let plan = fit_under(&wish(), 1024 * MIB).unwrap();
        assert_eq!((plan.workers, plan.cache_bytes), (8, 4 * MIB));
        assert_eq!(plan.buffer_bytes, 25 * MIB);
    }

    #[test]
    fn the_smallest_limit_named_is_enough_and_less_is_not() {
        let smallest = fit_under(&wish(), 0).unwrap_err().smallest_bytes;
        assert_eq!(fit_under(&wish(), smallest).unwrap().workers, 1);
        assert!(fit_under(&wish(), smallest - 1).is_err());
    }

    proptest! {
        #[test]
        fn everything_together_stays_below_the_limit(limit in 0..200 * MIB, workers in 1usize..64) {
            let wish = Wish { workers, ..wish() };
            if let Ok(plan) = fit_under(&wish, limit) {
                let each = wish.worker_context_bytes + WORKER_BYTES;
                let sum = BASE_BYTES + plan.buffer_bytes + plan.workers as u64 * each
                    + plan.cache_bytes;
                prop_assert!(sum <= limit);
                prop_assert!((1..=workers).contains(&plan.workers));
            }
        }
    }
}
