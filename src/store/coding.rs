//! Compressing and decompressing payloads, with contexts that are kept and reused.
//!
//! A context for 1 MiB at level 3 holds about 1.3 MiB; making one for each frame would cost more
//! than it saves, keeping one for each thread is bounded. Output never exceeds the room it is given.

use zstd_safe::{CCtx, CParameter, DCtx};

use super::record::Coding;

/// Compresses payloads at one level.
pub struct Encoder {
    context: CCtx<'static>,
}

impl Encoder {
    /// A context for `level` (1 to 19).
    pub fn new(level: i32) -> Encoder {
        let mut context = CCtx::create();
        // A level out of range is clamped by zstd itself, so this cannot fail.
        let _ = context.set_parameter(CParameter::CompressionLevel(level));
        Encoder { context }
    }

    /// Compresses `plain` into `out` and says how long it got, or `None` if it does not fit there:
    /// give it less room than `plain` needs, and what does not shrink is not kept.
    pub fn compress(&mut self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        self.context.compress2(out, plain).ok()
    }

    /// Bytes that the context holds now.
    pub fn held_bytes(&self) -> u64 {
        self.context.sizeof() as u64
    }
}

/// Decompresses payloads.
pub struct Decoder {
    context: DCtx<'static>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            context: DCtx::create(),
        }
    }
}

impl Decoder {
    /// Decodes `stored` into all of `plain`; `false` if it is not exactly that long or damaged.
    pub fn decode(&mut self, coding: Coding, stored: &[u8], plain: &mut [u8]) -> bool {
        match coding {
            Coding::Plain => {
                let fits = stored.len() == plain.len();
                if fits {
                    plain.copy_from_slice(stored);
                }
                fits
            }
            Coding::Zstd => self.context.decompress(plain, stored).ok() == Some(plain.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_shrink_is_refused() {
        let noise: Vec<u8> = (0..4096u64)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..8].to_vec())
            .collect();
        let mut out = vec![0; noise.len() - 1];
        assert_eq!(Encoder::new(3).compress(&noise, &mut out), None);
    }

    proptest! {
        #[test]
        fn decoding_gives_back_the_plain_bytes(
            plain in prop::collection::vec(0u8..4, 0..5000), level in 1i32..6
        ) {
            let mut out = vec![0; plain.len() + 100];
            let length = Encoder::new(level).compress(&plain, &mut out).unwrap();
            let mut back = vec![0; plain.len()];
            let mut decoder = Decoder::default();
            prop_assert!(decoder.decode(Coding::Zstd, &out[..length], &mut back));
            prop_assert_eq!(&back, &plain);
        }

        #[test]
        fn damaged_input_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut plain = vec![0; 100_000];
            prop_assert!(!Decoder::default().decode(Coding::Zstd, &bytes, &mut plain));
        }
    }
}
