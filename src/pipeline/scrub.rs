//! The scrub: reading all that is stored again and again, in the background and slowly, so that damage is
//! found while what is lost can still be had.
//!
//! ```text
//!            ┌── off: no rate ──┐        wake, set_options, pause, stop
//!            v                  │                  │
//!   ┌─> whose turn is it? ──> nobody's ──> idle ───┤
//!   │        │ due                                 v
//!   │        v                               (looks again)
//!   └── check its pack, at the rate ──> damage: written down, told, forgotten by the cache
//!            │ pause, stop, somebody waits for memory
//!            v
//!       buffers are given back, the pack is gone on with from there
//! ```
//!
//! It works on one thread that somebody gives it, and has not heard of pressure: somebody pauses it. The
//! rules: it never waits for memory in line, so it takes none from files being stored, and gives its own
//! back at the next record when others wait; and it reacts to whatever it is told at once, wherever
//! it sleeps. What it has read is dropped from the page cache, unless it was there before.

use std::num::NonZeroU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use serde::Serialize;

use super::fingerprints::Fingerprints;
use crate::heap::page_cache::cached_bytes;
use crate::heap::{Buffer, Pool, TakeError, held_by};
use crate::store::clock::now_ns;
use crate::store::error::Chain;
use crate::store::frame::FrameReader;
use crate::store::heal::{self, DamageCount};
use crate::store::lists::PackLists;
use crate::store::record::{MAX_PLAIN_BYTES, MAX_RECORD_BYTES};
use crate::store::scrub::{CheckOrder, NextCheck, Passes};
use crate::store::verify::{CheckedRecord, Damage, Depth, PackToCheck, check_pack};
use crate::store::{PackId, Store, StoreError};

/// After an error that is no damage, and while there is no memory, it tries again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(60);
const ASK_FOR_MEMORY: Duration = Duration::from_secs(1);

/// Bytes of all packs are added up no more often than this, and damaged places counted.
const ADD_UP_EVERY: Duration = Duration::from_secs(60);
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Damaged places are counted this often though nothing was heard of.
const COUNT_ANYWAY: Duration = Duration::from_secs(600);

/// What was slept too long is made up for by no more than this much of reading.
const MADE_UP_FOR: Duration = Duration::from_millis(200);

/// The kernel keeps what it read ahead in pieces of up to this size, and drops none of them in part.
const CACHE_PIECE_BYTES: u64 = 2 << 20;

/// Lists of packs kept while damage is counted, in bytes.
const LIST_BYTES: u64 = 1 << 20;

/// Bytes of buffers that the scrub takes from its pool while it reads.
pub fn buffer_bytes() -> u64 {
    held_by(MAX_RECORD_BYTES) + held_by(MAX_PLAIN_BYTES)
}

/// How the scrub works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubOptions {
    /// Bytes to read in a second; `None` or 0 turns it off.
    pub rate_bytes: Option<u64>,
    /// A pack is read again when it has not been for this long.
    pub every: Duration,
}

/// Who pauses the scrub. It works when nobody does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PauseFor {
    /// There is something more urgent to do with memory or disk.
    Pressure = 1,
    /// Somebody asked for it.
    Request = 2,
}

/// What the scrub does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScrubState {
    /// It has no rate, or does not run.
    Off,
    /// Everything has been checked; it waits for new data or for time to pass.
    Idle,
    /// It reads.
    Running,
    /// It is kept from reading, or there is no memory for it at present.
    Paused,
}

/// How far the scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubStatus {
    /// What it does.
    pub state: ScrubState,
    /// When the present pass over everything began, nanoseconds since 1970; `None` between two.
    pub pass_began_ns: Option<i64>,
    /// Bytes of packs checked in this pass.
    pub checked_bytes: u64,
    /// Bytes of all packs that no writer has.
    pub pass_total_bytes: u64,
    /// How long the last whole pass took.
    pub last_pass: Option<Duration>,
    /// When it ended, nanoseconds since 1970.
    pub last_pass_ended_ns: Option<i64>,
    /// How long a pass takes at the present rate.
    pub expected_pass: Option<Duration>,
    /// Bytes read since it was started.
    pub read_bytes: u64,
    /// Damaged places that are known.
    pub damage: DamageCount,
}

/// The scrub, as those see it who steer it and who ask about it.
pub struct Scrub {
    shared: Mutex<Shared>,
    changed: Condvar,
}

struct Shared {
    options: ScrubOptions,
    /// Bits of [`PauseFor`].
    paused: u8,
    stopped: bool,
    /// Counts what it was told, so that nothing said between looking and sleeping is missed.
    told: u64,
    state: ScrubState,
    passes: Passes,
    /// Bytes of packs checked whole in this pass, and of the one at hand.
    checked_bytes: u64,
    at_hand_bytes: u64,
    total_bytes: u64,
    read_bytes: u64,
    damage: DamageCount,
}

impl ScrubOptions {
    fn rate(&self) -> Option<u64> {
        self.rate_bytes.filter(|rate| *rate > 0)
    }
}

impl Shared {
    fn may_read(&self) -> bool {
        !self.stopped && self.paused == 0
    }
}

impl Scrub {
    /// A scrub that works like this once it [runs](Self::run).
    pub fn new(options: ScrubOptions) -> Scrub {
        Scrub {
            shared: Mutex::new(Shared {
                options,
                paused: 0,
                stopped: false,
                told: 0,
                state: ScrubState::Off,
                passes: Passes::default(),
                checked_bytes: 0,
                at_hand_bytes: 0,
                total_bytes: 0,
                read_bytes: 0,
                damage: DamageCount::default(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Works on this thread until [`stop`](Self::stop). `known` forgets what is found damaged, and `found`
    /// hears of it. Errors are warnings: it goes on later.
    pub fn run(
        &self,
        store: &Store,
        pool: &Pool,
        known: Option<&Fingerprints<'_>>,
        found: &(dyn Fn(&Damage) + Sync),
    ) {
        let mut work = Work {
            scrub: self,
            store,
            pool,
            known,
            found,
            order: CheckOrder::default(),
            begun: None,
            bucket: Bucket::new(Instant::now()),
            forgiven: Instant::now(),
            added_up: None,
            counted: None,
        };
        loop {
            let told = self.shared().told;
            // Whether it may read or not: others find damage, too.
            let recount = work.recount_damage(told).unwrap_or_else(|error| {
                tracing::warn!(error = %Chain(&error), "known damage is counted later");
                TRY_AGAIN
            });
            let shared = self.shared();
            if shared.stopped {
                break;
            }
            let state = match (shared.options.rate(), shared.paused) {
                (None, _) => Some(ScrubState::Off),
                (_, 0) => None,
                _ => Some(ScrubState::Paused),
            };
            let options = shared.options;
            drop(shared);
            if let Some(state) = state {
                self.sleep(told, state, recount);
                continue;
            }
            match work.step(options) {
                Ok(Step::Again) => {}
                Ok(Step::Sleep(state, time)) => {
                    self.sleep(told, state, time.map_or(recount, |time| time.min(recount)));
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the scrub goes on later");
                    self.sleep(told, ScrubState::Paused, TRY_AGAIN);
                }
            }
        }
        self.shared().state = ScrubState::Off;
    }

    /// Sets how it works from here on.
    pub fn set_options(&self, options: ScrubOptions) {
        self.tell(|shared| shared.options = options);
    }

    /// Keeps it from reading, or lets it go on as far as this reason is concerned.
    pub fn pause(&self, reason: PauseFor, on: bool) {
        self.tell(|shared| {
            if on {
                shared.paused |= reason as u8;
            } else {
                shared.paused &= !(reason as u8);
            }
        });
    }

    /// Ends it for good.
    pub fn stop(&self) {
        self.tell(|shared| shared.stopped = true);
    }

    /// Has it look for something to do: there are new data.
    pub fn wake(&self) {
        self.tell(|_| {});
    }

    /// How far it is.
    pub fn status(&self) -> ScrubStatus {
        let shared = self.shared();
        let took = |(began, ended): (i64, i64)| {
            Duration::from_nanos(u64::try_from(ended.saturating_sub(began)).unwrap_or(0))
        };
        let rate = shared.options.rate();
        ScrubStatus {
            state: shared.state,
            pass_began_ns: shared.passes.began_ns,
            checked_bytes: shared.checked_bytes + shared.at_hand_bytes,
            pass_total_bytes: shared.total_bytes,
            last_pass: shared.passes.last.map(took),
            last_pass_ended_ns: shared.passes.last.map(|(_, ended)| ended),
            expected_pass: rate.map(|rate| Duration::from_secs(shared.total_bytes.div_ceil(rate))),
            read_bytes: shared.read_bytes,
            damage: shared.damage,
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = self.shared();
        change(&mut shared);
        shared.told += 1;
        drop(shared);
        self.changed.notify_all();
    }

    /// Sleeps so long, or until it is told something: nothing else wakes it.
    fn sleep(&self, told: u64, state: ScrubState, time: Duration) {
        let mut shared = self.shared();
        shared.state = state;
        let began = Instant::now();
        while shared.told == told {
            match time.saturating_sub(began.elapsed()) {
                Duration::ZERO => return,
                left => shared = self.wait(shared, left),
            }
        }
    }

    /// Waits for its turn to read on at the rate; whether it still may.
    fn may_read_on(&self, bucket: &mut Bucket) -> bool {
        let mut shared = self.shared();
        loop {
            let Some(rate) = shared.options.rate().filter(|_| shared.may_read()) else {
                return false;
            };
            match bucket.wait(rate, Instant::now()) {
                Duration::ZERO => return true,
                time => shared = self.wait(shared, time),
            }
        }
    }

    fn wait<'a>(&self, shared: MutexGuard<'a, Shared>, time: Duration) -> MutexGuard<'a, Shared> {
        let outcome = self.changed.wait_timeout(shared, time);
        outcome.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Nothing that can panic happens while this is held.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scrub at work.
struct Work<'a> {
    scrub: &'a Scrub,
    store: &'a Store,
    pool: &'a Pool,
    known: Option<&'a Fingerprints<'a>>,
    found: &'a (dyn Fn(&Damage) + Sync),
    order: CheckOrder,
    /// A pack whose check was interrupted.
    begun: Option<Begun>,
    bucket: Bucket,
    /// When postponed packs got their turn again.
    forgiven: Instant,
    /// When bytes were added up last.
    added_up: Option<Instant>,
    /// When damage was counted last, and what had been told by then.
    counted: Option<(Instant, u64)>,
}

/// How far the check of a pack has come.
#[derive(Default)]
struct Begun {
    pack: Option<PackId>,
    from: u64,
    damage: Vec<Damage>,
}

enum Step {
    Again,
    Sleep(ScrubState, Option<Duration>),
}

impl Work<'_> {
    fn step(&mut self, options: ScrubOptions) -> Result<Step, StoreError> {
        if self.forgiven.elapsed() >= TRY_AGAIN {
            self.order.forgive();
            self.forgiven = Instant::now();
        }
        let next = self.store.database().next_check(&mut self.order)?;
        let now = now_ns();
        self.keep_passes(next.as_ref(), now, options.every)?;
        let postponed = self
            .order
            .has_postponed()
            .then(|| TRY_AGAIN.saturating_sub(self.forgiven.elapsed()));
        let Some(next) = next else {
            return Ok(Step::Sleep(ScrubState::Idle, postponed));
        };
        if !next.is_due(now, options.every) {
            let left_ns = next.due_ns(options.every).saturating_sub(now);
            let left = Duration::from_nanos(u64::try_from(left_ns).unwrap_or(0));
            let left = postponed.map_or(left, |postponed| left.min(postponed));
            return Ok(Step::Sleep(ScrubState::Idle, Some(left)));
        }
        let Some((mut room, mut plain)) = self.take_buffers() else {
            return Ok(Step::Sleep(ScrubState::Paused, Some(ASK_FOR_MEMORY)));
        };
        self.scrub.shared().state = ScrubState::Running;
        match self.check(&next, &mut room, &mut plain) {
            Err(error) if !matches!(error, StoreError::Database { .. }) => {
                tracing::warn!(
                    pack = next.pack.0,
                    error = %Chain(&error),
                    "the scrub cannot read a pack, and tries it again later"
                );
                self.order.postpone(next.pack);
                Ok(Step::Again)
            }
            outcome => outcome.map(|()| Step::Again),
        }
    }

    /// Both buffers, if they can be had without anybody waiting for them.
    fn take_buffers(&self) -> Option<(Buffer, Buffer)> {
        let take = |name, bytes| match self.pool.account(name).try_take(bytes) {
            Ok(buffer) => buffer,
            Err(TakeError::Closed | TakeError::TooLarge { .. }) => None,
            Err(error) => {
                tracing::debug!(%error, "no memory for the scrub");
                None
            }
        };
        Some((
            take("records", MAX_RECORD_BYTES)?,
            take("frames", MAX_PLAIN_BYTES)?,
        ))
    }

    /// Checks a pack, or goes on with it, until its end or until it has to stop.
    fn check(
        &mut self,
        next: &NextCheck,
        room: &mut [u8],
        plain: &mut [u8],
    ) -> Result<(), StoreError> {
        let mut begun = self
            .begun
            .take_if(|begun| begun.pack == Some(next.pack))
            .unwrap_or_default();
        let was_cached = self.was_cached(next.pack, begun.from);
        let (scrub, pool, bucket) = (self.scrub, self.pool, &mut self.bucket);
        let check = check_pack(
            self.store,
            PackToCheck {
                id: next.pack,
                state: next.state,
                committed_bytes: next.length_bytes,
                from: begun.from,
            },
            Depth::Content,
            &mut FrameReader::default(),
            room,
            plain,
            &mut |record| {
                if !was_cached {
                    drop_behind(record);
                }
                let mut shared = scrub.shared();
                shared.read_bytes += record.read_bytes;
                shared.at_hand_bytes = record.offset + record.read_bytes;
                drop(shared);
                bucket.spend(record.read_bytes);
                scrub.may_read_on(bucket) && pool.stats().queued == 0
            },
        )?;
        if !was_cached {
            self.drop_pack(next.pack);
        }
        // What concerns the pack as a whole is found each time it is gone on with.
        for damage in check.damage {
            if !begun.damage.contains(&damage) {
                begun.damage.push(damage);
            }
        }
        match check.stopped_at {
            Some(from) => {
                begun.pack = Some(next.pack);
                begun.from = from;
                self.begun = Some(begun);
                Ok(())
            }
            None => self.end_check(next, &begun.damage),
        }
    }

    fn end_check(&mut self, next: &NextCheck, damage: &[Damage]) -> Result<(), StoreError> {
        let database = self.store.database();
        let any_before = database.damage_count()? > 0;
        let lost_before = !database.damaged_pieces(next.pack)?.is_empty();
        let is_there = database.record_check(next.pack, damage, Depth::Content, now_ns())?;
        let mut shared = self.scrub.shared();
        shared.at_hand_bytes = 0;
        shared.checked_bytes += next.length_bytes;
        drop(shared);
        // Of a pack that was removed meanwhile nothing is lost.
        let damage = if is_there { damage } else { &[] };
        if let Some(known) = self.known
            && (lost_before || !damage.is_empty())
        {
            known.forget(next.pack);
        }
        for damage in damage {
            tracing::error!(
                path = %damage.path.display(),
                offset = damage.offset,
                what = damage.what,
                "stored data are damaged"
            );
            (self.found)(damage);
        }
        if any_before || !damage.is_empty() {
            self.count_damage()?;
        }
        Ok(())
    }

    /// Begins and ends passes: one ends when all packs have been checked since it began.
    fn keep_passes(
        &mut self,
        next: Option<&NextCheck>,
        now: i64,
        every: Duration,
    ) -> Result<(), StoreError> {
        let database = self.store.database();
        let mut passes = self.scrub.shared().passes;
        let mut changed = self.added_up.is_none();
        if changed {
            passes = database.passes()?;
        }
        if let Some(began) = passes.began_ns
            && let Some(next) = next
            && next.checked_ns.is_some_and(|checked| checked >= began)
        {
            database.end_pass(began, now)?;
            passes = Passes {
                began_ns: None,
                last: Some((began, now)),
            };
            changed = true;
        }
        // New data between two passes are checked at once, which is no pass.
        if passes.began_ns.is_none()
            && let Some(next) = next
            && next.is_due(now, every)
            && (next.checked_ns.is_some() || passes.last.is_none())
        {
            database.begin_pass(now)?;
            passes.began_ns = Some(now);
            changed = true;
        }
        // New packs come in meanwhile; those checked are added one by one.
        if changed || self.added_up.is_none_or(|at| at.elapsed() >= ADD_UP_EVERY) {
            let bytes = database.checked_bytes(passes.began_ns.unwrap_or(0))?;
            let mut shared = self.scrub.shared();
            shared.passes = passes;
            shared.total_bytes = bytes.total;
            shared.checked_bytes = bytes.checked;
            drop(shared);
            self.added_up = Some(Instant::now());
        }
        Ok(())
    }

    /// Counts damage at first, again after something came in that may have replaced it, and now and then,
    /// since a `filed verify` of somebody else may have found some; gives how long it is until then.
    fn recount_damage(&mut self, told: u64) -> Result<Duration, StoreError> {
        if let Some((at, counted)) = self.counted {
            let may_be_replaced = counted != told && self.scrub.shared().damage.open > 0;
            let due = if may_be_replaced {
                COUNT_EVERY
            } else {
                COUNT_ANYWAY
            };
            let left = due.saturating_sub(at.elapsed());
            if !left.is_zero() {
                return Ok(left);
            }
        }
        self.count_damage()?;
        self.counted = Some((Instant::now(), told));
        Ok(COUNT_ANYWAY)
    }

    fn count_damage(&self) -> Result<(), StoreError> {
        let count = heal::count_damage(self.store, &PackLists::new(self.store, LIST_BYTES))?;
        self.scrub.shared().damage = count;
        Ok(())
    }

    /// Whether others have the pack in the page cache, as far as the kernel tells.
    fn was_cached(&self, pack: PackId, from: u64) -> bool {
        let Ok(pack) = self.store.pack(pack) else {
            return false;
        };
        let length = pack.length_bytes().unwrap_or(0).saturating_sub(from);
        // Opening has read its beginning.
        cached_bytes(pack.file(), from, 0).is_some_and(|cached| cached > length / 2)
            && length > CACHE_PIECE_BYTES
    }

    fn drop_pack(&self, pack: PackId) {
        if let Ok(pack) = self.store.pack(pack) {
            let _ = rustix::fs::fadvise(pack.file(), 0, None, Advice::DontNeed);
        }
    }
}

/// Drops the whole pieces of page cache before a record's end.
fn drop_behind(record: CheckedRecord<'_>) {
    let end = record.offset + record.read_bytes;
    let end = end - end % CACHE_PIECE_BYTES;
    let start = record.offset.saturating_sub(CACHE_PIECE_BYTES);
    let start = start - start % CACHE_PIECE_BYTES;
    if let Some(length) = end.checked_sub(start).and_then(NonZeroU64::new) {
        let _ = rustix::fs::fadvise(record.pack.file(), start, Some(length), Advice::DontNeed);
    }
}

/// Keeps to a rate: what was read is paid for by time.
struct Bucket {
    /// Bytes read that have not been paid for.
    owed_bytes: f64,
    paid: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Bucket {
        Bucket {
            owed_bytes: 0.0,
            paid: now,
        }
    }

    fn spend(&mut self, bytes: u64) {
        self.owed_bytes += bytes as f64;
    }

    /// How long to wait until all is paid for at `rate` bytes a second.
    fn wait(&mut self, rate: u64, now: Instant) -> Duration {
        let rate = rate.max(1) as f64;
        let passed = now.saturating_duration_since(self.paid).as_secs_f64();
        self.paid = now;
        let made_up_for = MADE_UP_FOR.as_secs_f64() * rate;
        self.owed_bytes = (self.owed_bytes - passed * rate).max(-made_up_for);
        if self.owed_bytes <= 0.0 {
            return Duration::ZERO;
        }
        // Rounded up: else it would be asked again for nothing. A rate that is next to none waits a day.
        let seconds = (self.owed_bytes / rate).min(86_400.0);
        Duration::from_secs_f64(seconds) + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests;
