//! Content for files: the same for the same seed, on every machine.

use std::fmt::Write;

/// Numbers that look random, and are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Lines that compress, no two of them the same.
pub(crate) fn text(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "request", "from", "queue", "accepted", "stored", "by", "worker", "retry", "after",
        "error", "client", "closed", "upload", "of", "bytes", "done",
    ];
    let mut random = Random::new(seed);
    let mut out = String::with_capacity(length + 200);
    let mut number = 0u64;
    while out.len() < length {
        write!(out, "{number:08} {:016x}", random.next()).unwrap();
        for _ in 0..12 {
            let word = WORDS[random.below(WORDS.len() as u64) as usize];
            write!(out, " {word}").unwrap();
        }
        out.push('\n');
        number += 1;
    }
    out.truncate(length);
    out.into_bytes()
}

/// BLAKE3 digest, as filed prints it.
pub(crate) fn digest(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}
