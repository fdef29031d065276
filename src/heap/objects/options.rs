//! What can be told to a heap, and what it says when it is full.

use std::io;
use std::time::Duration;

/// Settings of a [`Heap`](super::Heap).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Most bytes that slabs and external bytes may have together; none for no limit.
    pub limit_bytes: Option<u64>,
    /// Longest slice of incremental work, default 100 us.
    pub slice: Duration,
    /// Longest automatic pass over a young generation before it is given up
    /// and left to the incremental collector, default 250 us.
    pub longest_young: Duration,
    /// Most candidates that such a pass takes at once, default 2,048; the others wait for the next.
    pub most_candidates: u32,
    /// What starts an automatic collection of the oldest generation.
    pub oldest_rule: OldestRule,
    /// The garbage that may be outstanding, as a share of the live bytes, default 1/8.
    pub garbage_share: f64,
    /// The garbage that may be outstanding however small the heap is, in bytes, default 16 MiB.
    pub garbage_floor_bytes: u64,
    /// Mean distance in bytes of sampled allocations, default 512 KiB; 0 for no sampling.
    pub sample_bytes: u64,
    /// A pause longer than this is told as a warning, default 5 ms.
    pub long_pause: Duration,
}

/// What starts an automatic collection of the oldest generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OldestRule {
    /// Bytes allocated since the last one: half of the published bound on
    /// garbage. The other half is for the time that the collection takes.
    #[default]
    Debt,
    /// As in CPython: more collections of generation 1 than the threshold, and
    /// the objects that grew old since are a quarter of all old ones. Has no
    /// bound on garbage; for comparison.
    Quarter,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit_bytes: None,
            slice: Duration::from_micros(100),
            longest_young: Duration::from_micros(250),
            most_candidates: 2048,
            oldest_rule: OldestRule::Debt,
            garbage_share: 0.125,
            garbage_floor_bytes: 16 << 20,
            sample_bytes: 512 << 10,
            long_pause: Duration::from_millis(5),
        }
    }
}

/// A heap refused an allocation: its limit would be exceeded even after a
/// collection, or the system has no memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the heap is full: {wanted_bytes} bytes more than {held_bytes} {}",
    match refused_by_system {
        Some(kind) => format!("refused by the system: {kind}"),
        None => format!("would exceed its limit of {limit_bytes}"),
    }
)]
pub struct HeapFull {
    /// The limit in bytes.
    pub limit_bytes: u64,
    /// Bytes held when it refused, after collecting.
    pub held_bytes: u64,
    /// Bytes that were wanted: of one slab, or of external bytes.
    pub wanted_bytes: u64,
    /// Why the system refused to map memory, if that is the reason.
    pub refused_by_system: Option<io::ErrorKind>,
}
