//! The managed heap, seen from outside: one file for each of its systems.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aggressive;
mod cache;
mod counting;
#[path = "../../benches/many_pieces.rs"]
mod many_pieces;
