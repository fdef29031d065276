//! Accounts: who holds how much.
//!
//! The heap does not know what its memory is for; an owner is a name given
//! from outside. Every byte a buffer holds stands in exactly one account, so
//! the accounts always add up to what the pool has handed out. Beside it an
//! account can **note** memory that lies elsewhere (a compression context, a
//! cache): it shows up in the report and does not count against the budget.

use std::fmt;

use super::buffer::Buffer;
use super::pool::{Pool, TakeError};

/// One owner's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStats {
    /// The owner.
    pub name: &'static str,
    /// Bytes in buffers, each rounded up to whole granules of 64 KiB.
    pub held_bytes: u64,
    /// The most `held_bytes` has ever been.
    pub peak_bytes: u64,
    /// Bytes noted: held outside the pool, not part of the budget.
    pub noted_bytes: u64,
}

/// An owner's access to a [`Pool`]; clones share the counters.
#[derive(Clone)]
pub struct Account {
    pool: Pool,
    id: AccountId,
}

impl Account {
    pub(super) fn new(pool: Pool, id: AccountId) -> Self {
        Self { pool, id }
    }

    /// Takes a buffer of `bytes`, and waits while it would exceed the budget.
    ///
    /// Those who wait are served in the order they came, so that a large
    /// request is not passed by small ones for ever. A thread that waits while
    /// it holds buffers may be waiting for itself: take what a step needs
    /// at once, or use [`try_take`](Self::try_take).
    ///
    /// # Errors
    ///
    /// [`TakeError::TooLarge`] if the budget is or becomes smaller than the
    /// request, [`TakeError::Closed`] if the pool is or gets closed,
    /// [`TakeError::Map`] if the kernel refuses the memory.
    pub fn take(&self, bytes: usize) -> Result<Buffer, TakeError> {
        let place = self.pool.take(self.id, bytes)?;
        Ok(Buffer::new(self.clone(), place, bytes))
    }

    /// Takes a buffer of `bytes` if that needs no waiting, `None` otherwise:
    /// also if it would fit, but others wait already.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn try_take(&self, bytes: usize) -> Result<Option<Buffer>, TakeError> {
        let place = self.pool.try_take(self.id, bytes)?;
        Ok(place.map(|place| Buffer::new(self.clone(), place, bytes)))
    }

    /// Counts `bytes` held outside the pool until the guard is dropped.
    pub fn note(&self, bytes: u64) -> Noted {
        let mut noted = Noted {
            account: self.clone(),
            bytes: 0,
        };
        noted.set(bytes);
        noted
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn id(&self) -> AccountId {
        self.id
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Account").field(&self.id.0).finish()
    }
}

/// Memory held outside the pool, counted while this lives.
#[derive(Debug)]
#[must_use = "the bytes are counted only while the guard lives"]
pub struct Noted {
    account: Account,
    bytes: u64,
}

impl Noted {
    /// Counts `bytes` from now on, in place of what was counted so far.
    pub fn set(&mut self, bytes: u64) {
        let was = std::mem::replace(&mut self.bytes, bytes);
        self.account.pool.note(self.account.id, was, bytes);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Names a row of a [`Ledger`].
#[derive(Clone, Copy, Debug)]
pub(super) struct AccountId(usize);

/// The counters of all accounts of a pool. Accounts are never removed: their
/// names are few and fixed in the program.
#[derive(Default)]
pub(super) struct Ledger {
    rows: Vec<AccountStats>,
}

impl Ledger {
    /// The account of that name, opened if it is new.
    pub(super) fn open(&mut self, name: &'static str) -> AccountId {
        let known = self.rows.iter().position(|row| row.name == name);
        AccountId(known.unwrap_or_else(|| {
            self.rows.push(AccountStats {
                name,
                held_bytes: 0,
                peak_bytes: 0,
                noted_bytes: 0,
            });
            self.rows.len() - 1
        }))
    }

    pub(super) fn name(&self, id: AccountId) -> &'static str {
        self.rows[id.0].name
    }

    pub(super) fn hold(&mut self, id: AccountId, bytes: u64) {
        let row = &mut self.rows[id.0];
        row.held_bytes += bytes;
        row.peak_bytes = row.peak_bytes.max(row.held_bytes);
    }

    pub(super) fn release(&mut self, id: AccountId, bytes: u64) {
        self.rows[id.0].held_bytes -= bytes;
    }

    /// Replaces a note. Notes are claims from outside and may be absurd, so
    /// they saturate; those of the pool itself are exact and do not.
    pub(super) fn note(&mut self, id: AccountId, was: u64, is: u64) {
        let row = &mut self.rows[id.0];
        row.noted_bytes = row.noted_bytes.saturating_sub(was).saturating_add(is);
    }

    pub(super) fn rows(&self) -> &[AccountStats] {
        &self.rows
    }
}
