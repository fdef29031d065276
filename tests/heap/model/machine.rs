//! Performs operations on a heap and tells the oracle of them, and compares.
//!
//! The rules that must hold: **no cell of the world is borrowed while the heap
//! may run finalizers, callbacks and drops**, since these use the world too;
//! **what they find wrong is noted and not panicked about**, since the heap
//! catches panics.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use filed::heap::{
    Batch, CallbackId, External, Gc, GcCell, Generation, Heap, Link, ObjectId, OldestRule, Options,
    Trim, Units, Watch,
};

use super::op::{At, Habit, Kind, Op};
use super::oracle::{Id, Oracle};
use super::things::{Any, AnyWeak, Body, Bulky, Flat, Last, Plain, Tomb};

/// Most objects of one program: beyond that allocations are left out.
const MOST_OBJECTS: usize = 12_000;
/// Rounds of collections after which nothing changes any more unless finalizers make work for ever.
const MOST_ROUNDS: usize = 24;

/// A panic that a habit asks for.
struct Asked;

struct WeakEntry {
    id: Id,
    made_at: u64,
    weak: AnyWeak,
}

struct WatchEntry {
    id: Id,
    fired: Rc<Cell<u32>>,
    watch: Watch,
}

/// A heap, what the program has of it, and the oracle.
pub(super) struct World {
    heap: RefCell<Option<Heap>>,
    oracle: RefCell<Oracle>,
    roots: RefCell<Vec<Any>>,
    weaks: RefCell<Vec<WeakEntry>>,
    watches: RefCell<Vec<WatchEntry>>,
    batches: RefCell<Vec<Batch>>,
    units: RefCell<Option<Units>>,
    callback: Cell<Option<CallbackId>>,
    /// Handles to all that can be reached, once the heap is closed: no collection will find cycles
    /// of it any more, so they have to be taken apart at the end.
    kept: RefCell<Vec<Any>>,
    failures: RefCell<Vec<String>>,
    limited: Cell<bool>,
    frozen: Cell<bool>,
    /// What code of others did: while that changes collections may find more.
    events: Cell<u64>,
    trace: bool,
}

/// A handle in a local variable, which the oracle knows of.
struct Held {
    world: Rc<World>,
    any: Any,
    id: Id,
}

impl Held {
    fn new(world: &Rc<World>, any: Any) -> Self {
        let id = any.id();
        world.oracle.borrow_mut().changed().locals.push(id);
        Self {
            world: Rc::clone(world),
            any,
            id,
        }
    }

    fn body(&self) -> Option<&Body> {
        self.any.body()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.world.is_closed() {
            self.world.keep(vec![self.any.clone()]);
        }
        let mut oracle = self.world.oracle.borrow_mut();
        let locals = &mut oracle.changed().locals;
        if let Some(at) = locals.iter().rposition(|&id| id == self.id) {
            locals.swap_remove(at);
        }
    }
}

/// Runs a program; says what was wrong.
pub(super) fn run(ops: &[Op], config: u8, trace: bool) -> Result<(), String> {
    let options = Options {
        limit_bytes: None,
        slice: [Duration::ZERO, Duration::MAX][usize::from(config & 1)],
        // An hour never ends here, but it is a limit: then the number of candidates is one too.
        longest_young: [Duration::ZERO, Duration::from_secs(3600)][usize::from(config >> 1 & 1)],
        most_candidates: [2048, 1, 3, 10][usize::from(config >> 6)],
        oldest_rule: [OldestRule::Debt, OldestRule::Quarter][usize::from(config >> 2 & 1)],
        garbage_share: 0.0,
        garbage_floor_bytes: 4096,
        sample_bytes: [0, 256][usize::from(config >> 3 & 1)],
        long_pause: Duration::MAX,
    };
    let heap = Heap::with(options);
    match config >> 4 & 3 {
        0 => heap.set_thresholds(0, 0, 0),
        1 => heap.set_thresholds(5, 2, 2),
        2 => heap.set_thresholds(40, 3, 2),
        _ => {}
    }
    let world = Rc::new(World {
        heap: RefCell::new(Some(heap)),
        oracle: RefCell::default(),
        roots: RefCell::default(),
        weaks: RefCell::default(),
        watches: RefCell::default(),
        batches: RefCell::default(),
        units: RefCell::default(),
        callback: Cell::new(None),
        kept: RefCell::default(),
        failures: RefCell::default(),
        limited: Cell::new(false),
        frozen: Cell::new(false),
        events: Cell::new(0),
        trace,
    });
    let mut ops = ops.iter();
    while let Some(&op) = ops.next() {
        world.step(op, &mut ops);
        if !world.failures.borrow().is_empty() {
            break;
        }
    }
    world.end();
    let failures = world.failures.take();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}

impl World {
    fn fail(&self, what: String) {
        if self.trace {
            eprintln!("FAILED: {what}");
        }
        self.failures.borrow_mut().push(what);
    }

    /// Runs what may panic because a habit asked for it.
    fn survive(&self, run: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(run))
            && !payload.is::<Asked>()
        {
            let what = payload.downcast_ref::<String>().cloned();
            let what =
                what.or_else(|| payload.downcast_ref().map(|what: &&str| (*what).to_owned()));
            self.fail(format!("a panic: {what:?}"));
        }
    }

    fn step(self: &Rc<Self>, op: Op, ops: &mut std::slice::Iter<'_, Op>) {
        if self.trace {
            eprintln!("    {op:?},");
        }
        self.survive(|| self.perform(op, ops));
        if self.is_closed() {
            self.keep_roots();
        }
    }

    fn with_heap<R>(&self, run: impl FnOnce(&Heap) -> R) -> Option<R> {
        let heap = self.heap.borrow();
        heap.as_ref().map(run)
    }

    fn is_closed(&self) -> bool {
        self.heap.try_borrow().is_ok_and(|heap| heap.is_none())
    }

    fn keep_roots(&self) {
        let roots = self.roots.borrow().clone();
        self.keep(roots);
    }

    /// Keeps these objects and what they hold.
    fn keep(&self, mut stack: Vec<Any>) {
        let kept = self.kept.borrow().iter().map(Any::id).collect::<Vec<Id>>();
        let mut is_kept = vec![false; self.oracle.borrow().len()];
        for id in kept {
            is_kept[id as usize] = true;
        }
        let mut seen = vec![false; is_kept.len()];
        while let Some(any) = stack.pop() {
            let id = any.id();
            if std::mem::replace(&mut seen[id as usize], true) {
                continue;
            }
            if let Any::Flat(flat) = &any {
                stack.extend(flat.next.clone().map(Any::Flat));
            }
            if let Some(body) = any.body() {
                stack.extend(body.fixed.clone());
                stack.extend(body.plain.get().map(Any::Plain));
                stack.extend(body.last.get().map(Any::Last));
                if let Some(many) = body.many.try_borrow() {
                    stack.extend(many.iter().cloned());
                }
            }
            if !is_kept[id as usize] {
                self.oracle.borrow_mut().changed().locals.push(id);
                self.kept.borrow_mut().push(any);
            }
        }
    }

    /// Takes apart what was kept.
    fn let_go_of_kept(self: &Rc<Self>) {
        let kept = self.kept.borrow().clone();
        for any in &kept {
            if let Some(body) = any.body() {
                self.survive(|| self.unlink(any.id(), body));
            }
        }
        drop(kept);
        while !self.kept.borrow().is_empty() {
            self.survive(|| {
                let any = self.kept.borrow_mut().pop();
                let id = any.as_ref().map(Any::id);
                let mut oracle = self.oracle.borrow_mut();
                let locals = &mut oracle.changed().locals;
                if let Some(at) = locals.iter().rposition(|&local| Some(local) == id) {
                    locals.swap_remove(at);
                }
                drop(oracle);
                drop(any);
            });
        }
    }

    // Roots.

    fn push_root(&self, any: Any) {
        let mut oracle = self.oracle.borrow_mut();
        oracle.changed().roots.push(any.id());
        self.roots.borrow_mut().push(any);
    }

    fn take_root(&self, at: u8) -> Option<Any> {
        let mut roots = self.roots.borrow_mut();
        if roots.is_empty() {
            return None;
        }
        let at = usize::from(at) % roots.len();
        self.oracle.borrow_mut().changed().roots.swap_remove(at);
        Some(roots.swap_remove(at))
    }

    /// The object at a place. Walking clones handles only where it must: a clone and its drop tell
    /// the collector that an object is in use.
    fn at(self: &Rc<Self>, (root, path): At) -> Option<Held> {
        let mut any = {
            let roots = self.roots.borrow();
            let root = usize::from(root).checked_rem(roots.len())?;
            roots[root].clone()
        };
        let mut path = if path < 128 { 0 } else { path };
        while path & 3 != 0 {
            let next = any.body().and_then(|body| match path & 3 {
                1 => body.plain.get().map(Any::Plain),
                2 => body.last.get().map(Any::Last),
                _ => {
                    let many = body.many.try_borrow()?;
                    many.last().cloned().or_else(|| body.fixed.clone())
                }
            });
            match next {
                Some(next) => any = next,
                None => break,
            }
            path >>= 2;
        }
        Some(Held::new(self, any))
    }

    // Making objects.

    fn alloc(
        self: &Rc<Self>,
        kind: Kind,
        fixed: Option<Any>,
        at_finalizer: Habit,
        at_drop: Habit,
    ) -> bool {
        if self.oracle.borrow().len() >= MOST_OBJECTS || self.heap.borrow().is_none() {
            drop(fixed);
            return false;
        }
        let fixed = match kind {
            Kind::Bulky => None,
            Kind::Flat => fixed.filter(|any| matches!(any, Any::Flat(_))),
            Kind::Plain | Kind::Last => fixed,
        };
        let held = fixed.as_ref().map(Any::id);
        let id = self.oracle.borrow_mut().add(kind, held);
        let tomb = Tomb::new(self, id, at_finalizer, at_drop);
        let made = self.with_heap(|heap| match kind {
            Kind::Plain => {
                let body = body(tomb, fixed);
                heap.alloc(Plain { body }).map(Any::Plain)
            }
            Kind::Last => {
                let body = body(tomb, fixed);
                heap.alloc(Last { body }).map(Any::Last)
            }
            Kind::Flat => {
                let next = match fixed {
                    Some(Any::Flat(next)) => Some(next),
                    _ => None,
                };
                heap.alloc(Flat { tomb, next }).map(Any::Flat)
            }
            Kind::Bulky => {
                let bulk = External::new(heap, vec![0; 100 + id as usize % 3000]).ok();
                let pad = [0; 2000];
                heap.alloc(Bulky { tomb, bulk, pad }).map(Any::Bulky)
            }
        });
        match made {
            Some(Ok(any)) => {
                let mut oracle = self.oracle.borrow_mut();
                oracle.note(id).born = true;
                oracle.changed().pending.retain(|&other| other != id);
                drop(oracle);
                self.push_root(any);
                true
            }
            Some(Err(full)) => {
                if !self.limited.get() {
                    self.fail(format!("a heap without a limit is full: {full}"));
                }
                false
            }
            None => false,
        }
    }

    // What the heap calls.

    pub(super) fn on_drop(self: &Rc<Self>, id: Id, habit: Habit) {
        self.events.set(self.events.get() + 1);
        let mut oracle = self.oracle.borrow_mut();
        let reached = oracle.is_reached(id);
        let entry = oracle.note(id);
        let (born, finalized, kind) = (entry.born, entry.finalized, entry.kind);
        let twice = std::mem::replace(&mut entry.dropped, true);
        if !born {
            oracle.changed().pending.retain(|&other| other != id);
        }
        drop(oracle);
        if twice {
            self.fail(format!("object {id} was dropped twice"));
        }
        if born && reached {
            self.fail(format!("object {id} was dropped, and can be reached"));
        }
        let expected = u32::from(born && matches!(kind, Kind::Last | Kind::Flat));
        if finalized != expected {
            self.fail(format!(
                "object {id} is dropped, finalized {finalized} times"
            ));
        }
        let watches = self.watches.borrow();
        let missed = |watch: &&WatchEntry| watch.id == id && watch.fired.get() != 1;
        if born && let Some(watch) = watches.iter().find(missed) {
            let fired = watch.fired.get();
            self.fail(format!(
                "object {id} is dropped, its watch fired {fired} times"
            ));
        }
        drop(watches);
        self.act(habit, None);
    }

    pub(super) fn on_finalize(self: &Rc<Self>, this: &Any) {
        self.events.set(self.events.get() + 1);
        let id = this.id();
        let mut oracle = self.oracle.borrow_mut();
        let reached = oracle.is_reached(id);
        let entry = oracle.note(id);
        entry.finalized += 1;
        let fine = entry.born && !entry.dropped && entry.finalized == 1;
        let saved = entry.saved_at.is_some();
        let habit = this.tomb().at_finalizer;
        drop(oracle);
        if !fine || !this.tomb().is_whole() {
            self.fail(format!("object {id} is finalized twice, or not whole"));
        }
        if reached && !saved {
            self.fail(format!("object {id} is finalized, and can be reached"));
        }
        // While it is whole so is all that it holds.
        self.check_edges(this);
        self.act(habit, Some(this));
    }

    fn on_watch(self: &Rc<Self>, id: Id, fired: &Cell<u32>, habit: Habit) {
        self.events.set(self.events.get() + 1);
        fired.set(fired.get() + 1);
        let mut oracle = self.oracle.borrow_mut();
        let wrong = oracle.is_reached(id) && oracle.of(id).saved_at.is_none();
        drop(oracle);
        if wrong || fired.get() != 1 {
            let fired = fired.get();
            self.fail(format!(
                "the watch of object {id} fired {fired} times, or while it can be reached"
            ));
        }
        self.act(habit, None);
    }

    /// Does what a finalizer, a callback or a drop is there for.
    fn act(self: &Rc<Self>, habit: Habit, this: Option<&Any>) {
        if self.trace && habit != Habit::Quiet {
            eprintln!("        {habit:?} in {:?}", this.map(Any::id));
        }
        let before = self.oracle.borrow_mut().reached().to_vec();
        let body = this.and_then(Any::body);
        match habit {
            Habit::Quiet | Habit::Panic => {}
            Habit::Resurrect => {
                if let Some(this) = this {
                    self.push_root(this.clone());
                }
            }
            Habit::Store => {
                // When all is taken apart that would put it together again.
                if let Some(this) = this
                    && !self.is_closed()
                    && let Some(holder) = self.at((0, 0))
                {
                    self.push(&holder, this.clone());
                }
            }
            Habit::Steal => {
                if let (Some(this), Some(body)) = (this, body) {
                    self.take_link(this.id(), body);
                    self.pop(this.id(), body);
                }
            }
            Habit::Unlink => {
                if let (Some(this), Some(body)) = (this, body) {
                    self.unlink(this.id(), body);
                }
            }
            Habit::Allocate => {
                for kind in [Kind::Plain, Kind::Last] {
                    let fixed = this.cloned();
                    self.alloc(kind, fixed, Habit::Quiet, Habit::Quiet);
                }
                // One that is garbage at once.
                let root = self.take_root(255);
                self.mark_saved(&before);
                drop(root);
            }
            Habit::MakeWeak => {
                if let Some(this) = this {
                    self.downgrade(this);
                    let made = self.weaks.borrow().len();
                    self.watch(made as u8 - 1, Habit::Quiet);
                }
            }
            Habit::DropRoot => drop(self.take_root(0)),
            Habit::Upgrade => self.upgrade(0),
            Habit::Slice => {
                self.with_heap(|heap| heap.collect_units(3));
            }
            Habit::Collect => {
                self.with_heap(|heap| {
                    heap.collect(Generation::Young);
                    heap.start_collection();
                    heap.collect(Generation::Old)
                });
            }
            Habit::Trim => {
                self.with_heap(|heap| {
                    heap.drain();
                    heap.trim(Trim::All, Instant::now())
                });
            }
            Habit::Freeze => {
                self.frozen.set(!self.frozen.get());
                let frozen = self.frozen.get();
                self.with_heap(|heap| {
                    if frozen {
                        heap.freeze()
                    } else {
                        heap.unfreeze()
                    }
                });
            }
            Habit::CloseHeap => {
                // Not while somebody uses it: then there is a handle that lives on anyway.
                let heap = self
                    .heap
                    .try_borrow_mut()
                    .ok()
                    .and_then(|mut heap| heap.take());
                if heap.is_some() {
                    self.keep_roots();
                }
                drop(heap);
            }
        }
        self.mark_saved(&before);
        if habit == Habit::Panic && !std::thread::panicking() {
            resume_unwind(Box::new(Asked));
        }
    }

    /// Notes which objects can be reached again.
    fn mark_saved(&self, before: &[bool]) {
        let mut oracle = self.oracle.borrow_mut();
        let now = oracle.tick();
        let reached = oracle.reached().to_vec();
        for (id, (before, after)) in (0..).zip(before.iter().zip(&reached)) {
            if *after && !before {
                oracle.note(id).saved_at = Some(now);
            }
        }
        drop(oracle);
        if self.is_closed() {
            self.keep_roots();
        }
    }

    // Changing objects.

    fn push(&self, holder: &Held, any: Any) {
        let id = any.id();
        if let Some(body) = holder.body()
            && let Some(mut many) = body.many.try_borrow_mut()
        {
            self.oracle.borrow_mut().change(holder.id).many.push(id);
            many.push(any);
        }
    }

    fn pop(&self, id: Id, body: &Body) {
        if let Some(mut many) = body.many.try_borrow_mut()
            && let Some(any) = many.pop()
        {
            self.oracle.borrow_mut().change(id).many.pop();
            self.push_root(any);
        }
    }

    fn clear_many(&self, id: Id, body: &Body) {
        let many = body.many.try_borrow_mut().map(|mut many| {
            self.oracle.borrow_mut().change(id).many.clear();
            std::mem::take(&mut *many)
        });
        drop(many);
    }

    fn unlink(&self, id: Id, body: &Body) {
        self.oracle.borrow_mut().change(id).plain = None;
        body.plain.set(None);
        self.oracle.borrow_mut().change(id).last = None;
        body.last.set(None);
        self.clear_many(id, body);
    }

    fn take_link(&self, id: Id, body: &Body) {
        if let Some(plain) = body.plain.take() {
            self.oracle.borrow_mut().change(id).plain = None;
            self.push_root(Any::Plain(plain));
        } else if let Some(last) = body.last.take() {
            self.oracle.borrow_mut().change(id).last = None;
            self.push_root(Any::Last(last));
        }
    }

    fn link(&self, holder: &Held, to: Any) {
        let Some(body) = holder.body() else { return };
        match to {
            Any::Plain(plain) => {
                let id = plain.body.tomb.id;
                self.oracle.borrow_mut().change(holder.id).plain = Some(id);
                body.plain.set(Some(plain));
            }
            Any::Last(last) => {
                let id = last.body.tomb.id;
                self.oracle.borrow_mut().change(holder.id).last = Some(id);
                body.last.set(Some(last));
            }
            Any::Flat(_) | Any::Bulky(_) => self.push(holder, to),
        }
    }

    // Weak references.

    fn downgrade(&self, any: &Any) {
        let made_at = self.oracle.borrow_mut().tick();
        let (id, weak) = (any.id(), any.downgrade());
        self.weaks
            .borrow_mut()
            .push(WeakEntry { id, made_at, weak });
    }

    fn upgrade(&self, at: u8) {
        let weaks = self.weaks.borrow();
        let Some(at) = usize::from(at).checked_rem(weaks.len()) else {
            return;
        };
        let WeakEntry { id, made_at, .. } = weaks[at];
        let found = weaks[at].weak.upgrade();
        drop(weaks);
        let mut oracle = self.oracle.borrow_mut();
        let reached = oracle.is_reached(id);
        let entry = oracle.of(id);
        // Being saved clears weak references, those of what is saved with it included.
        let sure = entry.saved_at.is_none_or(|saved| saved < made_at);
        let dropped = entry.dropped;
        drop(oracle);
        match found {
            None if reached && sure => {
                self.fail(format!(
                    "object {id} can be reached, and not through a weak reference"
                ));
            }
            Some(any) if dropped || any.id() != id || !any.tomb().is_whole() => {
                self.fail(format!("a weak reference to {id} leads to something else"));
                std::mem::forget(any);
            }
            // A finalizer may have made the weak reference to garbage: then those of before are dead.
            Some(any) => {
                let before = self.oracle.borrow_mut().reached().to_vec();
                self.push_root(any);
                self.mark_saved(&before);
            }
            None => {}
        }
    }

    fn make_watch(self: &Rc<Self>, at: u8, habit: Habit) -> Option<WatchEntry> {
        let weaks = self.weaks.borrow();
        let entry = weaks.get(usize::from(at).checked_rem(weaks.len())?)?;
        let (id, fired) = (entry.id, Rc::new(Cell::new(0)));
        let callback = {
            let (world, fired) = (Rc::clone(self), Rc::clone(&fired));
            let bomb = Bomb((habit == Habit::Panic).then(|| Rc::clone(&fired)));
            move || {
                world.on_watch(id, &fired, habit);
                drop(bomb);
            }
        };
        let watch = entry.weak.watch(callback)?;
        Some(WatchEntry { id, fired, watch })
    }

    fn watch(self: &Rc<Self>, at: u8, habit: Habit) {
        let made = self.make_watch(at, habit);
        self.watches.borrow_mut().extend(made);
    }

    // Operations.

    fn perform(self: &Rc<Self>, op: Op, ops: &mut std::slice::Iter<'_, Op>) {
        match op {
            Op::Alloc(kind, fixed, at_finalizer, at_drop) => {
                let fixed = if fixed < 100 {
                    self.at((fixed, 0)).map(|held| held.any.clone())
                } else {
                    None
                };
                self.alloc(kind, fixed, at_finalizer, at_drop);
            }
            Op::Chain(length) => self.chain(length),
            Op::CloneRoot(at) => {
                if let Some(held) = self.at(at) {
                    self.push_root(held.any.clone());
                }
            }
            Op::DropRoot(at) => drop(self.take_root(at)),
            Op::DropRoots(most) => {
                for _ in 0..most {
                    drop(self.take_root(most));
                }
            }
            Op::Link(from, to) => {
                if let (Some(from), Some(to)) = (self.at(from), self.at(to)) {
                    self.link(&from, to.any.clone());
                }
            }
            Op::TakeLink(at) => {
                if let Some(held) = self.at(at)
                    && let Some(body) = held.body()
                {
                    self.take_link(held.id, body);
                }
            }
            Op::ClearLink(at) => {
                if let Some(held) = self.at(at)
                    && let Some(body) = held.body()
                {
                    self.oracle.borrow_mut().change(held.id).plain = None;
                    body.plain.set(None);
                }
            }
            Op::MoveLink(from, to) => {
                if let (Some(from), Some(to)) = (self.at(from), self.at(to))
                    && let Some(body) = from.body()
                    && let Some(moved) = body.plain.take()
                {
                    self.oracle.borrow_mut().change(from.id).plain = None;
                    self.push(&to, Any::Plain(moved));
                }
            }
            Op::Push(to, what) => {
                if let (Some(to), Some(what)) = (self.at(to), self.at(what)) {
                    self.push(&to, what.any.clone());
                }
            }
            Op::MovePush(to, root) => {
                if let Some(to) = self.at(to)
                    && let Some(any) = self.take_root(root)
                {
                    self.push(&to, any);
                }
            }
            Op::Pop(at) => {
                if let Some(held) = self.at(at)
                    && let Some(body) = held.body()
                {
                    self.pop(held.id, body);
                }
            }
            Op::ClearMany(at) => {
                if let Some(held) = self.at(at)
                    && let Some(body) = held.body()
                {
                    self.clear_many(held.id, body);
                }
            }
            Op::SwapMany(one, other) => self.swap_many(one, other),
            Op::Downgrade(at) => {
                if let Some(held) = self.at(at) {
                    self.downgrade(&held.any);
                }
            }
            Op::Upgrade(at) => self.upgrade(at),
            Op::CloneWeak(at) => {
                let mut weaks = self.weaks.borrow_mut();
                if let Some(at) = usize::from(at).checked_rem(weaks.len()) {
                    let WeakEntry { id, made_at, .. } = weaks[at];
                    let weak = weaks[at].weak.clone();
                    weaks.push(WeakEntry { id, made_at, weak });
                }
            }
            Op::DropWeak(at) => {
                let mut weaks = self.weaks.borrow_mut();
                if let Some(at) = usize::from(at).checked_rem(weaks.len()) {
                    weaks.swap_remove(at);
                }
            }
            Op::Watch(at, habit) => self.watch(at, habit),
            Op::StoreWatch(at, weak, habit) => {
                if let Some(held) = self.at(at)
                    && let Some(body) = held.body()
                    && let Some(made) = self.make_watch(weak, habit)
                {
                    drop(body.watch.replace(Some(made.watch)));
                }
            }
            Op::DropWatch(at) => {
                let mut watches = self.watches.borrow_mut();
                let at = usize::from(at).checked_rem(watches.len());
                let watch = at.map(|at| watches.swap_remove(at));
                drop(watches);
                drop(watch);
            }
            Op::Lend(at, steps) => self.lend(at, steps, ops),
            Op::Read(at, steps) => {
                if let Some(held) = self.at(at)
                    && let Some(body) = held.body()
                    && let Some(many) = body.many.try_borrow()
                {
                    self.steps(steps, ops);
                    let ids: Vec<Id> = many.iter().map(Any::id).collect();
                    if ids != self.oracle.borrow().of(held.id).many {
                        self.fail(format!("object {} changed while it was lent", held.id));
                    }
                }
            }
            Op::Census => self.check_census(),
            Op::Verify => self.verify(),
            Op::FullCheck => self.full_check(),
            other => self.perform_on_heap(other),
        }
    }

    fn perform_on_heap(self: &Rc<Self>, op: Op) {
        match op {
            Op::BatchStart => {
                if self.batches.borrow().len() < 3 {
                    let batch = self.with_heap(Heap::batch);
                    self.batches.borrow_mut().extend(batch);
                }
                return;
            }
            Op::BatchEnd => {
                let batch = self.batches.borrow_mut().pop();
                drop(batch);
                return;
            }
            Op::Unit => {
                let units = self.units.take();
                if let Some(mut units) = units.or_else(|| self.with_heap(Heap::units)) {
                    units = units.every(2, 4);
                    drop(units.unit());
                    self.units.replace(Some(units));
                }
                return;
            }
            Op::UnitsEnd => {
                drop(self.units.take());
                return;
            }
            Op::Look(at) => self.look(at),
            _ => {}
        }
        self.with_heap(|heap| match op {
            Op::Collect(generation) => {
                heap.collect(Generation::ALL[usize::from(generation) % 3]);
            }
            Op::Start => heap.start_collection(),
            Op::Units(units) => {
                heap.collect_units(if units < 192 {
                    1 + u32::from(units) % 6
                } else {
                    40
                });
            }
            Op::Slice => {
                heap.collect_slice();
            }
            Op::SafePoint => heap.safe_point(),
            Op::Drain => heap.drain(),
            Op::Freeze => {
                self.frozen.set(true);
                heap.freeze();
            }
            Op::Unfreeze => {
                self.frozen.set(false);
                heap.unfreeze();
            }
            Op::Trim(all) => {
                let what = if all {
                    Trim::All
                } else {
                    Trim::IdleSince(Duration::ZERO)
                };
                heap.trim(what, Instant::now());
            }
            Op::Limit(more) => {
                self.limited.set(more >= 64);
                let limit = heap.held_bytes() + u64::from(more % 4) * (64 << 10);
                heap.set_limit((more >= 64).then_some(limit));
            }
            Op::Trace(true) => heap.trace_allocations(2),
            Op::Trace(false) => heap.stop_tracing(),
            Op::Thresholds(at) => {
                let (young, middle) = [(0, 0), (1, 1), (5, 2), (50, 3)][usize::from(at) % 4];
                heap.set_thresholds(young, middle, 2);
            }
            Op::Callback(what) => {
                if let Some(id) = self.callback.take() {
                    heap.remove_callback(id);
                } else if let Some(any) = self.take_root(what) {
                    let root = Held::new(self, any);
                    self.callback.set(Some(heap.on_collection(move |_| {
                        // Holds an object, and whoever lets go of the callback lets go of it.
                        if !root.any.tomb().is_whole() {
                            root.world.fail("what a callback holds is gone".to_owned());
                        }
                    })));
                }
            }
            _ => {}
        });
    }

    fn chain(self: &Rc<Self>, length: u8) {
        let length = match length {
            0..200 => u32::from(length),
            _ => 2200,
        };
        for number in 0..length {
            let fixed = if number == 0 {
                None
            } else {
                self.take_root_last()
            };
            let kind = [Kind::Plain, Kind::Last][usize::from(number % 64 == 63)];
            if !self.alloc(kind, fixed, Habit::Quiet, Habit::Quiet) {
                break;
            }
        }
    }

    /// The newest root; the handle is still counted by whoever gets it.
    fn take_root_last(&self) -> Option<Any> {
        let any = self.roots.borrow_mut().pop();
        self.oracle.borrow_mut().changed().roots.pop();
        any
    }

    fn swap_many(self: &Rc<Self>, one: At, other: At) {
        if let (Some(one), Some(other)) = (self.at(one), self.at(other))
            && one.id != other.id
            && let (Some(first), Some(second)) = (one.body(), other.body())
            && let Some(mut first) = first.many.try_borrow_mut()
            && let Some(mut second) = second.many.try_borrow_mut()
        {
            let mut oracle = self.oracle.borrow_mut();
            let many = std::mem::take(&mut oracle.change(one.id).many);
            let many = std::mem::replace(&mut oracle.change(other.id).many, many);
            oracle.change(one.id).many = many;
            std::mem::swap(&mut *first, &mut *second);
        }
    }

    /// Steps while a cell is lent for change, and changes through that.
    fn lend(self: &Rc<Self>, at: At, steps: u8, ops: &mut std::slice::Iter<'_, Op>) {
        let Some(held) = self.at(at) else { return };
        let Some(mut many) = held.body().and_then(|body| body.many.try_borrow_mut()) else {
            return;
        };
        self.steps(steps, ops);
        if steps & 16 != 0 {
            if let Some(any) = many.pop() {
                self.oracle.borrow_mut().change(held.id).many.pop();
                self.push_root(any);
            }
        } else if let Some(any) = self.take_root(steps) {
            self.oracle.borrow_mut().change(held.id).many.push(any.id());
            many.push(any);
        }
        self.steps(steps, ops);
    }

    fn steps(self: &Rc<Self>, steps: u8, ops: &mut std::slice::Iter<'_, Op>) {
        for _ in 0..steps % 8 {
            if let Some(&op) = ops.next() {
                self.step(op, ops);
            }
        }
    }

    fn look(self: &Rc<Self>, at: At) {
        let Some(held) = self.at(at) else { return };
        let id = held.any.address();
        self.with_heap(|heap| {
            let objects = heap.objects(None);
            let Some(of) = objects.iter().find(|object| object.id.address() == id) else {
                self.fail(format!("object {} is not among the objects", held.id));
                return;
            };
            let referents = heap.referents(of.id).len();
            let edges = held.body().map_or(0, |body| {
                usize::from(body.fixed.is_some())
                    + usize::from(!body.plain.is_none())
                    + usize::from(!body.last.is_none())
                    + body.many.try_borrow().map_or(0, |many| many.len())
            });
            if held.body().is_some() && referents != edges {
                self.fail(format!("object {} has {referents} referents", held.id));
            }
            let holders = heap.referrers(of.id).len();
            if holders > objects.len() {
                self.fail("more referrers than objects".to_owned());
            }
            let _ = heap
                .object(of.id)
                .map(|object: filed::heap::ObjectInfo| ObjectId::address(object.id));
            let _ = heap.leaks(&heap.snapshot("a look")).is_empty();
            let by_generation: u64 = heap.objects_by_generation().iter().sum();
            if by_generation != heap.objects(None).len() as u64 {
                self.fail("objects by generation are not all".to_owned());
            }
        });
    }

    // Comparing.

    /// What an object holds is what it should hold, and whole.
    fn check_edges(&self, any: &Any) -> Vec<Any> {
        let mut held = Vec::new();
        let oracle = self.oracle.borrow();
        let entry = oracle.of(any.id());
        if any.kind() != entry.kind {
            self.fail(format!("object {} has the type of another", any.id()));
        }
        match any {
            Any::Flat(flat) => held.extend(flat.next.clone().map(Any::Flat)),
            Any::Bulky(bulky) => {
                let wrong = bulky.bulk.as_ref().is_some_and(|bulk| bulk.len() < 100);
                if wrong || bulky.pad.iter().any(|&word| word != 0) {
                    self.fail(format!("object {} was written to", any.id()));
                }
            }
            Any::Plain(_) | Any::Last(_) => {}
        }
        if let Some(body) = any.body() {
            held.extend(body.fixed.clone());
            held.extend(body.plain.get().map(Any::Plain));
            held.extend(body.last.get().map(Any::Last));
        }
        let expected = [entry.fixed, entry.plain, entry.last];
        let mut expected: Vec<Id> = expected.into_iter().flatten().collect();
        if let Some(many) = any.body().and_then(|body| body.many.try_borrow()) {
            held.extend(many.iter().cloned());
            expected.extend(&entry.many);
        }
        let found: Vec<Id> = held.iter().map(Any::id).collect();
        if found != expected || !held.iter().all(|any| any.tomb().is_whole()) {
            self.fail(format!(
                "object {} holds {found:?} and not {expected:?}",
                any.id()
            ));
        }
        held
    }

    /// All that can be reached is what it should be. Tells the collector that all of it is in use,
    /// so not to be done at every step.
    fn verify(self: &Rc<Self>) {
        let counts = self.oracle.borrow().counts();
        let collecting = self.with_heap(Heap::is_collecting).unwrap_or(true);
        let mut seen = vec![false; counts.len()];
        let roots = self.roots.borrow();
        for any in &*roots {
            let id = any.id() as usize;
            let expected = counts[id];
            // Whoever is saved by a finalizer has one handle more until its collection is over.
            let more =
                u32::from(collecting && self.oracle.borrow().of(any.id()).saved_at.is_some());
            if !(expected..=expected + more).contains(&any.count()) {
                let count = any.count();
                self.fail(format!(
                    "object {id} has {count} handles and not {expected}"
                ));
            }
        }
        let mut stack: Vec<Any> = roots.clone();
        drop(roots);
        while let Some(any) = stack.pop() {
            if !std::mem::replace(&mut seen[any.id() as usize], true) {
                if self.oracle.borrow().of(any.id()).dropped {
                    self.fail(format!("object {} is reached, and was dropped", any.id()));
                }
                stack.extend(self.check_edges(&any));
            }
        }
        self.check_census();
    }

    fn check_census(&self) {
        let Some((census, collecting)) =
            self.with_heap(|heap| (heap.census(), heap.is_collecting()))
        else {
            return;
        };
        let rows = [
            (Kind::Plain, census.of::<Plain>().objects),
            (Kind::Last, census.of::<Last>().objects),
            (Kind::Flat, census.of::<Flat>().objects),
            (Kind::Bulky, census.of::<Bulky>().objects),
        ];
        for (kind, objects) in rows {
            let (reachable, there) = self.oracle.borrow_mut().census(kind);
            // Between dropping values and freeing slots a collection may stop.
            if objects < there || reachable > objects || (!collecting && objects > there) {
                self.fail(format!(
                    "the census says {objects} {kind:?}, there are {there}"
                ));
            }
        }
    }

    /// After collections nothing unreachable is left.
    fn full_check(self: &Rc<Self>) {
        if self.heap.borrow().is_none() {
            return;
        }
        self.frozen.set(false);
        let mut quiet = 0;
        for _ in 0..MOST_ROUNDS {
            let events = self.events.get();
            self.with_heap(|heap| {
                heap.unfreeze();
                heap.collect(Generation::Old);
                heap.drain();
            });
            quiet = if events == self.events.get() {
                quiet + 1
            } else {
                0
            };
            if quiet == 2 {
                break;
            }
        }
        let left = self.oracle.borrow_mut().left();
        if quiet == 2 && !left.is_empty() {
            self.fail(format!("garbage is left: {left:?}"));
        }
        self.verify();
    }

    /// Lets go of everything; then nothing may be left.
    fn end(self: &Rc<Self>) {
        if self.failures.borrow().is_empty() {
            self.survive(|| self.verify());
        }
        for _ in 0..4 {
            let batch = self.batches.borrow_mut().pop();
            self.survive(|| drop(batch));
        }
        let units = self.units.take();
        self.survive(|| drop(units));
        if let Some(id) = self.callback.take() {
            self.survive(|| {
                self.with_heap(|heap| heap.remove_callback(id));
            });
        }
        if self.oracle.borrow().len() % 2 == 1 {
            // The heap goes last. Finalizers may save what was let go of.
            while !self.roots.borrow().is_empty() {
                self.let_go();
                self.survive(|| self.full_check());
            }
        }
        let heap = self.heap.take();
        self.keep_roots();
        self.survive(|| drop(heap));
        while !self.roots.borrow().is_empty() || !self.kept.borrow().is_empty() {
            self.let_go();
            self.let_go_of_kept();
        }
        let left = self.oracle.borrow_mut().left();
        if !left.is_empty() && self.failures.borrow().is_empty() {
            self.fail(format!("closing left {left:?}"));
        }
        self.weaks.borrow_mut().clear();
    }

    fn let_go(self: &Rc<Self>) {
        while !self.watches.borrow().is_empty() {
            self.survive(|| {
                let watch = self.watches.borrow_mut().pop();
                drop(watch);
            });
        }
        while let Some(any) = self.take_root(0) {
            self.survive(|| drop(any));
        }
    }
}

/// Panics when it is dropped before its watch has fired.
struct Bomb(Option<Rc<Cell<u32>>>);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(|fired| fired.get() == 0) && !std::thread::panicking() {
            resume_unwind(Box::new(Asked));
        }
    }
}

fn body(tomb: Tomb, fixed: Option<Any>) -> Body {
    Body {
        tomb,
        fixed,
        plain: Link::none(),
        last: Link::none(),
        many: GcCell::default(),
        watch: GcCell::default(),
    }
}

/// Only so that types of handles are seen to be what the oracle takes them for.
const _: fn(&Gc<Plain>) -> usize = Gc::address;
