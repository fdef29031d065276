//! Buffers: memory of the pool in somebody's hands.
//!
//! A buffer is its pages, the length that was asked for, and the account that
//! pays. It owns its pages alone, so it can go to any thread, and wherever it is
//! dropped they return to the pool: there is no way to free one too early or to
//! forget it.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};

use super::account::Account;
use super::table::Place;

/// Memory taken from a [`Pool`](super::Pool), as a slice of exactly the length
/// asked for. What is in it at first is unspecified: zeros, or what an earlier
/// buffer left. Given back when dropped.
pub struct Buffer {
    account: Account,
    place: Place,
    len_bytes: usize,
}

impl Buffer {
    pub(super) fn new(account: Account, place: Place, len_bytes: usize) -> Self {
        Self {
            account,
            place,
            len_bytes,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Nowhere => &[],
            Place::Segment { pages, .. } | Place::Map(pages) => &pages[..self.len_bytes],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Place::Nowhere => &mut [],
            Place::Segment { pages, .. } | Place::Map(pages) => &mut pages[..self.len_bytes],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let place = mem::replace(&mut self.place, Place::Nowhere);
        self.account.pool().give_back(self.account.id(), place);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("account", &self.account)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}
