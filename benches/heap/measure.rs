//! Clocks, resident memory, and what a series of measurements comes to.
//!
//! Time is the thread's own time on the processor: what other programs take is
//! not in it. Candidate and anchor run in turn, so that a machine that changes
//! its speed changes both; what is compared are the ratios of neighbours.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time that this thread has spent on a processor.
pub(crate) fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Seconds of this thread that `run` takes.
pub(crate) fn seconds(run: impl FnOnce()) -> f64 {
    let start = cpu();
    run();
    (cpu() - start).as_secs_f64()
}

/// Resident memory of the process in bytes.
pub(crate) fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0.0) * rustix::param::page_size() as f64
}

/// Numbers that were measured one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self(values.into_iter().collect())
    }

    pub(crate) fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The value that this share of values does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let place = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        sorted.get(place.min(last)).copied().unwrap_or(f64::NAN)
    }

    /// The middle one of the ratios of what was measured in the same rounds; of the medians if
    /// they were not measured together.
    pub(crate) fn ratio_to(&self, anchor: &Self) -> f64 {
        if self.0.len() == anchor.0.len() {
            Self::of(self.0.iter().zip(&anchor.0).map(|(a, b)| a / b)).median()
        } else {
            self.median() / anchor.median()
        }
    }

    /// How many values are greater than those of the same round in `other`.
    pub(crate) fn greater_than(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).filter(|(a, b)| a > b).count()
    }
}

/// Something that measures itself once.
pub(crate) type Run<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// Lets all runs take turns, for so many rounds and one that does not count.
pub(crate) fn in_turns<const N: usize>(rounds: usize, mut runs: [Run<'_>; N]) -> [Series; N] {
    let mut series = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for (run, values) in runs.iter_mut().zip(&mut series) {
            let value = run();
            if round > 0 {
                values.push(value);
            }
        }
    }
    series.map(Series)
}

/// Numbers that look random and are the same in every run: wyrand.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let wide = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (wide >> 64) as u64 ^ wide as u64
    }

    /// A number below `bound`.
    #[inline]
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}
