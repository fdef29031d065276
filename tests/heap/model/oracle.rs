//! What a heap should be: a graph of numbered objects, and exact reachability.
//!
//! The rule that must hold: **the oracle is told of a change before the heap
//! can run anybody's code because of it**, so that in every finalizer, callback
//! and drop it knows what may be dying.

use super::op::Kind;

pub(super) type Id = u32;

/// What is known of one object.
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) fixed: Option<Id>,
    pub(super) plain: Option<Id>,
    pub(super) last: Option<Id>,
    pub(super) many: Vec<Id>,
    /// Its allocation went well.
    pub(super) born: bool,
    /// Its value was dropped.
    pub(super) dropped: bool,
    pub(super) finalized: u32,
    /// When a finalizer, a callback or a drop made it reachable again, if one did.
    pub(super) saved_at: Option<u64>,
}

impl Entry {
    fn edges(&self) -> impl Iterator<Item = Id> {
        let single = [self.fixed, self.plain, self.last];
        single
            .into_iter()
            .flatten()
            .chain(self.many.iter().copied())
    }
}

#[derive(Default)]
pub(super) struct Oracle {
    entries: Vec<Entry>,
    /// Handles in the hands of the program: roots, and those of calls under way.
    pub(super) roots: Vec<Id>,
    pub(super) locals: Vec<Id>,
    /// Objects whose allocation is under way: their values hold what they hold.
    pub(super) pending: Vec<Id>,
    reached: Option<Vec<bool>>,
    ticks: u64,
}

impl Oracle {
    pub(super) fn add(&mut self, kind: Kind, fixed: Option<Id>) -> Id {
        let id = self.entries.len() as Id;
        self.entries.push(Entry {
            kind,
            fixed,
            plain: None,
            last: None,
            many: Vec::new(),
            born: false,
            dropped: false,
            finalized: 0,
            saved_at: None,
        });
        self.changed().pending.push(id);
        id
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn of(&self, id: Id) -> &Entry {
        &self.entries[id as usize]
    }

    /// An entry, to change what decides on reachability.
    pub(super) fn change(&mut self, id: Id) -> &mut Entry {
        &mut self.changed().entries[id as usize]
    }

    /// An entry, to change what does not.
    pub(super) fn note(&mut self, id: Id) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    /// Roots or edges are about to change.
    pub(super) fn changed(&mut self) -> &mut Self {
        self.reached = None;
        self
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// By id: whether the object is reachable.
    pub(super) fn reached(&mut self) -> &[bool] {
        if self.reached.is_none() {
            let mut reached = vec![false; self.entries.len()];
            let mut stack: Vec<Id> = Vec::new();
            for roots in [&self.roots, &self.locals, &self.pending] {
                stack.extend(roots);
            }
            while let Some(id) = stack.pop() {
                if !std::mem::replace(&mut reached[id as usize], true) {
                    stack.extend(self.entries[id as usize].edges());
                }
            }
            self.reached = Some(reached);
        }
        self.reached.as_deref().unwrap_or_default()
    }

    pub(super) fn is_reached(&mut self, id: Id) -> bool {
        self.reached()[id as usize]
    }

    /// How many handles there are to each object.
    pub(super) fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.entries.len()];
        for &id in self.roots.iter().chain(&self.locals) {
            counts[id as usize] += 1;
        }
        for entry in self.entries.iter().filter(|entry| !entry.dropped) {
            for id in entry.edges() {
                counts[id as usize] += 1;
            }
        }
        counts
    }

    /// Objects of a kind: those reachable, and those not dropped.
    pub(super) fn census(&mut self, kind: Kind) -> (u64, u64) {
        let reached = self.reached().to_vec();
        let of_kind = |entry: &Entry| entry.kind == kind && entry.born && !entry.dropped;
        let there = self.entries.iter().filter(|entry| of_kind(entry)).count();
        let reachable = self.entries.iter().zip(&reached);
        let reachable = reachable.filter(|(entry, reached)| of_kind(entry) && **reached);
        (reachable.count() as u64, there as u64)
    }

    /// Objects that should not be there any more.
    pub(super) fn left(&mut self) -> Vec<Id> {
        let reached = self.reached().to_vec();
        let entries = (0..).zip(&self.entries).zip(&reached);
        entries
            .filter(|((_, entry), reached)| entry.born && !entry.dropped && !**reached)
            .map(|((id, _), _)| id)
            .collect()
    }
}
