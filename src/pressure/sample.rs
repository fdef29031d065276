//! One look at the memory of this process.
//!
//! A sample is plain numbers and the time they were taken at. It carries both
//! the resident and the anonymous size because neither is right everywhere:
//! resident memory counts clean file pages the kernel can drop at will, while
//! anonymous memory (which is what drives a process into its limit) leaves out
//! shared memory.

use std::time::Duration;

use crate::pressure::probe::proc::ProcessMemory;

/// What this process held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, counted from the start of the process.
    pub at: Duration,
    /// All resident pages, in bytes: anonymous, shared and of mapped files.
    pub resident_bytes: u64,
    /// Resident pages that no file stands behind, in bytes.
    pub anonymous_bytes: u64,
    /// What filed's own counters say it holds in buffers, in bytes. Not
    /// compared with the threshold: it shows which share of the rest is ours.
    pub held_bytes: u64,
}

impl Sample {
    /// A sample of what the kernel says, beside our own count of `held_bytes`.
    pub fn new(at: Duration, memory: ProcessMemory, held_bytes: u64) -> Self {
        Self {
            at,
            resident_bytes: memory.resident_bytes,
            anonymous_bytes: memory.anonymous_bytes(),
            held_bytes,
        }
    }

    /// A sample for when the kernel's numbers cannot be read: filed's own
    /// counters stand for both sizes, which leaves out everything in malloc.
    pub fn of_counters(at: Duration, held_bytes: u64) -> Self {
        Self {
            at,
            resident_bytes: held_bytes,
            anonymous_bytes: held_bytes,
            held_bytes,
        }
    }

    /// The size, in bytes, that is compared with the threshold.
    pub fn measured_bytes(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Rss => self.resident_bytes,
            Measure::Anonymous => self.anonymous_bytes,
        }
    }
}

/// Which size of a sample is compared with the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// The resident size: what operators see in `ps` and `top`.
    Rss,
    /// The anonymous size: what cannot be reclaimed without swap.
    #[default]
    Anonymous,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_pages_count_as_resident_but_not_as_anonymous() {
        let memory = ProcessMemory {
            resident_bytes: 100,
            shared_bytes: 70,
        };
        let sample = Sample::new(Duration::ZERO, memory, 20);
        assert_eq!(sample.measured_bytes(Measure::Rss), 100);
        assert_eq!(sample.measured_bytes(Measure::Anonymous), 30);
    }

    #[test]
    fn counters_stand_for_both_sizes_when_the_kernel_is_silent() {
        let sample = Sample::of_counters(Duration::from_secs(1), 42);
        assert_eq!(sample.measured_bytes(Measure::Rss), 42);
        assert_eq!(sample.measured_bytes(Measure::Anonymous), 42);
    }
}
