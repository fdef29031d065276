//! The heap: the memory filed works in, counted, collected and given back.
//!
//! Two kinds of memory, and neither knows what it is for:
//!
//! * **Buffers** ([`Buffer`]) for bulk: runs of pages under one budget ([`Pool`]) and in the name of an
//!   owner ([`Account`]). They go from thread to thread and come back wherever they are dropped.
//! * **Objects** ([`Gc`]) for graphs: counted handles, freed at once when the last goes, and a
//!   collector for the cycles that counting cannot free. They belong to a [`Heap`], and that to one
//!   thread: so counting is not atomic and nobody ever stops the others.
//!
//! # Objects
//!
//! ```
//! use filed::heap::{Gc, Generation, Heap, Link, traced};
//!
//! traced! {
//!     struct Person {
//!         name: String,
//!         friend: Link<Person>,
//!     }
//! }
//!
//! let heap = Heap::new();
//! let ann = heap.alloc(Person { name: "Ann".into(), friend: Link::none() })?;
//! let bob = heap.alloc(Person { name: "Bob".into(), friend: Link::to(ann.clone()) })?;
//! assert_eq!(Gc::count(&ann), 2);
//! ann.friend.set(Some(bob.clone()));
//! let weak = Gc::downgrade(&ann);
//! drop((ann, bob));
//! assert!(weak.is_alive(), "they hold each other");
//! assert_eq!(heap.collect(Generation::Young), 2);
//! assert!(!weak.is_alive());
//! # Ok::<(), filed::heap::HeapFull>(())
//! ```
//!
//! ```text
//!                    count to 0                      candidate: count fell, not to 0
//! Gc::drop ──> freed, with what it held       │
//!              (large drops in slices)        v
//!                                   generation 0 ──survived──> 1 ──survived──> 2
//!                                        │   pass: at once,         │     epoch: in slices,
//!                                        └── the young only ────────┘     everything reachable
//!                                                     │                        │
//!                                                     v                        v
//!                                       weak references die, finalizers run, values are dropped
//! ```
//!
//! * Only objects whose count fell are looked at, and what they reach: a pass over the young costs
//!   what the young garbage costs, whatever else lives on the heap.
//! * The oldest generation is collected in slices of 100 us between which the program runs, spaced by
//!   the bytes allocated, so that the garbage outstanding stays below
//!   [`HeapStats::garbage_bound_bytes`]. [`Heap::collect`] and [`Heap::collect_critical`] do it at once.
//! * Changes go through [`GcCell`] and [`Link`], which tell the collector what it must know.
//!   [`traced!`] implements [`Trace`] and cannot forget a field; types that cannot be in cycles are
//!   known when compiled, and cost the collector nothing.
//! * [`Weak`] and [`WeakMap`] keep nothing alive and allocate nothing. Finalizers run once and may
//!   resurrect; their panics are caught and counted.
//! * A limit ([`Heap::set_limit`]) is kept by collecting, then by refusing with [`HeapFull`].
//! * [`Heap::census`], [`Heap::snapshot`] and [`Heap::leaks`] show what there is, what grew and who
//!   holds it; [`Totals`] add up all heaps without stopping one.
//! * [`Batch`] and [`Units`] say when to collect; [`Heap::trim`] gives pages back.
//!
//! # Buffers
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
//! * No object that can be reached is freed; none that cannot outlives two collections of everything;
//!   each finalizer runs once.
//!
//! # Safety contract
//!
//! This room is the only one with `unsafe`. `segment` turns maps into slices: sound because a granule
//! has one owner, a value that cannot be copied and keeps the map alive. `malloc` sets up the C
//! library, `page_cache` asks the kernel one question, `database` SQLite. In `objects` each file opens with
//! the rule that its proofs rest on; the one thing that a caller can get wrong is an `unsafe impl` of [`Trace`], which the macros make unnecessary.

mod account;
mod buffer;
pub mod database;
pub mod malloc;
mod objects;
pub mod page_cache;
mod pool;
mod segment;
mod table;
#[cfg(test)]
mod tests;
mod trim;

pub use crate::{leaf, traced};
pub use account::{Account, AccountStats, Noted};
pub use buffer::Buffer;
pub use objects::{
    Batch, Bulk, CallbackId, Cause, Census, CollectionEvent, Comparison, CycleType, External,
    Frame, Gc, GcCell, GcRef, GcRefMut, Generation, GenerationStats, GroupBy, GrownType, Heap,
    HeapFull, HeapStats, HeapTotals, Histogram, LeakReport, Link, NoSuchGeneration, ObjectId,
    ObjectInfo, OldestRule, Options, PAUSE_BUCKETS, SiteCount, SiteGrowth, SiteName, Snapshot,
    Totals, Trace, Tracer, TrimCursor, TypeCount, TypeGrowth, Unit, Units, Watch, Weak, WeakMap,
    WeakMapStats,
};
pub use pool::{Pool, PoolStats, TakeError, held_by};
pub use trim::{Trim, Trimmed};
