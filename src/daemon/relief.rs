//! Carrying out what `pressure` decided, with the things that can give memory back.

use std::cell::Cell;
use std::time::Instant;

use super::tuning::Plan;
use crate::heap::{Pool, Trim, malloc};
use crate::pipeline::fingerprints::{Fingerprints, Pacing};
use crate::pipeline::{Limits, Reading};
use crate::pressure::action::{Action, CacheCut, Pace, Switch};
use crate::pressure::reading::FileReading;
use crate::pressure::share::WorkerShare;
use crate::store::database::Database;

/// What holds memory that can be given back.
pub struct Relief<'a> {
    /// Buffers.
    pub pool: &'a Pool,
    /// What the data plane may use.
    pub limits: &'a Limits,
    /// Workers there are at most, under the limit that rules.
    workers: usize,
    /// The cache of known pieces, where there is one.
    pub known: Option<&'a Fingerprints<'a>>,
    /// What of its bound the cache may use at present.
    cut: Cell<CacheBound>,
    /// The database's page cache.
    pub database: &'a Database,
}

/// How much of its bound the cache of known pieces may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CacheBound {
    /// All of it.
    #[default]
    Whole,
    /// So much is cut off.
    Cut(CacheCut),
}

/// What is held, counted at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Bytes in buffers and in what is kept for reuse or noted beside them.
    pub held_bytes: u64,
    /// What was ordered and is not back yet: the buffers of workers that are to rest when they have
    /// ended their chunk, and what the cache holds above its bound.
    pub in_flight_bytes: u64,
    /// Buffers that are free and could be returned at once.
    pub idle_bytes: u64,
}

impl<'a> Relief<'a> {
    /// What there is to give back, with as many workers as the limits allow now, and nothing cut yet.
    pub fn new(
        pool: &'a Pool,
        limits: &'a Limits,
        known: Option<&'a Fingerprints<'a>>,
        database: &'a Database,
    ) -> Relief<'a> {
        Relief {
            pool,
            limits,
            workers: limits.workers(),
            known,
            cut: Cell::default(),
            database,
        }
    }

    pub(super) fn holdings(&self) -> Holdings {
        let stats = self.pool.stats();
        let (mut noted, mut fingerprints) = (0, 0);
        for account in &stats.accounts {
            noted += account.noted_bytes;
            if account.name == "fingerprints" {
                fingerprints += account.noted_bytes;
            }
        }
        let above_budget = stats.held_bytes.saturating_sub(stats.budget_bytes);
        let above_bound =
            (self.known).map_or(0, |known| fingerprints.saturating_sub(known.limit()));
        Holdings {
            held_bytes: stats.held_bytes + stats.idle_resident_bytes + noted,
            in_flight_bytes: above_budget + above_bound,
            idle_bytes: stats.idle_resident_bytes,
        }
    }

    /// Has another plan followed, of whose workers this share may work. What is held beyond it comes
    /// back at the next chunk boundary.
    pub(super) fn follow(&mut self, plan: &Plan, share: WorkerShare) {
        self.workers = plan.workers;
        self.limits.set_workers(share.of(plan.workers));
        self.pool.set_budget(plan.buffer_bytes);
        if let Some(known) = self.known {
            known.set_full_limit(plan.cache_bytes);
            self.bound_cache(self.cut.get());
        }
    }

    /// Does one thing.
    pub(super) fn carry_out(&self, action: &Action, now: Instant) {
        match action {
            Action::LimitWorkers(share) => self.limits.set_workers(share.of(self.workers)),
            Action::ReadFiles(reading) => self.limits.set_reading(match reading {
                FileReading::Ahead => Reading::Ahead,
                FileReading::Near => Reading::Near,
                FileReading::Lean => Reading::Lean,
                FileReading::Direct => Reading::Direct,
            }),
            Action::CompressLightly(switch) => {
                self.limits.set_compresses_lightly(*switch == Switch::On);
            }
            Action::ShrinkPieceCache(cut) => {
                self.bound_cache(CacheBound::Cut(*cut));
            }
            Action::RestorePieceCache => self.bound_cache(CacheBound::Whole),
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
            Action::FailJobs => {
                tracing::error!(
                    "what is being read does not fit into the memory limit: it is given up"
                );
                self.limits.give_up();
            }
        }
    }

    fn bound_cache(&self, bound: CacheBound) {
        self.cut.set(bound);
        if let Some(known) = self.known {
            known.set_limit(match bound {
                CacheBound::Whole => known.full_limit(),
                CacheBound::Cut(CacheCut::Half) => known.full_limit() / 2,
                CacheBound::Cut(CacheCut::All) => 0,
            });
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
