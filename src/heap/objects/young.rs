//! Collections of the younger generations: trial deletion, at once.
//!
//! Only candidates are starting points: objects that lost a handle and have
//! others left. A cycle of garbage always has one, since losing a handle is how
//! it became garbage. From them everything of the same generations or younger
//! that they reach is a member of the pass; everything older counts as
//! outside. Members with more handles than other members hold are alive, and so
//! is what they reach; the rest is garbage. So a pass costs what the candidates
//! reach among the young, and nothing of the rest of the heap.
//!
//! The algorithm: D. F. Bacon, V. T. Rajan, "Concurrent Cycle Collection in
//! Reference Counted Systems", ECOOP 2001; counting into side fields instead of
//! the counts themselves as in CPython.
//!
//! The rules that must hold: **nobody but the pass runs until it knows what is
//! garbage**; **a candidate that is found alive stays one, a generation older**:
//! it may be held by garbage that is older than the pass looks; **a candidate
//! that a pass did not take counts as outside**, though it looks like a member:
//! an automatic pass takes a bounded number.

use std::cell::Cell;
use std::time::Duration;

use super::core::{Core, Known, Object};
use super::dispose::{Disposal, Disposed};
use super::layout::flag;
use super::roll::Roll;
use super::stats::{Cause, CollectionEvent, Generation, Pause, Slice};
use super::trace::Tracer;

/// Doublings of the threshold after passes that found nothing, at most.
const MOST_BACKOFF: u32 = 6;

/// State of the collections of the younger generations.
pub(super) struct Young {
    members: Roll<Option<Object>>,
    stack: Roll<Option<Object>>,
    disposal: Disposal,
    /// The threshold is doubled so many times.
    pub(super) backoff: Cell<u32>,
    pub(super) promoted: Cell<u64>,
}

/// What a pass found.
#[derive(Default)]
struct Found {
    candidates: u64,
    uncollectable: u64,
}

impl Young {
    pub(super) const fn new() -> Self {
        Self {
            members: Roll::new(),
            stack: Roll::new(),
            disposal: Disposal::new(),
            backoff: Cell::new(0),
            promoted: Cell::new(0),
        }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.members.held_bytes() + self.stack.held_bytes() + self.disposal.held_bytes()
    }

    pub(super) fn shrink(&self) {
        self.members.shrink();
        self.stack.shrink();
        self.disposal.shrink();
    }
}

impl Core {
    /// The automatic collection of a younger generation.
    #[cold]
    #[inline(never)]
    pub(super) fn collect_young(&self) {
        if !self.is_idle() || !self.statistics.enabled.get() {
            self.fresh.set(0);
            return;
        }
        let (_, threshold, _) = self.statistics.thresholds.get();
        let generation = if threshold > 0 && self.statistics.passes.get().0 > threshold {
            Generation::Middle
        } else {
            Generation::Young
        };
        // What is counted here is only the way there; comparing and freeing take as long again.
        let longest = self.options.get().longest_young / 2;
        let candidates = self.rolls[0].len().min(self.options.get().most_candidates);
        let collected = self.pass(generation, Cause::Automatic, longest);
        // As PHP does: a pass that found nearly nothing was not worth it.
        let backoff = &self.young.backoff;
        if candidates > 0 && collected < u64::from(candidates) / 100 {
            backoff.set((backoff.get() + 1).min(MOST_BACKOFF));
            self.set_fresh_limit();
        } else if collected > 0 && backoff.get() > 0 {
            backoff.set(0);
            self.set_fresh_limit();
        }
    }

    /// A pass over a younger generation; how many objects it freed.
    pub(super) fn pass(&self, generation: Generation, cause: Cause, longest: Duration) -> u64 {
        debug_assert!(generation != Generation::Old);
        self.busy.set(self.busy.get() + 1);
        let slice = Slice::start(longest);
        self.fresh.set(0);
        let passes = self.statistics.passes.get();
        self.statistics.passes.set(match generation {
            Generation::Young => (passes.0.saturating_add(1), passes.1),
            _ => (0, passes.1.saturating_add(1)),
        });
        self.tell_callbacks(generation, cause);
        let (candidates, uncollectable) = match self.find(generation, &slice) {
            Some(found) => {
                let endless = Slice::endless();
                let mut again = 1;
                while self.dispose(&self.young.disposal, generation.number() as u16, &endless)
                    == Disposed::LookAgain
                    && again > 0
                {
                    again -= 1;
                    self.find(generation, &endless);
                }
                (found.candidates, found.uncollectable)
            }
            None => {
                self.statistics.note_given_up(generation);
                (0, 0)
            }
        };
        let collected = self.young.disposal.take_gone();
        let event = CollectionEvent {
            generation,
            cause,
            ended: true,
            candidates,
            collected,
            uncollectable,
            duration: slice.elapsed(),
        };
        self.busy.set(self.busy.get() - 1);
        self.end_collection(&event, Pause::Generation(generation));
        collected
    }

    /// Finds the garbage of a generation and gives it to the disposal. None if the time was up.
    fn find(&self, generation: Generation, slice: &Slice) -> Option<Found> {
        let oldest = generation.number() as u16;
        let young = &self.young;
        // A program may drop a million handles between two moments. What the pass has no time for
        // stays a candidate, and the next moment goes on with it.
        let most = if slice.longest_is_set() {
            self.options.get().most_candidates
        } else {
            u32::MAX
        };
        debug_assert!(young.members.is_empty());
        if self.rolls[0].len() <= most {
            // They have the same places there.
            young.members.swap(&self.rolls[0]);
        }
        for roll in &self.rolls[..=usize::from(oldest)] {
            while young.members.len() < most
                && let Some(object) = roll.pop().flatten()
            {
                let index = young.members.push(Some(object));
                object.links().index.set(index);
            }
        }
        let left = self.rolls[..=usize::from(oldest)]
            .iter()
            .any(|roll| !roll.is_empty());
        // Those left look like members, except for their place: they count as outside.
        let is_left = |held: Object| {
            let at = held.links().index.get();
            left && (at >= young.members.len() || young.members.get(at) != Some(held))
        };
        let candidates = young.members.len();
        let mut found = Found {
            candidates: u64::from(candidates),
            uncollectable: 0,
        };
        if candidates == 0 {
            return Some(found);
        }
        let mut tracer = self.tracer.replace(Tracer::new());
        tracer.hear_only_of(self);
        let known = Known::new(self);

        // Counts the handles that members hold to each other.
        let mut at = 0;
        while at < young.members.len() {
            if let Some(object) = young.members.get(at) {
                (known.info(object).trace)(object, &mut tracer);
                while let Some(held) = tracer.pop() {
                    let flags = held.flags();
                    if flags & flag::BUFFERED == 0 {
                        if flags & flag::GENERATION > oldest
                            || flags & (flag::MEMBER | flag::DOOMED) != 0
                            || self.is_frozen(held)
                        {
                            continue;
                        }
                        held.links().trial.set(1);
                        held.links().index.set(young.members.push(Some(held)));
                        held.set(flag::BUFFERED);
                    } else if flags & flag::GENERATION <= oldest && !is_left(held) {
                        let trial = &held.links().trial;
                        trial.set(trial.get() + 1);
                    }
                }
            }
            at += 1;
            if slice.is_over() {
                tracer.clear();
                self.tracer.replace(tracer);
                self.give_up(candidates);
                return None;
            }
        }

        // What has other handles is alive, and what it reaches.
        for at in 0..young.members.len() {
            let Some(object) = young.members.get(at) else {
                continue;
            };
            let trial = object.links().trial.get();
            if trial == object.count() || object.has(flag::BLACK) {
                continue;
            }
            if trial > object.count() {
                self.accuse(object);
                found.uncollectable += 1;
            }
            object.set(flag::BLACK);
            young.stack.push(Some(object));
            while let Some(alive) = young.stack.pop().flatten() {
                (known.info(alive).trace)(alive, &mut tracer);
                while let Some(held) = tracer.pop() {
                    if held.flags() & (flag::BUFFERED | flag::BLACK) == flag::BUFFERED
                        && held.generation() <= oldest
                        && !is_left(held)
                    {
                        held.set(flag::BLACK);
                        young.stack.push(Some(held));
                    }
                }
            }
        }
        tracer.clear();
        self.tracer.replace(tracer);

        let older = (oldest + 1).min(2);
        while let Some(object) = young.members.pop() {
            let at = young.members.len();
            let Some(object) = object else {
                continue;
            };
            if object.has(flag::BLACK) {
                object.clear(flag::BLACK | flag::BUFFERED | flag::QUIET);
                object.set_generation(older);
                self.note_alive(object);
                if older == 2 {
                    young.promoted.set(young.promoted.get() + 1);
                }
                if at < candidates {
                    self.buffer(object);
                }
            } else {
                object.clear(flag::BUFFERED);
                young.disposal.add(object);
            }
        }
        Some(found)
    }

    /// Leaves the candidates of a pass to the oldest generation.
    fn give_up(&self, candidates: u32) {
        while let Some(object) = self.young.members.pop() {
            let at = self.young.members.len();
            let Some(object) = object else {
                continue;
            };
            object.clear(flag::BUFFERED | flag::QUIET);
            if at < candidates {
                object.set_generation(2);
                self.buffer(object);
            }
        }
    }

    /// A type reported more handles than there are.
    #[cold]
    pub(super) fn accuse(&self, object: Object) {
        debug_assert!(
            false,
            "{} is reported to be held more often than it is",
            object.row().name
        );
        tracing::error!(
            held = object.row().name,
            "an object is reported to be held more often than it is: a type that holds it reports \
             handles that it does not hold; the object is kept"
        );
    }

    /// Tells the callbacks that a collection starts.
    pub(super) fn tell_callbacks(&self, generation: Generation, cause: Cause) {
        if !self.statistics.has_callbacks() {
            return;
        }
        let event = CollectionEvent {
            generation,
            cause,
            ended: false,
            candidates: 0,
            collected: 0,
            uncollectable: 0,
            duration: Duration::ZERO,
        };
        self.call(&event);
    }

    /// Counts a collection that has ended, and tells the callbacks.
    pub(super) fn end_collection(&self, event: &CollectionEvent, pause: Pause) {
        self.statistics.note_collection(event);
        if let Pause::Generation(Generation::Young | Generation::Middle) = pause {
            self.note_pause(pause, event.duration);
        }
        if self.statistics.has_callbacks() {
            self.call(event);
        }
    }

    /// Counts a pause; a long one is told.
    pub(super) fn note_pause(&self, what: Pause, pause: Duration) {
        self.statistics.note_pause(what, pause);
        if pause > self.options.get().long_pause {
            tracing::warn!(
                micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
                "a long pause for a collection"
            );
        }
    }

    fn call(&self, event: &CollectionEvent) {
        self.busy.set(self.busy.get() + 1);
        for callback in self.statistics.callbacks() {
            self.guarded("a callback of a collection", || callback(event));
        }
        self.busy.set(self.busy.get() - 1);
    }
}
