//! Numbers that look random and come again with their seed.
//!
//! SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014):
//! a counter and a mixing function. It is far from the only good choice, but it is short enough to
//! be written here, so no new version of a crate can change the data we measure with.

/// A source of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The numbers of `seed`. Neighbouring seeds have nothing in common.
    pub(super) fn new(seed: u64) -> Random {
        Random {
            state: mix(seed ^ Self::STEP),
        }
    }

    /// The next number, each of the 2^64 as likely.
    pub(super) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::STEP);
        mix(self.state)
    }

    /// A number from 0 up to but not including `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A number below `bound`, small ones more often: what durations and sizes look like.
    pub(super) fn mostly_small(&mut self, bound: u64) -> u64 {
        let bound = self.below(bound) + 1;
        self.below(bound)
    }

    /// True once in `times`, on average.
    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, each as likely.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// One of `choices`, the first ones more often.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub(super) fn pick_early<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.mostly_small(choices.len() as u64) as usize]
    }

    /// Fills `out` with bytes that do not shrink.
    pub(super) fn fill(&mut self, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut();
        for word in words {
            *word = self.number().to_le_bytes();
        }
        let last = self.number().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
