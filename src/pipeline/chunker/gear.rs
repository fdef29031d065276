//! The rolling hash and what is found with it: rules 1 to 4 of the method, and 6.
//!
//! What is found at a position may depend on the bytes before it only as far back as
//! [`CONTEXT_BYTES`]; this is what lets chunks, and parts of a chunk, be scanned independently. It
//! is the hottest loop of filed beside compression, so its shape follows the processor.

use std::array;

use super::ContentParams;

/// Bytes before a chunk that [`scan`] wants to see, where the extent has that many.
///
/// The window reaches back 63 bytes, and rule 4 another 63; two more for a round number.
pub const CONTEXT_BYTES: usize = 128;

/// After a match, no candidate for this many bytes.
const QUIET_BYTES: usize = 64;

/// Bytes that a hash depends on.
const WINDOW_BYTES: usize = 64;

/// A forced cut is found among so many positions.
pub(super) const FORCED_RANGE_BYTES: usize = 4096;

/// A position that may become a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Bytes of the scanned data up to and including the one that made it match.
    pub end: u32,
    /// May end a piece that is still below the average.
    pub strict: bool,
}

/// Replaces `out` by the candidates of `data`, in order.
///
/// `context` is what lies directly before `data` in the same extent: the last [`CONTEXT_BYTES`]
/// (more do no harm), or all there is. With less than that, candidates near the start of `data`
/// would depend on where it was split off.
///
/// # Panics
///
/// When `data` is 4 GiB or more.
pub fn scan(context: &[u8], data: &[u8], params: ContentParams, out: &mut Vec<Candidate>) {
    assert!(
        u32::try_from(data.len()).is_ok(),
        "candidates are 32-bit offsets"
    );
    out.clear();
    let mut first = Lane::after(context, params);
    let lane_bytes = data.len() / LANES / BLOCK_BYTES * BLOCK_BYTES;
    if lane_bytes < CONTEXT_BYTES {
        first.walk(0, data, params, out);
        return;
    }

    let starts: [usize; LANES] = array::from_fn(|lane| lane * lane_bytes);
    let columns = starts.map(|start| data[start..start + lane_bytes].as_chunks().0);
    let mut lanes = starts.map(|start| Lane::after(&data[..start], params));
    lanes[0] = first;
    let mut block = 0;
    loop {
        block += skip_blocks_without_match(&mut lanes, columns.map(|c| &c[block..]), params);
        if block == lane_bytes / BLOCK_BYTES {
            break;
        }
        for (lane, (start, column)) in lanes.iter_mut().zip(starts.iter().zip(columns)) {
            lane.walk(start + block * BLOCK_BYTES, &column[block], params, out);
        }
        block += 1;
    }
    let tail = LANES * lane_bytes;
    lanes[LANES - 1].walk(tail, &data[tail..], params, out);
    out.sort_unstable_by_key(|candidate| candidate.end);
}

/// Where a piece is forced to end: behind the smallest hash among the last [`FORCED_RANGE_BYTES`]
/// positions of `bytes`, the last of those that have it.
///
/// `bytes` are the piece up to the greatest size, which is far more than this looks at.
pub(super) fn forced_end(bytes: &[u8]) -> usize {
    let (before, range) = bytes.split_at(bytes.len() - FORCED_RANGE_BYTES);
    let warm_up = &before[before.len() - (WINDOW_BYTES - 1)..];
    let mut hash = warm_up.iter().fold(0, |hash, &byte| roll(hash, byte));
    let (mut end, mut smallest) = (bytes.len(), u64::MAX);
    for (position, &byte) in (before.len() + 1..).zip(range) {
        hash = roll(hash, byte);
        if hash <= smallest {
            (end, smallest) = (position, hash);
        }
    }
    end
}

/// Parts of the data scanned at once. One hash is a chain of dependent steps; three chains fill
/// the time one waits for itself, and with more the registers no longer hold them all.
const LANES: usize = 3;

/// Bytes of each lane between two looks at the loop counter.
const BLOCK_BYTES: usize = 4;

type Block = [u8; BLOCK_BYTES];

/// The hash on its way through the data.
#[derive(Clone, Copy)]
struct Lane {
    hash: u64,
    /// The next so many positions cannot be candidates, but one.
    quiet_bytes: usize,
}

impl Lane {
    /// The state just after `context`.
    fn after(context: &[u8], params: ContentParams) -> Self {
        let mut lane = Self {
            hash: 0,
            quiet_bytes: 0,
        };
        let seen = &context[context.len().saturating_sub(CONTEXT_BYTES)..];
        lane.walk(0, seen, params, &mut Vec::new());
        lane
    }

    /// Goes on through `bytes`, which lie at `start`, and appends their candidates to `out`.
    fn walk(
        &mut self,
        start: usize,
        bytes: &[u8],
        params: ContentParams,
        out: &mut Vec<Candidate>,
    ) {
        for (end, &byte) in (start + 1..).zip(bytes) {
            self.hash = roll(self.hash, byte);
            self.quiet_bytes = self.quiet_bytes.saturating_sub(1);
            if self.hash < params.loose_ceiling() {
                if self.quiet_bytes == 0 {
                    out.push(Candidate {
                        end: end as u32,
                        strict: self.hash < params.strict_ceiling(),
                    });
                }
                self.quiet_bytes = QUIET_BYTES;
            }
        }
    }
}

/// Moves all lanes over the blocks before the first that has a match in any lane, and returns how
/// many that were. Nearly all of the time is spent here.
///
/// On a match it forgets the block it is in, for `walk` to do again: so the loop needs no order, no
/// offsets and no calls, only comparisons that are never true, and prototypes without any were no
/// faster. Two more things measured on Zen 2, random data: lanes taking turns of two bytes 2.70 GB/s,
/// of one byte 2.13; inlined into `scan`, where other values compete for registers, 2.49.
#[inline(never)]
fn skip_blocks_without_match(
    lanes: &mut [Lane; LANES],
    columns: [&[Block]; LANES],
    params: ContentParams,
) -> usize {
    let ceiling = params.loose_ceiling();
    let mut hashes = lanes.map(|lane| lane.hash);
    let blocks = columns[0].len();
    let columns = columns.map(|column| &column[..blocks]);
    let mut skipped = blocks;
    'blocks: for block in 0..blocks {
        let before = hashes;
        let bytes = columns.map(|column| &column[block]);
        for turn in 0..BLOCK_BYTES / 2 {
            for (hash, bytes) in hashes.iter_mut().zip(bytes) {
                for byte in [bytes[2 * turn], bytes[2 * turn + 1]] {
                    *hash = roll(*hash, byte);
                    if *hash < ceiling {
                        hashes = before;
                        skipped = block;
                        break 'blocks;
                    }
                }
            }
        }
    }
    for (lane, hash) in lanes.iter_mut().zip(hashes) {
        lane.hash = hash;
        lane.quiet_bytes = lane.quiet_bytes.saturating_sub(skipped * BLOCK_BYTES);
    }
    skipped
}

/// The hash after one more byte.
#[inline(always)]
pub(super) fn roll(hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(GEAR[usize::from(byte)])
}

pub(super) static GEAR: [u64; 256] = gear_table(u64::from_be_bytes(*b"filed-g1"));

/// The first 256 outputs of splitmix64 (Steele, Lea, Flood 2014) from this state.
const fn gear_table(mut state: u64) -> [u64; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::{KIB, MIB, average, matching_pair, random};
    use super::{GEAR, Lane, forced_end, roll, scan};

    #[test]
    fn hash_is_a_function_of_the_last_64_bytes() {
        let data = random(3, 300);
        let mut lane = Lane::after(&[], average(16 * KIB));
        lane.walk(0, &data, average(16 * KIB), &mut Vec::new());
        let of_window = (0..64).fold(0_u64, |sum, age| {
            sum.wrapping_add(GEAR[data[299 - age] as usize] << age)
        });
        assert_eq!(lane.hash, of_window);
    }

    #[test]
    fn dense_matches_give_few_candidates() {
        let params = average(16 * KIB);
        let mut found = Vec::new();
        scan(
            &[],
            &matching_pair(params).repeat(MIB / 2),
            params,
            &mut found,
        );
        assert!((1..=3).contains(&found.len()), "{} candidates", found.len());
    }

    #[test]
    fn forced_end_is_sought_among_the_last_4096_positions() {
        let smallest_end = |data: &[u8]| {
            let hash = |end: &usize| data[end - 64..*end].iter().fold(0, |h, &b| roll(h, b));
            (64..=data.len()).min_by_key(hash).expect("many positions")
        };
        let (data, end) = (0..)
            .map(|seed| random(seed, 10_000))
            .map(|data| (smallest_end(&data), data))
            .find_map(|(end, data)| (4200..5900).contains(&end).then_some((data, end)))
            .expect("one of the first few");
        for behind in [0, 1, 1000, 4094, 4095] {
            assert_eq!(forced_end(&data[..end + behind]), end, "{behind} behind");
        }
        let next = forced_end(&data[..end + 4096]);
        assert!((end + 1..=end + 4096).contains(&next), "{next} after {end}");
    }

    #[test]
    fn run_of_one_byte_value_never_matches() {
        for byte in 0..=u8::MAX {
            let steady = [byte; 64].into_iter().fold(0, roll);
            assert!(steady >= average(16 * KIB).loose_ceiling(), "byte {byte}");
        }
    }
}
