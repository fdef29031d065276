//! The collection of the oldest generation: trial deletion of everything, in
//! slices between which the program runs.
//!
//! ```text
//! Enroll   all candidates become members
//! Scan     all they reach become members too; the handles that members hold
//!          to each other are counted
//! Compare  a member with more handles than that is alive: black
//! Black    what black members hold is black           -- no member is added to
//! Release  black members leave; the others are garbage   the black after this
//! Dispose  the garbage is taken apart
//! ```
//!
//! Why it is sound although the program runs between: a member is found white
//! only if all its handles are in members, as the scan saw them. So the program
//! has none of its own, and can get one only in one of these ways, each of which
//! turns it black:
//! * it takes the handle out of a cell of a member: the cell tells when it is
//!   opened for change the first time after the scan saw it, and a `Link` each time;
//! * it clones the handle and keeps the clone: then the count is above what was
//!   seen when it is compared; or, later than that, the member it was cloned from
//!   is itself alive and still holds it, and turns it black at the latest in
//!   phase Black;
//! * it upgrades a weak reference, or drops a handle it had: both tell.
//!
//! Every member is scanned before the first is compared: a handle moved from a
//! member not yet scanned to one already scanned is not counted, so its object
//! has more handles than were seen.
//!
//! The rules that must hold: **no white object is touched once phase Black is
//! over**; **a member that lost a handle meanwhile is a candidate again
//! afterwards**, whatever was found; so is every candidate while objects are
//! frozen, since frozen garbage may hold it.
//!
//! The bound: garbage made since the start of an epoch is not looked for in it.
//! So with `b` bytes as the bound an epoch starts when `b / 2` were allocated
//! since the last one, and its slices are spaced so that it ends before another
//! `b / 2`; when it is late, every KiB allocated pays for a slice.

use std::cell::Cell;
use std::time::Duration;

use super::core::{Core, Known, Object};
use super::dispose::{Disposal, Disposed};
use super::layout::flag;
use super::options::OldestRule;
use super::roll::Roll;
use super::stats::{Cause, CollectionEvent, Generation, Pause, Slice};
use super::trace::Tracer;

/// Fewest bytes allocated between two slices.
const CLOSEST: i64 = 1 << 10;
/// Most bytes allocated between two slices.
const WIDEST: i64 = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Idle,
    Enroll,
    Scan,
    Compare,
    Black,
    Release,
    Dispose,
}

/// State of the collection of the oldest generation.
pub(super) struct Epoch {
    phase: Cell<Phase>,
    cause: Cell<Cause>,
    members: Roll<Option<Object>>,
    /// Places of members that are black and not followed yet.
    stack: Roll<u32>,
    disposal: Disposal,
    cursor: Cell<u32>,
    candidates: Cell<u32>,
    uncollectable: Cell<u64>,
    spent: Cell<Duration>,
    /// Bytes allocated since the last epoch started.
    owed: Cell<u64>,
    /// Of those, bytes allocated before the epoch under way started.
    owed_at_start: Cell<u64>,
    /// Members of the last epoch.
    last_members: Cell<u32>,
    /// Units of work in the last slice.
    last_units: Cell<u32>,
    /// Bytes to be allocated until the next slice.
    pub(super) pace: Cell<i64>,
    /// Finalizers ran: another epoch has to follow at once.
    again: Cell<bool>,
    /// Objects were frozen meanwhile. What only frozen garbage holds was found alive, so candidates
    /// stay candidates.
    pub(super) beside_frozen: Cell<bool>,
}

impl Epoch {
    pub(super) const fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Idle),
            cause: Cell::new(Cause::Automatic),
            members: Roll::new(),
            stack: Roll::new(),
            disposal: Disposal::new(),
            cursor: Cell::new(0),
            candidates: Cell::new(0),
            uncollectable: Cell::new(0),
            spent: Cell::new(Duration::ZERO),
            owed: Cell::new(0),
            owed_at_start: Cell::new(0),
            last_members: Cell::new(0),
            last_units: Cell::new(0),
            pace: Cell::new(WIDEST),
            again: Cell::new(false),
            beside_frozen: Cell::new(false),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.phase.get() != Phase::Idle
    }

    pub(super) fn owe(&self, bytes: u64) {
        self.owed.set(self.owed.get() + bytes);
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.members.held_bytes() + self.stack.held_bytes() + self.disposal.held_bytes()
    }

    /// Whether members have been looked at. Before, what happens to one is seen when it is.
    #[inline]
    fn has_looked(&self) -> bool {
        self.phase.get() > Phase::Enroll
    }

    /// Takes a member to be alive, if that is not decided yet.
    #[inline]
    pub(super) fn blacken(&self, object: Object) {
        if !object.has(flag::BLACK) && self.has_looked() && self.phase.get() <= Phase::Black {
            object.set(flag::BLACK);
            self.stack.push(object.links().index.get());
        }
    }

    /// A handle to a member was dropped: takes it to be alive, and for a candidate afterwards.
    pub(super) fn touch(&self, object: Object) {
        if self.has_looked() {
            object.set(flag::TOUCHED | flag::QUIET);
            self.blacken(object);
        }
    }

    /// A weak reference to a member is upgraded: takes it to be alive, or says that it is garbage.
    pub(super) fn admit(&self, object: Object) -> bool {
        self.blacken(object);
        object.has(flag::BLACK) || !self.has_looked()
    }

    /// A member waits to be freed. What it holds was counted as held by a member, so it stays one
    /// that is alive until it is freed: its finalizer may still use what it holds.
    pub(super) fn keep_queued(&self, object: Object) {
        if self.has_looked() {
            self.blacken(object);
            object.clear(flag::TOUCHED);
        } else {
            self.forget(object);
        }
    }

    /// A member is freed.
    pub(super) fn forget(&self, object: Object) {
        self.members.set(object.links().index.get(), None);
        object.clear(flag::MEMBER | flag::BLACK | flag::TOUCHED | flag::QUIET);
    }

    fn go_to(&self, phase: Phase) {
        self.phase.set(phase);
        self.cursor.set(0);
    }

    fn next(&self) -> Option<Option<Object>> {
        let cursor = self.cursor.get();
        if cursor == self.members.len() {
            return None;
        }
        self.cursor.set(cursor + 1);
        Some(self.members.get(cursor))
    }

    pub(super) fn shrink(&self) {
        self.members.shrink();
        self.stack.shrink();
        self.disposal.shrink();
    }
}

impl Core {
    /// Most garbage in cycles that may be outstanding, in bytes, while collection is automatic.
    pub(super) fn garbage_bound(&self) -> u64 {
        let options = self.options.get();
        let share = self.held_bytes() as f64 * options.garbage_share;
        (share as u64).max(options.garbage_floor_bytes)
    }

    /// Does a slice of the epoch, or starts one if it is time.
    pub(super) fn step(&self) {
        if !self.epoch.is_active() {
            if !self.epoch_is_due() || !self.needs_epoch() {
                self.epoch.pace.set(WIDEST);
                return;
            }
            self.begin_epoch(Cause::Automatic);
        }
        self.slice_of_epoch();
        self.pace_epoch();
    }

    /// Does a slice of an epoch that is under way; whether one is afterwards.
    pub(super) fn slice_of_epoch(&self) -> bool {
        self.do_slice(&Slice::start(self.options.get().slice))
    }

    pub(super) fn do_slice(&self, slice: &Slice) -> bool {
        if self.epoch.is_active() && self.is_idle() {
            self.advance(slice);
            self.epoch.last_units.set(slice.units());
            self.note_pause(Pause::Generation(Generation::Old), slice.elapsed());
        }
        self.epoch.is_active()
    }

    fn epoch_is_due(&self) -> bool {
        let thresholds = self.statistics.thresholds.get();
        let enabled = self.statistics.enabled.get();
        let off = !enabled && !self.statistics.bounded.get();
        if off || thresholds.0 == 0 || thresholds.2 == 0 {
            return false;
        }
        if self.epoch.again.get() {
            return true;
        }
        match self.options.get().oldest_rule {
            OldestRule::Debt => self.epoch.owed.get() >= self.garbage_bound() / 2,
            OldestRule::Quarter => {
                !self.rolls[2].is_empty()
                    && self.statistics.passes.get().1 > thresholds.2
                    && self.young.promoted.get() * 4 > self.kinds.live_cyclic()
            }
        }
    }

    /// Whether there is anything for an epoch that is due. Younger candidates get a pass of their own
    /// first: they may be few and large, and so be due by their bytes long before their number.
    fn needs_epoch(&self) -> bool {
        let longest = self.options.get().longest_young;
        if !self.epoch.again.get()
            && self.rolls[2].is_empty()
            && !(self.rolls[0].is_empty() && self.rolls[1].is_empty())
        {
            self.pass(Generation::Middle, Cause::Automatic, longest);
        }
        // What a pass has no time for, or found alive, is for the epoch.
        if self.epoch.again.get() || self.rolls[..3].iter().any(|roll| !roll.is_empty()) {
            return true;
        }
        // No candidate is left, so there is no garbage.
        self.epoch.owed.set(0);
        false
    }

    /// Starts an epoch.
    pub(super) fn begin_epoch(&self, cause: Cause) {
        let epoch = &self.epoch;
        debug_assert!(!epoch.is_active());
        epoch.again.set(false);
        epoch.beside_frozen.set(self.frozen_slabs.get() > 0);
        epoch.cause.set(cause);
        epoch.spent.set(Duration::ZERO);
        epoch.uncollectable.set(0);
        epoch.owed_at_start.set(epoch.owed.get());
        self.statistics
            .passes
            .set((self.statistics.passes.get().0, 0));
        self.young.promoted.set(0);
        self.tell_callbacks(Generation::Old, cause);
        epoch.go_to(Phase::Enroll);
    }

    fn enroll(&self, slice: &Slice) -> bool {
        let epoch = &self.epoch;
        for roll in &self.rolls[..3] {
            while let Some(object) = roll.pop().flatten() {
                let at = epoch.members.push(Some(object));
                self.make_member(object, at);
                if slice.is_over() {
                    return false;
                }
            }
        }
        epoch.candidates.set(epoch.members.len());
        epoch.go_to(Phase::Scan);
        true
    }

    fn make_member(&self, object: Object, at: u32) {
        object.clear(flag::BUFFERED | flag::QUIET | flag::GENERATION);
        object.set(flag::MEMBER | 2);
        object.links().index.set(at);
        object.links().trial.set(0);
    }

    /// Advances the epoch until the slice or the epoch is over.
    fn advance(&self, slice: &Slice) {
        self.busy.set(self.busy.get() + 1);
        let mut tracer = self.tracer.replace(Tracer::new());
        tracer.hear_only_of(self);
        loop {
            let done = match self.epoch.phase.get() {
                Phase::Idle => break,
                Phase::Enroll => self.enroll(slice),
                Phase::Scan => self.scan(&mut tracer, slice),
                Phase::Compare => self.compare(slice),
                Phase::Black => self.follow(&mut tracer, slice),
                Phase::Release => self.release_members(slice),
                Phase::Dispose => self.dispose_members(slice),
            };
            if !done {
                break;
            }
        }
        tracer.clear();
        self.tracer.replace(tracer);
        self.busy.set(self.busy.get() - 1);
        let epoch = &self.epoch;
        epoch.spent.set(epoch.spent.get() + slice.elapsed());
        if epoch.phase.get() == Phase::Idle {
            self.end_epoch();
        }
    }

    fn scan(&self, tracer: &mut Tracer, slice: &Slice) -> bool {
        let epoch = &self.epoch;
        let known = Known::new(self);
        tracer.mark_cells(true);
        while let Some(object) = epoch.next() {
            if let Some(object) = object {
                (known.info(object).trace)(object, tracer);
                while let Some(held) = tracer.pop() {
                    let flags = held.flags();
                    if flags & flag::MEMBER == 0 {
                        if flags & flag::DOOMED != 0 || self.is_frozen(held) {
                            continue;
                        }
                        let lost_a_handle = flags & flag::BUFFERED != 0;
                        if lost_a_handle {
                            self.unbuffer(held);
                        }
                        let at = epoch.members.push(Some(held));
                        self.make_member(held, at);
                        if lost_a_handle {
                            // After the start: what was seen of its garbage may be of before.
                            held.set(flag::TOUCHED);
                        }
                    }
                    let trial = &held.links().trial;
                    trial.set(trial.get() + 1);
                }
            }
            if slice.is_over() {
                tracer.mark_cells(false);
                return false;
            }
        }
        tracer.mark_cells(false);
        epoch.last_members.set(epoch.members.len());
        epoch.go_to(Phase::Compare);
        true
    }

    fn compare(&self, slice: &Slice) -> bool {
        let epoch = &self.epoch;
        while let Some(object) = epoch.next() {
            if let Some(object) = object
                && object.count() != object.links().trial.get()
                && !object.has(flag::BLACK)
            {
                if object.links().trial.get() > object.count() {
                    self.accuse(object);
                    epoch.uncollectable.set(epoch.uncollectable.get() + 1);
                }
                epoch.blacken(object);
            }
            if slice.is_over() {
                return false;
            }
        }
        epoch.go_to(Phase::Black);
        true
    }

    fn follow(&self, tracer: &mut Tracer, slice: &Slice) -> bool {
        let (epoch, known) = (&self.epoch, Known::new(self));
        while let Some(at) = epoch.stack.pop() {
            if let Some(object) = epoch.members.get(at) {
                (known.info(object).trace)(object, tracer);
                while let Some(held) = tracer.pop() {
                    if held.flags() & (flag::MEMBER | flag::BLACK) == flag::MEMBER {
                        epoch.blacken(held);
                    }
                }
            }
            if slice.is_over() {
                return false;
            }
        }
        epoch.go_to(Phase::Release);
        true
    }

    fn release_members(&self, slice: &Slice) -> bool {
        let epoch = &self.epoch;
        while let Some(object) = epoch.members.pop() {
            if let Some(object) = object {
                let was_candidate = epoch.members.len() < epoch.candidates.get();
                let touched = object.has(flag::TOUCHED)
                    || was_candidate && epoch.beside_frozen.get() && !object.has(flag::QUEUED);
                let alive = object.has(flag::BLACK);
                object.clear(flag::MEMBER | flag::BLACK | flag::TOUCHED | flag::QUIET);
                if !alive {
                    epoch.disposal.add(object);
                } else {
                    self.note_alive(object);
                    if touched {
                        self.note_drop(object);
                    }
                }
            }
            if slice.is_over() {
                return false;
            }
        }
        epoch.go_to(Phase::Dispose);
        true
    }

    fn dispose_members(&self, slice: &Slice) -> bool {
        match self.dispose(&self.epoch.disposal, 2, slice) {
            Disposed::Partly => return false,
            Disposed::Gone => {}
            Disposed::LookAgain => self.epoch.again.set(true),
        }
        self.epoch.go_to(Phase::Idle);
        true
    }

    fn end_epoch(&self) {
        let epoch = &self.epoch;
        epoch.members.shrink();
        epoch.stack.shrink();
        epoch.owed.set(epoch.owed.get() - epoch.owed_at_start.get());
        let event = CollectionEvent {
            generation: Generation::Old,
            cause: epoch.cause.get(),
            ended: true,
            candidates: u64::from(epoch.candidates.get()),
            collected: epoch.disposal.take_gone(),
            uncollectable: epoch.uncollectable.get(),
            duration: epoch.spent.get(),
        };
        self.end_collection(&event, Pause::Generation(Generation::Old));
    }

    /// Spaces the slices so that the epoch ends before the bound is reached.
    pub(super) fn pace_epoch(&self) {
        let epoch = &self.epoch;
        if !epoch.is_active() {
            epoch.pace.set(WIDEST);
            return;
        }
        let members = u64::from(epoch.members.len());
        let done = u64::from(epoch.cursor.get());
        let waiting: u64 = self.rolls[..3]
            .iter()
            .map(|roll| u64::from(roll.len()))
            .sum();
        // While the scan goes on nobody knows how many members there will be.
        let guess = u64::from(epoch.last_members.get()).max(2 * (members + waiting));
        let expected = guess.min(self.kinds.live_cyclic()).max(members);
        // A member that is garbage is looked at five times, one that is not four times.
        let left = match epoch.phase.get() {
            Phase::Idle => 0,
            Phase::Enroll => 5 * expected + waiting,
            Phase::Scan => 5 * expected - done.min(expected),
            Phase::Compare => 4 * expected - done.min(expected),
            Phase::Black => 3 * expected,
            Phase::Release => 3 * members,
            Phase::Dispose => 2 * u64::from(epoch.disposal.len()),
        };
        // All that was allocated since the last epoch started may have become garbage. A little is
        // kept for what the last slices are late, as they come between two objects only.
        let bound = self.garbage_bound();
        let allowed = (bound - bound / 16).saturating_sub(epoch.owed.get());
        let units = u64::from(epoch.last_units.get().max(16));
        let bytes = allowed.saturating_mul(units) / left.max(1);
        let bytes = i64::try_from(bytes).unwrap_or(WIDEST);
        epoch.pace.set(bytes.clamp(CLOSEST, WIDEST));
    }

    /// Does all that is left of an epoch under way.
    pub(super) fn finish_epoch(&self) {
        if self.is_idle() {
            self.advance(&Slice::endless());
        }
    }

    /// Collects everything at once; how many objects were freed.
    ///
    /// An epoch under way is finished first, since it does not look for garbage made after its
    /// start.
    pub(super) fn collect_all(&self, cause: Cause) -> u64 {
        if !self.is_idle() {
            return 0;
        }
        let endless = Slice::endless();
        let before = self.collected_old();
        if self.epoch.is_active() {
            self.advance(&endless);
        }
        self.fresh.set(0);
        self.statistics.passes.set((0, 0));
        self.begin_epoch(cause);
        self.advance(&endless);
        // What finalizers left; a finalizer that makes new garbage with a finalizer is not followed.
        if self.epoch.again.get() {
            self.begin_epoch(cause);
            self.advance(&endless);
        }
        if cause == Cause::Close {
            // Nobody waits for a heap that is given up, so it is counted and not told.
            self.statistics.note_pause(Pause::Whole, endless.elapsed());
        } else {
            self.note_pause(Pause::Whole, endless.elapsed());
        }
        self.collected_old() - before
    }

    fn collected_old(&self) -> u64 {
        self.statistics.collected(Generation::Old)
    }
}
