//! The managed heap, seen from outside: one file for each of its systems.

mod aggressive;
mod cache;
mod counting;
#[path = "../../benches/many_pieces.rs"]
mod many_pieces;
