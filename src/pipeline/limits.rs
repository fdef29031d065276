//! What the data plane may use at present. It has not heard of pressure: somebody sets limits here,
//! and every worker follows them from its next chunk on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Limits that may change while work goes on.
#[derive(Debug)]
pub struct Limits {
    workers: AtomicUsize,
    drop_behind: AtomicBool,
}

impl Limits {
    /// `workers` threads (at least one) may work, and the page cache is left as it is.
    pub fn new(workers: usize) -> Limits {
        Limits {
            workers: AtomicUsize::new(workers.max(1)),
            drop_behind: AtomicBool::new(false),
        }
    }

    /// How many workers may work. The others give back their buffers and rest.
    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    /// Sets how many workers may work; at least one always may.
    pub fn set_workers(&self, workers: usize) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    /// Whether pages of files that were read or written are dropped from the page cache.
    pub fn drops_behind(&self) -> bool {
        self.drop_behind.load(Ordering::Relaxed)
    }

    /// Sets whether the page cache is dropped behind reader and writer.
    pub fn set_drop_behind(&self, on: bool) {
        self.drop_behind.store(on, Ordering::Relaxed);
    }
}

/// Tells everybody to stop at the next chunk boundary. Never taken back.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Asks for the stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
