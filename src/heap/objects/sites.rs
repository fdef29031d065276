//! Where objects are allocated: a sample always, every one on demand.
//!
//! Sampling: allocations are hit at random, on average one per so many bytes,
//! independently of each other. An object of `b` bytes is hit with the
//! probability `1 - exp(-b / rate)`, so each hit stands for that many times
//! more, and sums over sites are right on average. The countdown to the next
//! hit is the same that the collector's moments hang on: an allocation that is
//! not hit pays nothing for it.
//!
//! A site is a place in the source and the logical frames it was reached under:
//! names of the work going on, such as a job and its stage, said by
//! [`Heap::frame`](super::Heap::frame).
//!
//! The rule that must hold: **what a site is credited for an object, it is
//! debited when the object is freed**, so that live numbers come back to zero.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::Location;
use std::rc::Rc;

use super::core::Object;
use super::layout::flag;

/// Marks a site in the side tables whose object was noted because all were.
const EXACT: u32 = 1 << 31;
const CACHED: usize = 64;

/// One place that allocates, and what it has allocated.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) location: &'static Location<'static>,
    /// Id of the innermost frame; 0 for none.
    pub(super) frame: u32,
    /// Estimated from samples: objects and bytes that are there, and bytes in all.
    pub(super) sampled: Tally,
    /// While all were traced.
    pub(super) exact: Tally,
}

/// What a site has allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) total_bytes: u64,
}

struct Frame {
    parent: u32,
    name: Rc<str>,
    depth: u32,
}

/// The allocation sites of a heap.
pub(super) struct Sites {
    rate: Cell<u64>,
    next: Cell<i64>,
    random: Cell<u64>,
    all: Cell<bool>,
    /// Most frames noted while all are traced.
    most_frames: Cell<u32>,
    cache: [Cell<(*const (), u32, u32)>; CACHED],
    by_place: RefCell<HashMap<(Location<'static>, u32), u32>>,
    table: RefCell<Vec<Site>>,
    frames: RefCell<Vec<Frame>>,
    by_name: RefCell<HashMap<(u32, Rc<str>), u32>>,
    /// The innermost frame, and the one that is noted with sites.
    current: Cell<u32>,
}

impl Sites {
    pub(super) fn new(rate: u64) -> Self {
        let sites = Self {
            rate: Cell::new(rate),
            next: Cell::new(i64::MAX),
            random: Cell::new(RandomState::new().build_hasher().finish() | 1),
            all: Cell::new(false),
            most_frames: Cell::new(1),
            cache: [const { Cell::new((std::ptr::null(), 0, 0)) }; CACHED],
            by_place: RefCell::default(),
            table: RefCell::default(),
            frames: RefCell::default(),
            by_name: RefCell::default(),
            current: Cell::new(0),
        };
        sites.draw();
        sites
    }

    /// Whether every allocation is noted.
    pub(super) fn all(&self) -> bool {
        self.all.get()
    }

    pub(super) fn set_all(&self, all: bool, frames: u32) {
        self.all.set(all);
        self.most_frames.set(frames);
        // What the cache says of places is for another number of frames.
        for entry in &self.cache {
            entry.set((std::ptr::null(), 0, 0));
        }
    }

    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.set(rate);
        self.draw();
    }

    /// Bytes until the next sample.
    pub(super) fn until_sample(&self) -> i64 {
        self.next.get()
    }

    /// Takes allocated bytes into account.
    pub(super) fn pass(&self, bytes: u64) {
        if !self.all.get() {
            self.next.set(self.next.get() - bytes as i64);
        }
    }

    /// Whether the allocation at hand is to be noted.
    pub(super) fn hits(&self) -> bool {
        if self.all.get() {
            return true;
        }
        // The countdown runs out with the allocation that goes below zero.
        let hit = self.next.get() < 0;
        if hit {
            self.draw();
        }
        hit
    }

    /// Draws the distance to the next sample: exponential, so that samples are independent.
    fn draw(&self) {
        if self.rate.get() == 0 {
            self.next.set(i64::MAX);
            return;
        }
        // xorshift64*: Marsaglia, "Xorshift RNGs", 2003.
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        let bits = x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let uniform = (bits as f64 + 1.0) / (1_u64 << 53) as f64;
        let distance = -uniform.ln() * self.rate.get() as f64;
        self.next.set(distance as i64);
    }

    /// What one sampled object of `bytes` stands for: objects and bytes.
    fn weight(&self, bytes: u64) -> (u64, u64) {
        let hit = -(-(bytes as f64) / self.rate.get().max(1) as f64).exp_m1();
        (
            (1.0 / hit).round() as u64,
            (bytes as f64 / hit).round() as u64,
        )
    }

    /// Notes where an object was allocated.
    pub(super) fn note(&self, object: Object, at: &'static Location<'static>, bytes: u64) {
        let site = self.site(at);
        let exact = self.all.get();
        let (objects, weight) = if exact {
            (1, bytes)
        } else {
            self.weight(bytes)
        };
        let mut table = self.table.borrow_mut();
        let of = &mut table[site as usize];
        let tally = if exact {
            &mut of.exact
        } else {
            &mut of.sampled
        };
        tally.objects += objects;
        tally.bytes += weight;
        tally.total_bytes += weight;
        let slab = object.slab();
        let slot = slab.slot_of(object.address());
        slab.set_site(slot, (site + 1) | if exact { EXACT } else { 0 });
        object.set(flag::SITED);
    }

    /// The object is freed.
    pub(super) fn forget(&self, object: Object) {
        let slab = object.slab();
        let slot = slab.slot_of(object.address());
        let noted = slab.site(slot);
        slab.set_site(slot, 0);
        object.clear(flag::SITED);
        let mut table = self.table.borrow_mut();
        let Some(of) = (noted & !EXACT)
            .checked_sub(1)
            .and_then(|site| table.get_mut(site as usize))
        else {
            return;
        };
        let bytes = u64::from(slab.slot_bytes());
        let (tally, (objects, weight)) = if noted & EXACT != 0 {
            (&mut of.exact, (1, bytes))
        } else {
            (&mut of.sampled, self.weight(bytes))
        };
        // The rate may have been changed since: then it is an estimate of an estimate.
        tally.objects = tally.objects.saturating_sub(objects);
        tally.bytes = tally.bytes.saturating_sub(weight);
    }

    /// The site that an object was allocated at, if that was noted.
    pub(super) fn of(&self, object: Object) -> Option<Site> {
        if !object.has(flag::SITED) {
            return None;
        }
        let slab = object.slab();
        let noted = slab.site(slab.slot_of(object.address())) & !EXACT;
        let table = self.table.borrow();
        table.get(noted.checked_sub(1)? as usize).cloned()
    }

    fn site(&self, at: &'static Location<'static>) -> u32 {
        let key = std::ptr::from_ref(at).cast::<()>();
        let frame = self.current.get();
        let entry = &self.cache[((key.addr() / 8) ^ frame as usize) % CACHED];
        let (place, of, site) = entry.get();
        if place == key && of == frame {
            return site;
        }
        let noted = self.cut(frame);
        let mut by_place = self.by_place.borrow_mut();
        let site = *by_place.entry((*at, noted)).or_insert_with(|| {
            let mut table = self.table.borrow_mut();
            table.push(Site {
                location: at,
                frame: noted,
                sampled: Tally::default(),
                exact: Tally::default(),
            });
            table.len() as u32 - 1
        });
        entry.set((key, frame, site));
        site
    }

    /// The frame without what lies further out than is noted.
    fn cut(&self, frame: u32) -> u32 {
        if !self.all.get() {
            return frame;
        }
        let names = self.names(frame);
        let keep = names.len().min(self.most_frames.get() as usize);
        let mut cut = 0;
        for name in &names[names.len() - keep..] {
            cut = self.intern(cut, name);
        }
        cut
    }

    /// Enters a frame; gives the one to return to.
    pub(super) fn enter(&self, name: &str) -> u32 {
        let outer = self.current.get();
        self.current.set(self.intern(outer, name));
        outer
    }

    pub(super) fn leave_to(&self, frame: u32) {
        self.current.set(frame);
    }

    fn intern(&self, parent: u32, name: &str) -> u32 {
        let key = (parent, Rc::from(name));
        if let Some(&frame) = self.by_name.borrow().get(&key) {
            return frame;
        }
        let mut frames = self.frames.borrow_mut();
        let depth = match (parent as usize).checked_sub(1) {
            Some(parent) => frames[parent].depth + 1,
            None => 1,
        };
        frames.push(Frame {
            parent,
            name: Rc::clone(&key.1),
            depth,
        });
        let frame = frames.len() as u32;
        self.by_name.borrow_mut().insert(key, frame);
        frame
    }

    /// Names of a frame and those around it, outermost first.
    pub(super) fn names(&self, frame: u32) -> Vec<Rc<str>> {
        let frames = self.frames.borrow();
        let mut names = Vec::new();
        let mut at = frame;
        while let Some(frame) = (at as usize).checked_sub(1).and_then(|at| frames.get(at)) {
            names.push(Rc::clone(&frame.name));
            at = frame.parent;
        }
        names.reverse();
        names
    }

    /// All sites.
    pub(super) fn table(&self) -> Vec<Site> {
        self.table.borrow().clone()
    }
}
