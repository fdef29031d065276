//! How long chunks take to read, counted without a lock.
//!
//! A histogram by doublings: bucket `n` counts chunks that took less than 2^n microseconds and did
//! not fit into the one before. Two of them subtracted are the histogram of the time between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last bucket takes all that is longer: half a second and more.
const BUCKETS: usize = 20;

/// The histogram of a run in progress.
#[derive(Debug, Default)]
pub struct ReadTimes([AtomicU64; BUCKETS]);

/// The histogram as it was at one moment, or of a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts([u64; BUCKETS]);

impl ReadTimes {
    /// Counts one chunk.
    pub(crate) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// The histogram so far.
    pub fn counts(&self) -> ReadCounts {
        ReadCounts(std::array::from_fn(|bucket| {
            self.0[bucket].load(Ordering::Relaxed)
        }))
    }
}

impl ReadCounts {
    /// What came since `before`.
    pub fn since(&self, before: &ReadCounts) -> ReadCounts {
        ReadCounts(std::array::from_fn(|bucket| {
            self.0[bucket].saturating_sub(before.0[bucket])
        }))
    }

    /// Chunks counted.
    pub fn chunks(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that this share of the chunks, in percent, did not exceed, rounded up to a power of
    /// two of microseconds; `None` without chunks.
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let chunks = self.chunks();
        let wanted = (chunks * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        self.0.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (chunks > 0 && seen >= wanted).then(|| Duration::from_micros(1 << bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_rounded_up_to_a_doubling() {
        let times = ReadTimes::default();
        assert_eq!(times.counts().percentile(50), None);
        for micros in [0, 1, 100, 100, 5000] {
            times.add(Duration::from_micros(micros));
        }
        let counts = times.counts();
        assert_eq!(counts.chunks(), 5);
        let micros = |percent| counts.percentile(percent).map(|time| time.as_micros());
        assert_eq!(
            [0, 20, 50, 80, 100].map(micros),
            [1, 1, 128, 128, 8192].map(Some)
        );
        times.add(Duration::MAX);
        let since = times.counts().since(&counts);
        assert_eq!(since.chunks(), 1);
        assert_eq!(since.percentile(50), Some(Duration::from_micros(1 << 19)));
    }
}
