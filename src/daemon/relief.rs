//! Carrying out what `pressure` decided, with the things that can give memory back.

use std::num::NonZeroUsize;
use std::time::Instant;

use crate::heap::{Pool, Trim, malloc};
use crate::pipeline::fingerprints::{Fingerprints, Pacing};
use crate::pipeline::{Limits, Reading};
use crate::pressure::action::{Action, CacheCut, Pace, Switch};
use crate::store::database::Database;

/// What holds memory that can be given back.
pub struct Relief<'a> {
    /// Buffers.
    pub pool: &'a Pool,
    /// What the data plane may use.
    pub limits: &'a Limits,
    /// Workers there are at most.
    pub workers: NonZeroUsize,
    /// The cache of known pieces, where there is one.
    pub known: Option<&'a Fingerprints<'a>>,
    /// The database's page cache.
    pub database: &'a Database,
}

impl Relief<'_> {
    /// Bytes in buffers and in what is kept for reuse or noted beside them.
    pub(super) fn held_bytes(&self) -> u64 {
        let stats = self.pool.stats();
        let noted: u64 = stats
            .accounts
            .iter()
            .map(|account| account.noted_bytes)
            .sum();
        stats.held_bytes + stats.idle_resident_bytes + noted
    }

    /// Does what was decided, in that order.
    pub(super) fn carry_out(&self, actions: &[Action], now: Instant) {
        for action in actions {
            match action {
                Action::LimitWorkers(workers) => {
                    self.limits.set_workers(workers.of(self.workers).get());
                    // Back at full strength, the cache may fill again too.
                    if *workers == crate::pressure::action::Workers::All
                        && let Some(known) = self.known
                    {
                        known.set_limit(known.full_limit());
                    }
                }
                Action::DropPageCacheBehind(switch) => {
                    self.limits.set_reading(match switch {
                        Switch::On => Reading::Lean,
                        Switch::Off => Reading::Ahead,
                    });
                }
                Action::ShrinkPieceCache(cut) => {
                    if let Some(known) = self.known {
                        known.set_limit(match cut {
                            CacheCut::Half => known.full_limit() / 2,
                            CacheCut::All => 0,
                        });
                    }
                }
                Action::CollectAll => {
                    if let Some(known) = self.known {
                        known.collect();
                    }
                }
                Action::PaceCollections(pace) => {
                    if let Some(known) = self.known {
                        known.set_pacing(match pace {
                            Pace::ByAllocation => Pacing::ByAllocation,
                            Pace::EveryTenChunks => Pacing::EveryTenChunks,
                        });
                    }
                }
                Action::ShrinkDatabase => self.database.shrink(),
                // Workers that may not work drop theirs as they go to rest.
                Action::DropIdleContexts => {}
                Action::ReturnIdleSegments => self.return_idle(Trim::All, now),
                Action::TrimMalloc => {
                    malloc::trim();
                }
            }
        }
    }

    /// Gives idle buffers back, and has the cache give back what it does not use.
    pub(super) fn return_idle(&self, trim: Trim, now: Instant) {
        if let Some(known) = self.known {
            known.trim(trim);
        }
        let trimmed = self.pool.trim(trim, now);
        if trimmed.returned_bytes > 0 {
            tracing::debug!(
                returned_bytes = trimmed.returned_bytes,
                unmapped_segments = trimmed.unmapped_segments,
                "idle buffers returned"
            );
        }
    }

    /// Gives back all that nobody uses, at the end of a run.
    pub(super) fn everything(&self, now: Instant) {
        self.database.shrink();
        self.return_idle(Trim::All, now);
        malloc::trim();
    }
}
