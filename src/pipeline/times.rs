//! How long something takes, counted without a lock.
//!
//! A histogram by quarters of doublings: a bucket's bounds are less than 25 % apart. Two of them
//! subtracted are the histogram of the time between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of one doubling.
const QUARTERS: u32 = 4;
/// Below this many microseconds there is a bucket for each.
const SINGLE: u64 = 4;
/// The last bucket takes all that is longer: two minutes and more.
const BUCKETS: usize = 104;

/// Doublings; in the last is also all that is longer.
const DOUBLINGS: usize = BUCKETS / QUARTERS as usize;

/// The histogram of a run in progress.
#[derive(Debug)]
pub struct Times {
    buckets: [AtomicU64; BUCKETS],
    /// Their sum.
    micros: AtomicU64,
}

/// The histogram as it was at one moment, or of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeCounts {
    buckets: [u64; BUCKETS],
    micros: u64,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            micros: AtomicU64::new(0),
        }
    }
}

impl Default for TimeCounts {
    fn default() -> TimeCounts {
        TimeCounts {
            buckets: [0; BUCKETS],
            micros: 0,
        }
    }
}

impl Times {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The histogram so far.
    pub fn counts(&self) -> TimeCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TimeCounts {
            buckets: self.buckets.each_ref().map(read),
            micros: read(&self.micros),
        }
    }
}

impl TimeCounts {
    /// What came since `before`.
    pub fn since(&self, before: &TimeCounts) -> TimeCounts {
        TimeCounts {
            buckets: std::array::from_fn(|bucket| {
                self.buckets[bucket].saturating_sub(before.buckets[bucket])
            }),
            micros: self.micros.saturating_sub(before.micros),
        }
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long they took together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// How many there are in each doubling, with the bound that they are below; the last is without one.
    pub fn doublings(&self) -> [(Duration, u64); DOUBLINGS] {
        let quarters = QUARTERS as usize;
        std::array::from_fn(|doubling| {
            let first = doubling * quarters;
            let count = self.buckets[first..first + quarters].iter().sum();
            let bound = match doubling {
                last if last == DOUBLINGS - 1 => Duration::MAX,
                _ => Duration::from_micros(bound(first + quarters - 1)),
            };
            (bound, count)
        })
    }

    /// The time that so many in a thousand did not exceed, rounded up to the bound of its bucket;
    /// `None` if nothing was counted.
    pub fn per_mille(&self, per_mille: u16) -> Option<Duration> {
        let total = self.total();
        let wanted = (total * u64::from(per_mille.min(1000)))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (total > 0 && seen >= wanted).then(|| Duration::from_micros(bound(bucket)))
        })
    }
}

fn bucket(micros: u64) -> usize {
    let bucket = if micros < SINGLE {
        micros
    } else {
        let doublings = micros.ilog2();
        let quarter = (micros >> (doublings - 2)) % u64::from(QUARTERS);
        u64::from((doublings - 1) * QUARTERS) + quarter
    };
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The least number of microseconds that is above the bucket.
fn bound(bucket: usize) -> u64 {
    let bucket = bucket as u64 + 1;
    if bucket <= SINGLE {
        return bucket;
    }
    let (doublings, quarter) = (
        bucket / u64::from(QUARTERS) + 1,
        bucket % u64::from(QUARTERS),
    );
    (u64::from(QUARTERS) + quarter) << (doublings - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for bucket in 0..BUCKETS - 1 {
            let bound = bound(bucket);
            assert_eq!(super::bucket(bound - 1), bucket);
            assert_eq!(super::bucket(bound), bucket + 1);
            assert!(
                bound < 4 || super::bound(bucket + 1) * 4 <= bound * 5,
                "{bound}"
            );
        }
        assert_eq!(super::bucket(u64::MAX), BUCKETS - 1);
        assert!(bound(BUCKETS - 2) > 100_000_000);
    }

    #[test]
    fn shares_are_those_of_what_was_counted() {
        let times = Times::default();
        assert_eq!(times.counts().per_mille(500), None);
        for micros in [0, 1, 100, 100, 5000] {
            times.add(Duration::from_micros(micros));
        }
        let counts = times.counts();
        assert_eq!(counts.total(), 5);
        let micros = |share| counts.per_mille(share).map(|time| time.as_micros());
        assert_eq!(
            [0, 200, 500, 800, 1000].map(micros),
            [1, 1, 112, 112, 5120].map(Some)
        );
        assert_eq!(counts.sum(), Duration::from_micros(5201));
        let doublings = counts.doublings().into_iter();
        let some = doublings.filter(|(_, count)| *count > 0);
        assert_eq!(
            some.map(|(bound, count)| (bound.as_micros(), count))
                .collect::<Vec<_>>(),
            [(4, 2), (128, 2), (8192, 1)]
        );
        times.add(Duration::MAX);
        assert_eq!(times.counts().doublings().last(), Some(&(Duration::MAX, 1)));
        assert_eq!(times.counts().since(&counts).total(), 1);
    }
}
