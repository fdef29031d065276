//! filed takes in large files under a memory budget.
//!
//! A file is streamed in chunks of 1 MiB through buffers of a managed heap, cut where its content
//! says so, digested, deduplicated, compressed and stored once; it can be restored and verified. One
//! number says how much memory all of that may use.
//!
//! ```text
//! main > cli > daemon > { pipeline > { store, heap }, pressure }        config > each room's options
//! ```
//!
//! * [`cli`] never decides; [`config`] is never passed below `daemon`, each room gets its own options.
//! * [`daemon`] senses, relieves and hears signals, and never computes.
//! * [`pipeline`] moves data on plain threads, and has never heard of pressure: it gets limits.
//! * [`store`] is the only place that writes what is stored, and never knows what a job is.
//! * [`heap`] is the only place with `unsafe`, and never knows what a chunk is.
//! * [`pressure`] decides and never acts.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod heap;
pub mod pipeline;
pub mod pressure;
pub mod store;
