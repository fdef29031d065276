//! filed never loses what it has acknowledged: not when it is killed, not when it is stopped, not when
//! the disk is full.
//!
//! * `birth`: a store is killed, or shared, while it comes into being.
//! * `kill`: fifty kills of runs over a folder that keeps changing, one store for all of them.
//! * `signals`: SIGINT and SIGTERM, in the middle and while idle, once and twice.
//! * `full_disk`: a file system that has no room left (needs root, says so if it is not).
//! * `together`: two processes in one store, one of which dies.
//! * `recovery`: what the next process makes of a pack that was left behind, byte by byte.
//! * `frozen`: a store written by the first filed, which every later one must read.
//!
//! The rest is what these are made with: `filed` runs the program, `content` makes files, `packs` makes
//! packs by hand, `acknowledged` remembers what was promised and holds the store to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acknowledged;
mod birth;
mod content;
mod filed;
mod frozen;
mod full_disk;
mod kill;
mod packs;
mod recovery;
mod signals;
mod together;
