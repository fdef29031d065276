//! Content that can be made again from two numbers: so nothing has to be kept to compare with.

use std::io::{self, Write};
use std::time::Duration;

/// Numbers that follow from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn choose<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }

    /// Sleeps for so long on average.
    pub(crate) fn rest(&mut self, average: Duration) {
        let micros = average.as_micros() as u64;
        std::thread::sleep(Duration::from_micros(self.below(2 * micros)));
    }
}

/// What a file holds.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    seed: u64,
    bytes: u64,
}

impl Content {
    /// From 1 KiB to 16 MiB, each doubling as likely as any other; three of four begin as another did.
    pub(crate) fn any(random: &mut Random) -> Content {
        let doubling = 10 + random.below(14);
        let bytes = (1 << doubling) + random.below(1 << doubling);
        let seed = match random.below(4) {
            0 => random.next(),
            known => known * 100 + random.below(8),
        };
        Content { seed, bytes }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes all of it.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.blocks(&mut |block| out.write_all(block))
    }

    /// Gives it in blocks: half of each is random, half is text that compresses.
    pub(crate) fn blocks(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut random = Random::new(self.seed);
        let mut left = self.bytes as usize;
        let mut block = Vec::with_capacity(8192);
        while left > 0 {
            block.clear();
            for _ in 0..512 {
                block.extend_from_slice(&random.next().to_le_bytes());
            }
            while block.len() < 8192 {
                let line = format!("{:08} accepted from the queue\n", random.below(100_000_000));
                block.extend_from_slice(line.as_bytes());
            }
            let length = left.min(block.len());
            take(&block[..length])?;
            left -= length;
        }
        Ok(())
    }
}
