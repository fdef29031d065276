//! The heap: the memory filed works in, counted and given back.
//!
//! It owns maps of anonymous memory and hands them out as [`Buffer`]s, under one
//! budget ([`Pool`]) and in the name of an owner ([`Account`]). It does not know
//! what the memory is for.
//!
//! # How it works
//!
//! ```text
//! Account::take ── budget, queue ──> table ── dirty before clean, fullest first
//!                     (pool)           │
//!                                      v
//!                  segment: 4 MiB map, 64 granules of 64 KiB
//!                  used  1111 1111 0000 0000 ...   in a buffer
//!                  dirty 0000 0000 1111 0000 ...   free, still resident
//!                                      │           neither: free, not resident
//! Buffer::drop <───── Pages ───────────┘
//! ```
//!
//! * A request is rounded up to granules and admitted if the budget has room.
//!   Otherwise it waits in line; the line is first come, first served.
//! * Up to 4 MiB it gets consecutive granules of a segment, found by shifting
//!   and masking one word; beyond that a map of its own, unmapped on return.
//! * What comes back stays resident: touching it again is a hundred times
//!   cheaper than faulting new pages in. [`Pool::trim`] returns what has gone
//!   cold, and only `MADV_DONTNEED` or unmapping counts as returned.
//! * What goes through malloc is not the pool's; [`malloc`] keeps it in bounds.
//!
//! # Promises
//!
//! * Held bytes never grow beyond the budget, and are exact by owner.
//! * Held and idle memory together stay within the budget too, except idle
//!   memory from before it was lowered, until the next trim. (Pages another
//!   thread is returning at this moment are neither.)
//! * The pool's lock is never held while the kernel frees memory.
//!
//! # Safety contract
//!
//! This room is the only one with `unsafe`, and it is confined to two files.
//! `segment` turns maps into slices: sound because a granule has one owner, a
//! value that cannot be copied and keeps the map alive. `malloc` sets up the C
//! library. No caller inside or outside the room has anything to uphold.

mod account;
mod buffer;
pub mod malloc;
mod objects;
mod pool;
mod segment;
mod table;
#[cfg(test)]
mod tests;
mod trim;

pub use crate::{leaf, traced};
pub use account::{Account, AccountStats, Noted};
pub use buffer::Buffer;
pub use objects::*;
pub use pool::{Pool, PoolStats, TakeError, held_by};
pub use trim::{Trim, Trimmed};
