//! What the data plane may use at present. It has not heard of pressure: somebody sets limits here,
//! and every worker follows them from its next chunk on.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Limits that may change while work goes on.
#[derive(Debug)]
pub struct Limits {
    workers: AtomicUsize,
    reading: AtomicU8,
    compresses_lightly: AtomicBool,
    rounds: AtomicU64,
}

/// How files are read. In every way the page cache is dropped behind the reader, unless others had the
/// file in there before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Reading {
    /// The kernel reads ahead as it sees fit.
    Ahead = 0,
    /// A few chunks are read ahead of the reader: the kernel alone keeps up to 32 MiB of a file.
    Near = 1,
    /// Nothing is read ahead: where memory is short, what was read ahead is thrown out before it is
    /// used, and read again.
    Lean = 2,
    /// Past the page cache, where the file system can; else as [`Lean`](Reading::Lean).
    Direct = 3,
}

impl Limits {
    /// `workers` threads (at least one) may work, and the kernel reads ahead.
    pub fn new(workers: usize) -> Limits {
        Limits {
            workers: AtomicUsize::new(workers.max(1)),
            reading: AtomicU8::new(Reading::Ahead as u8),
            compresses_lightly: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
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

    /// How files are read at present.
    pub fn reading(&self) -> Reading {
        match self.reading.load(Ordering::Relaxed) {
            0 => Reading::Ahead,
            1 => Reading::Near,
            2 => Reading::Lean,
            _ => Reading::Direct,
        }
    }

    /// Sets how files are read from the next chunk on.
    pub fn set_reading(&self, reading: Reading) {
        self.reading.store(reading as u8, Ordering::Relaxed);
    }

    /// Whether compression makes do with the smallest context.
    pub fn compresses_lightly(&self) -> bool {
        self.compresses_lightly.load(Ordering::Relaxed)
    }

    /// Sets whether compression makes do with the smallest context, from the next chunk on.
    pub fn set_compresses_lightly(&self, lightly: bool) {
        self.compresses_lightly.store(lightly, Ordering::Relaxed);
    }

    /// Fails all files that are being read: there is no memory for them.
    pub fn give_up(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// How often files were given up. Those opened in an earlier round are to fail.
    pub(super) fn round(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
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
