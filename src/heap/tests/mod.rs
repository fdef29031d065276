//! Facts about the pool as its users see it.

mod buffers;
mod model;
mod queue;
mod trim;

const GRANULE: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// What a buffer of `bytes` holds.
fn granules(bytes: usize) -> u64 {
    bytes.next_multiple_of(GRANULE) as u64
}
