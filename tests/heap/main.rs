//! The managed heap, seen from outside: one file for each of its systems.

mod counting;
