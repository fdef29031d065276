//! Stretches of all kinds, some of which come again later, at other offsets: something for
//! deduplication to find.
//!
//! A stretch is remembered as the recipe it was made from, kind, seed and length, not as bytes. So
//! what comes again may be gigabytes back, and memory stays flat.

use super::random::Random;
use super::{Kind, Stream};

const KINDS: [Kind; 5] = [
    Kind::Text,
    Kind::Records,
    Kind::Binary,
    Kind::Random,
    Kind::Zeros,
];

/// A stretch has some, but not a whole number of chunks.
const LEAST_STRETCH_BYTES: u64 = 32 << 10;
const MOST_STRETCH_BYTES: u64 = 2 << 20;

/// One stretch in this many is an earlier one.
const REPEATED_ONE_IN: u64 = 4;

/// Recipes kept. When there are more, a new one takes the place of any, so that old ones last.
const MOST_REMEMBERED: usize = 1024;

/// How to make a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    kind: Kind,
    seed: u64,
    length_bytes: u64,
}

/// Decides which stretch is next.
struct Stretches {
    random: Random,
    earlier: Vec<Stretch>,
}

impl Stretches {
    fn choose(&mut self) -> Stretch {
        if !self.earlier.is_empty() && self.random.one_in(REPEATED_ONE_IN) {
            return self.random.pick(&self.earlier);
        }
        let stretch = Stretch {
            kind: self.random.pick(&KINDS),
            seed: self.random.number(),
            length_bytes: self.random.between(LEAST_STRETCH_BYTES, MOST_STRETCH_BYTES),
        };
        if self.earlier.len() < MOST_REMEMBERED {
            self.earlier.push(stretch);
        } else {
            let place = self.random.below(MOST_REMEMBERED as u64) as usize;
            self.earlier[place] = stretch;
        }
        stretch
    }
}

/// The stretches, one after the other.
pub(super) struct Mixed {
    stretches: Stretches,
    current: Box<dyn Stream>,
    left_bytes: u64,
}

impl Mixed {
    pub(super) fn new(random: Random) -> Mixed {
        let mut stretches = Stretches {
            random,
            earlier: Vec::new(),
        };
        let first = stretches.choose();
        Mixed {
            stretches,
            current: first.kind.stream(first.seed),
            left_bytes: first.length_bytes,
        }
    }
}

impl Stream for Mixed {
    fn append(&mut self, out: &mut Vec<u8>) {
        if self.left_bytes == 0 {
            let next = self.stretches.choose();
            self.current = next.kind.stream(next.seed);
            self.left_bytes = next.length_bytes;
        }
        let start = out.len();
        self.current.append(out);
        let made_bytes = ((out.len() - start) as u64).min(self.left_bytes);
        out.truncate(start + made_bytes as usize);
        self.left_bytes -= made_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_a_quarter_of_the_stretches_come_again_and_recipes_stay_bounded() {
        let mut stretches = Stretches {
            random: Random::new(7),
            earlier: Vec::new(),
        };
        let mut repeated = 0;
        for _ in 0..8000 {
            let earlier = stretches.earlier.clone();
            repeated += usize::from(earlier.contains(&stretches.choose()));
            assert!(stretches.earlier.len() <= MOST_REMEMBERED);
        }
        assert!((1700..2300).contains(&repeated), "{repeated} of 8000");
    }

    #[test]
    fn a_stretch_is_cut_at_its_length() {
        let mut mixed = Mixed::new(Random::new(3));
        let length_bytes = mixed.left_bytes;
        let mut made = Vec::new();
        while mixed.left_bytes > 0 {
            mixed.append(&mut made);
        }
        assert_eq!(made.len() as u64, length_bytes);
    }
}
