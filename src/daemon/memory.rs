//! What is seen of this process's memory while it works.

use std::path::Path;
use std::time::Duration;

use crate::pressure::probe::ProbeError;
use crate::pressure::probe::proc::{ProcSelf, ProcessMemory};
use crate::pressure::sample::{Measure, Sample};

/// Resident memory over a run, in bytes. All zero where `/proc` cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySeen {
    /// Before the work began.
    pub start_bytes: u64,
    /// The most there ever was, as the kernel counts it.
    pub peak_bytes: u64,
    /// After the work had ended and idle memory was given back.
    pub end_bytes: u64,
}

/// Reads this process's memory below `root` where there is no run to watch.
pub fn seen_now(root: &Path) -> MemorySeen {
    let mut probe = MemoryProbe::open(root, Measure::Rss);
    probe.start();
    probe.finish()
}

/// Reads this process's memory, and remembers what it read.
pub struct MemoryProbe {
    measure: Measure,
    process: Option<ProcSelf>,
    last: ProcessMemory,
    seen: MemorySeen,
}

impl MemoryProbe {
    /// Opens the probe below `root` (`/` but in tests), to be precise about what `measure` counts.
    /// Without `/proc` filed works by its own counters, and says so once.
    pub fn open(root: &Path, measure: Measure) -> MemoryProbe {
        let process = ProcSelf::open(root).map_err(|error| warn(&error)).ok();
        MemoryProbe {
            measure,
            process,
            last: ProcessMemory {
                resident_bytes: 0,
                shared_bytes: 0,
            },
            seen: MemorySeen::default(),
        }
    }

    /// Remembers how things are before the work.
    pub(super) fn start(&mut self) {
        self.sample(Duration::ZERO, 0);
        self.seen.start_bytes = self.last.resident_bytes;
        self.seen.peak_bytes = self.last.resident_bytes;
    }

    /// Reads how things are now.
    pub(super) fn sample(&mut self, at: Duration, held_bytes: u64) -> Sample {
        match self.process.as_ref().map(ProcSelf::memory) {
            Some(Ok(memory)) => {
                self.last = memory;
                self.seen.peak_bytes = self.seen.peak_bytes.max(memory.resident_bytes);
                let mut sample = Sample::new(at, memory, held_bytes);
                if let Some(bytes) = self.anonymous_and_shared() {
                    sample.anonymous_bytes = bytes;
                }
                sample
            }
            Some(Err(error)) => {
                warn(&error);
                self.process = None;
                Sample::of_counters(at, held_bytes)
            }
            None => Sample::of_counters(at, held_bytes),
        }
    }

    /// Shared memory counted in, if that is what is measured.
    fn anonymous_and_shared(&mut self) -> Option<u64> {
        if self.measure == Measure::Rss {
            return None;
        }
        match self.process.as_ref()?.anonymous_and_shared_bytes() {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::warn!(%error, "shared memory is left out of what is measured");
                self.measure = Measure::Rss;
                None
            }
        }
    }

    /// Whether memory can be read; if not, samples are of filed's own counters.
    pub(super) fn sees(&self) -> bool {
        self.process.is_some()
    }

    /// What the last sample said.
    pub(super) fn last_resident_bytes(&self) -> u64 {
        self.last.resident_bytes
    }

    /// Reads how things are after the work.
    pub(super) fn finish(&mut self) -> MemorySeen {
        self.sample(Duration::ZERO, 0);
        self.seen.end_bytes = self.last.resident_bytes;
        if let Some(Ok(peak)) = self.process.as_ref().map(ProcSelf::peak_resident_bytes) {
            self.seen.peak_bytes = self.seen.peak_bytes.max(peak);
        }
        self.seen
    }
}

fn warn(error: &ProbeError) {
    tracing::warn!(%error, "memory cannot be read: going by filed's own counters");
}
