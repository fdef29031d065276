//! Whether reading has become slow, which is how reclaim feels from inside.

use std::time::Duration;

use crate::pipeline::TimeCounts;

/// Looked at this often, so that enough chunks have come in.
const EVERY: Duration = Duration::from_millis(500);
/// Fewer chunks than this say nothing.
const CHUNKS_MIN: u64 = 8;
/// This many times what is usual is slow.
const TIMES: u32 = 4;

/// Compares the latest chunks with all before them.
#[derive(Debug, Default)]
pub(super) struct SlowReads {
    before: TimeCounts,
    looked_at: Duration,
}

impl SlowReads {
    /// Whether, at `now`, half of the latest chunks took longer to read than is usual by far.
    pub(super) fn look(&mut self, now: Duration, counts: impl FnOnce() -> TimeCounts) -> bool {
        if now.saturating_sub(self.looked_at) < EVERY {
            return false;
        }
        self.looked_at = now;
        let counts = counts();
        let latest = counts.since(&self.before);
        if latest.total() < CHUNKS_MIN {
            return false;
        }
        let before = std::mem::replace(&mut self.before, counts);
        match (before.per_mille(500), latest.per_mille(500)) {
            (Some(usual), Some(latest)) if before.total() >= CHUNKS_MIN => latest >= usual * TIMES,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Times;

    #[test]
    fn four_times_the_usual_is_slow_and_a_few_chunks_say_nothing() {
        let times = Times::default();
        let mut slow = SlowReads::default();
        let mut look = |second, chunks, micros| {
            (0..chunks).for_each(|_| times.add(Duration::from_micros(micros)));
            slow.look(Duration::from_secs(second), || times.counts())
        };
        assert!(!look(1, 8, 900), "nothing to compare with");
        assert!(!look(2, 8, 1900));
        assert!(!look(3, 7, 100_000));
        assert!(look(4, 1, 100_000), "with those before");
        assert!(!look(5, 8, 900));
        assert!(look(6, 9, 9000));
    }
}
