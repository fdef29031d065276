//! Objects: counted handles, cycles collected in three generations, all of it
//! to be seen, and given back.
//!
//! ```text
//! handle, weak   what programs hold
//! cell           how objects change
//! trace, macros  how the collector sees what objects hold
//! heap, options  what can be asked of a heap and told to it
//! guards         when to collect: batches, units of work
//!   core         slots, counts, candidates, moments
//!   young        collections of the younger generations
//!   epoch        the incremental collection of everything
//!   dispose      taking garbage apart: weak references, finalizers, drops
//! slab, layout   where objects are
//! kind, stats, sites   what is known of types, collections, places
//! census, snapshot, leaks, totals   how to see it
//! weak_map       a map that keeps nothing alive
//! trim           giving memory back
//! ```

mod cell;
mod census;
mod core;
mod dispose;
mod epoch;
mod external;
mod guards;
mod handle;
mod heap;
mod kind;
mod layout;
mod leaks;
mod macros;
mod options;
mod roll;
mod sites;
mod slab;
mod snapshot;
mod stats;
mod totals;
mod trace;
mod trim;
mod weak;
mod weak_map;
mod young;

pub use cell::{GcCell, GcRef, GcRefMut, Link};
pub use census::{Census, ObjectId, ObjectInfo, TypeCount, TypeGrowth};
pub use external::{Bulk, External};
pub use guards::{Batch, Unit, Units};
pub use handle::Gc;
pub use heap::{CallbackId, Heap};
pub use leaks::{CycleType, GrownType, LeakReport};
pub use options::{HeapFull, OldestRule, Options};
pub use snapshot::{Comparison, Frame, GroupBy, SiteCount, SiteGrowth, SiteName, Snapshot};
pub use stats::{
    Cause, CollectionEvent, Generation, GenerationStats, HeapStats, Histogram, NoSuchGeneration,
    PAUSE_BUCKETS,
};
pub use totals::{HeapTotals, Totals};
pub use trace::{Trace, Tracer};
pub use trim::TrimCursor;
pub use weak::{Watch, Weak};
pub use weak_map::{WeakMap, WeakMapStats};
