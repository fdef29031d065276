//! Handing files to the queue of jobs, many in one commit.
//!
//! The rule: what the queue has no room for, or could not be written, stays here and is offered again,
//! later and later up to 30 s, but soon when a job has ended. Until it is taken nothing more comes in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{InboxStats, Recipient, lock};
use crate::daemon::jobs::{Accepted, NewJob};

/// Jobs submitted in one commit.
const BATCH: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The queue is tried again so soon after a job has ended: not for each one that makes room.
const PAUSE_WHEN_ENDED: Duration = Duration::from_millis(200);

/// What is about to be submitted.
pub(super) struct Batch {
    recipient: Arc<dyn Recipient>,
    jobs: Vec<NewJob>,
    /// Of the inbox that each job comes from.
    stats: Vec<Arc<Mutex<InboxStats>>>,
    pause: Duration,
    /// Not to be submitted before this.
    full_until: Option<Instant>,
}

impl Batch {
    pub(super) fn new(recipient: Arc<dyn Recipient>) -> Batch {
        Batch {
            recipient,
            jobs: Vec::new(),
            stats: Vec::new(),
            pause: FIRST_PAUSE,
            full_until: None,
        }
    }

    pub(super) fn recipient(&self) -> &dyn Recipient {
        &*self.recipient
    }

    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= BATCH
    }

    /// Until when nothing is taken; `None` if that is not known of.
    pub(super) fn full_until(&self) -> Option<Instant> {
        self.full_until
    }

    pub(super) fn push(&mut self, job: NewJob, stats: &Arc<Mutex<InboxStats>>) {
        self.jobs.push(job);
        self.stats.push(Arc::clone(stats));
    }

    /// Lets go of jobs that nobody wants any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&NewJob) -> bool) {
        let (jobs, stats) = (
            std::mem::take(&mut self.jobs),
            std::mem::take(&mut self.stats),
        );
        let both = jobs.into_iter().zip(stats);
        (self.jobs, self.stats) = both.filter(|(job, _)| is_wanted(job)).unzip();
    }

    /// A job has ended, so there may be room.
    pub(super) fn hear_of_room(&mut self, now: Instant) {
        if let Some(until) = &mut self.full_until {
            *until = (*until).min(now + PAUSE_WHEN_ENDED);
        }
    }

    /// Submits everything, unless it is too soon; whether nothing is left.
    pub(super) fn submit(&mut self, now: Instant) -> bool {
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        self.full_until = None;
        if self.jobs.is_empty() {
            return true;
        }
        let accepted = self.recipient.submit(&self.jobs).unwrap_or_else(|error| {
            tracing::warn!(%error, "files cannot be queued: tried again later");
            for stats in &self.stats {
                lock(stats).last_error = Some(error.to_string());
            }
            Vec::new()
        });
        let accepted = accepted
            .into_iter()
            .chain(std::iter::repeat(Accepted::Full));
        let (jobs, stats) = (
            std::mem::take(&mut self.jobs),
            std::mem::take(&mut self.stats),
        );
        let mut is_any_queued = false;
        for ((job, stats), accepted) in jobs.into_iter().zip(stats).zip(accepted) {
            match accepted {
                Accepted::Queued(_) => {
                    lock(&stats).submitted += 1;
                    is_any_queued = true;
                }
                Accepted::Already(_) => {}
                Accepted::Full => self.push(job, &stats),
            }
        }
        if self.jobs.is_empty() || is_any_queued {
            self.pause = FIRST_PAUSE;
        }
        if self.jobs.is_empty() {
            return true;
        }
        self.full_until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        false
    }
}
