//! One observation of memory.
//!
//! A sample holds everything a decision is made of, so that a saved one decides
//! the same when it is replayed. Of the two sizes of this process neither is
//! the truth: resident memory counts clean file pages the kernel can drop at
//! will, while anonymous and shared memory (which is what drives a process into
//! its limit) leaves out what operators see in `ps`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pressure::probe::proc::ProcessMemory;

/// What was seen at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, counted from the start of the run. Written in microseconds.
    #[serde(rename = "us", with = "micros")]
    pub at: Duration,
    /// All resident pages of this process, in bytes: anonymous, shared and of
    /// mapped files.
    pub resident_bytes: u64,
    /// Resident pages that no file on disk stands behind, in bytes.
    pub anonymous_bytes: u64,
    /// What filed's own counters say it holds in buffers, in bytes. Not
    /// compared with the threshold: it shows which share of the rest is ours.
    #[serde(default)]
    pub held_bytes: u64,
    /// What of the buffers is free and could be returned at once, in bytes.
    #[serde(default)]
    pub idle_bytes: u64,
    /// What was ordered to be given back and is still being freed, in bytes.
    #[serde(default)]
    pub in_flight_bytes: u64,
    /// What the tightest of our cgroups, or else the host, can still give
    /// before something must be reclaimed that belongs to somebody, in bytes.
    /// `None` where nobody tells.
    #[serde(default)]
    pub headroom_bytes: Option<u64>,
    /// Whether, since the sample before, the system asked for memory back.
    #[serde(default)]
    pub notified: bool,
    /// Whether, since the sample before, the kernel killed a process of our
    /// group.
    #[serde(default)]
    pub oom_killed: bool,
    /// Whether chunks lately took much longer to read than is usual in this
    /// run, which is how reclaim feels from inside.
    #[serde(default)]
    pub slow_reads: bool,
}

impl Sample {
    /// A sample of what the kernel says, beside our own count of `held_bytes`.
    pub fn new(at: Duration, memory: ProcessMemory, held_bytes: u64) -> Self {
        Self {
            at,
            resident_bytes: memory.resident_bytes,
            anonymous_bytes: memory.anonymous_bytes(),
            held_bytes,
            ..Self::default()
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
            ..Self::default()
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// The resident size: what operators see in `ps` and `top`.
    #[default]
    #[serde(rename = "rss")]
    Rss,
    /// Anonymous and shared memory: what cannot be reclaimed without swap.
    #[serde(rename = "anon")]
    Anonymous,
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(at.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
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

    #[test]
    fn a_sample_is_read_back_as_it_was_written() {
        let sample = Sample {
            at: Duration::from_micros(1_234_567),
            headroom_bytes: Some(9),
            notified: true,
            ..Sample::of_counters(Duration::ZERO, 42)
        };
        let line = serde_json::to_string(&sample).expect("numbers and names");
        assert!(
            line.starts_with(r#"{"us":1234567,"resident_bytes":42"#),
            "{line}"
        );
        assert_eq!(
            serde_json::from_str::<Sample>(&line).expect("own line"),
            sample
        );
    }
}
