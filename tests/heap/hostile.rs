//! Programs that use a heap where that is most delicate: in drops, in
//! finalizers, between the slices of a collection, with another heap.
//!
//! Each test is of something that went wrong once, and tells what.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use filed::heap::{Gc, GcCell, Generation, Heap, Link, Options, Watch, Weak, leaf, traced};

/// Runs something when it is dropped.
struct AtDrop(Option<Box<dyn FnOnce()>>);
leaf!(AtDrop);

impl Drop for AtDrop {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

fn at_drop(run: impl FnOnce() + 'static) -> AtDrop {
    AtDrop(Some(Box::new(run)))
}

/// Says so when it is dropped, and can be asked whether it was.
struct Mark(Rc<Cell<bool>>);
leaf!(Mark);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// A drop that runs code of its program freed part of an object, and an epoch
/// that advanced meanwhile took what the rest of it held for garbage: the object
/// was a member no more, and its handles were counted as held by one.
#[test]
fn an_epoch_does_not_advance_while_a_value_is_dropped() {
    traced! {
        struct Holder {
            first: AtDrop,
            then: Option<Gc<Held>>,
            ring: Link<Holder>,
        }
        struct Held {
            mark: Mark,
            ring: Link<Held>,
        }
    }
    let heap = Heap::new();
    let dropped = Rc::new(Cell::new(false));
    let seen = Rc::new(Cell::new(None));
    let held = heap
        .alloc(Held {
            mark: Mark(Rc::clone(&dropped)),
            ring: Link::none(),
        })
        .expect("no limit is set");
    let first = {
        let (heap, dropped, seen) = (heap.clone(), Rc::clone(&dropped), Rc::clone(&seen));
        at_drop(move || {
            heap.collect_units(64);
            heap.collect(Generation::Old);
            seen.set(Some(dropped.get()));
        })
    };
    let holder = heap
        .alloc(Holder {
            first,
            then: Some(held),
            ring: Link::none(),
        })
        .expect("no limit is set");
    drop(holder.clone());
    heap.start_collection();
    // The holder is enrolled and scanned, and what it holds is scanned.
    heap.collect_units(3);
    drop(holder);
    assert_eq!(seen.get(), Some(false), "what is still held was dropped");
    assert!(dropped.get(), "and then it was let go of");
    assert_eq!(heap.stats().live_objects, 0);
}

/// A drop too large for one moment left objects in a queue, and told the epoch
/// to forget them. What they held was taken for garbage and freed before them,
/// and their drops freed it again.
#[test]
fn what_waits_to_be_freed_still_holds_what_it_holds() {
    traced! {
        struct Item {
            mark: Option<Mark>,
            next: Option<Gc<Item>>,
        }
    }
    const LENGTH: u32 = 5000;
    let heap = Heap::new();
    heap.disable();
    let dropped = Rc::new(Cell::new(false));
    let mut head = None;
    for number in 0..LENGTH {
        let mark = (number == 0).then(|| Mark(Rc::clone(&dropped)));
        let next = head.take();
        head = Some(heap.alloc(Item { mark, next }).expect("no limit is set"));
    }
    drop(head.clone());
    heap.start_collection();
    // All are enrolled and scanned, and none is compared yet.
    heap.collect_units(LENGTH + 1);
    drop(head);
    let queued = heap.stats().queued_objects;
    assert!(queued > 0 && !dropped.get(), "the drop is in parts");
    while heap.collect_units(64) {}
    assert!(!dropped.get(), "what is held by what waits was dropped");
    heap.drain();
    assert!(dropped.get());
    assert_eq!(heap.stats().live_objects, 0);
}

/// An object may hold one of another heap of the thread. Collections followed
/// the handle, looked its type up among those of the wrong heap, and took it for
/// an object of another type.
#[test]
fn collections_stay_on_their_heap() {
    traced! {
        struct Here {
            there: Link<There>,
            ring: Link<Here>,
        }
        struct There {
            name: String,
            list: Vec<Gc<Here>>,
            ring: Link<There>,
        }
    }
    let (here, there) = (Heap::new(), Heap::new());
    let far = there
        .alloc(There {
            name: "far".into(),
            list: Vec::new(),
            ring: Link::none(),
        })
        .expect("no limit is set");
    let near = here
        .alloc(Here {
            there: Link::to(far.clone()),
            ring: Link::none(),
        })
        .expect("no limit is set");
    near.ring.set(Some(near.clone()));
    far.ring.set(Some(far.clone()));
    for heap in [&here, &there] {
        drop((near.clone(), far.clone()));
        assert_eq!(heap.collect(Generation::Young), 0);
        drop((near.clone(), far.clone()));
        assert_eq!(heap.collect(Generation::Old), 0);
        heap.start_collection();
        while heap.collect_units(1) {
            // Each is known to its own collector only.
            near.there.set(Some(far.clone()));
        }
    }
    let id = filed::heap::ObjectId::of(&near);
    assert_eq!(here.referents(id).len(), 2);
    assert_eq!((far.name.as_str(), far.list.len()), ("far", 0));
    drop(far);
    assert_eq!(there.collect(Generation::Old), 0);
    drop(near);
    assert_eq!(here.collect(Generation::Old), 1);
    assert_eq!(there.collect(Generation::Old), 1);
    assert_eq!(there.stats().live_objects, 0);
}

traced! {
    /// A link of a chain or ring that counts how many are dropped.
    struct Counted {
        dropped: AtDrop,
        next: Link<Counted>,
        far: Option<Gc<Far>>,
    }
    /// A link of a chain that the collector does not look at.
    acyclic struct Far {
        dropped: AtDrop,
        next: Option<Gc<Far>>,
    }
}

/// Counts a drop.
fn count(in_all: &Rc<Cell<u32>>) -> AtDrop {
    let in_all = Rc::clone(in_all);
    at_drop(move || in_all.set(in_all.get() + 1))
}

fn ring(heap: &Heap, dropped: AtDrop, far: Option<Gc<Far>>) -> Gc<Counted> {
    let next = Link::none();
    let counted = Counted { dropped, next, far };
    let one = heap.alloc(counted).expect("no limit is set");
    one.next.set(Some(one.clone()));
    one
}

fn far(heap: &Heap, length: u32, in_all: &Rc<Cell<u32>>) -> Gc<Far> {
    let link = |next| {
        let dropped = count(in_all);
        heap.alloc(Far { dropped, next }).expect("no limit is set")
    };
    (1..length).fold(link(None), |next, _| link(Some(next)))
}

/// Without its heap a large drop left the rest to moments that never came.
#[test]
fn a_large_drop_after_the_heap_is_a_whole_one() {
    let in_all = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let chain = far(&heap, 5000, &in_all);
    drop(heap);
    drop(chain);
    assert_eq!(in_all.get(), 5000);
}

/// What the last collection left in the queue of drops stayed there.
#[test]
fn closing_a_heap_frees_what_its_garbage_held() {
    let in_all = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let chain = far(&heap, 5000, &in_all);
    drop(ring(&heap, count(&in_all), Some(chain)));
    drop(heap);
    assert_eq!(in_all.get(), 5001);
}

/// Frozen garbage was never looked at again.
#[test]
fn closing_a_heap_thaws_it() {
    let in_all = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let one = ring(&heap, count(&in_all), None);
    heap.freeze();
    drop(one);
    drop(heap);
    assert_eq!(in_all.get(), 1);
}

/// A callback of collections that held an object kept the heap for good.
#[test]
fn closing_a_heap_lets_go_of_its_callbacks() {
    let in_all = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let held = far(&heap, 1, &in_all);
    heap.on_collection(move |_| assert!(held.next.is_none()));
    let held = ring(&heap, count(&in_all), None);
    heap.on_collection(move |_| assert!(!held.next.is_none()));
    drop(heap);
    assert_eq!(in_all.get(), 2);
}

/// When the last handle went in a drop or a finalizer there was no last collection.
#[test]
fn a_heap_closed_by_a_drop_still_collects() {
    traced! {
        struct Owner { heap: HeapCell }
        finalize |this| {
            drop(this.heap.0.take());
        }
    }
    struct HeapCell(RefCell<Option<Heap>>);
    leaf!(HeapCell);

    let in_all = Rc::new(Cell::new(0));
    for in_finalizer in [false, true] {
        in_all.set(0);
        let heap = Heap::new();
        drop(ring(&heap, count(&in_all), None));
        if in_finalizer {
            let owner = Owner {
                heap: HeapCell(RefCell::new(Some(heap.clone()))),
            };
            let owner = heap.alloc(owner).expect("no limit is set");
            drop(heap);
            assert_eq!(in_all.get(), 0);
            drop(owner);
        } else {
            let inside = heap.clone();
            let dropped = at_drop(move || drop(inside));
            let next = None;
            let owner = heap.alloc(Far { dropped, next }).expect("no limit is set");
            drop(heap);
            assert_eq!(in_all.get(), 0);
            drop(owner);
        }
        assert_eq!(in_all.get(), 1);
    }
}

/// A drop that panicked left the queue alone, and a heap without a handle was
/// never given back.
#[test]
fn a_panic_in_a_drop_leaves_nothing() {
    let in_all = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let chain = far(&heap, 5000, &in_all);
    let head = Far {
        dropped: at_drop(|| std::panic::resume_unwind(Box::new("asked for"))),
        next: Some(chain),
    };
    let head = heap.alloc(head).expect("no limit is set");
    drop(heap);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(head)));
    assert!(caught.is_err());
    assert_eq!(in_all.get(), 5000);
}

/// A callback was dropped while the list of callbacks was borrowed: if that
/// collected, the collection panicked.
#[test]
fn dropping_a_callback_may_collect() {
    let heap = Heap::new();
    let inside = heap.clone();
    let guard = at_drop(move || {
        inside.collect(Generation::Old);
    });
    let id = heap.on_collection(move |_| assert!(guard.0.is_some()));
    heap.remove_callback(id);
    assert_eq!(heap.stats().generations[2].collections, 1);
}

/// A panic in the drop of a callback that is garbage got through the collection,
/// and no other ran after it.
#[test]
fn a_panic_in_the_drop_of_a_watch_is_caught() {
    traced! {
        struct Watcher {
            watch: GcCell<Option<Watch>>,
            next: Link<Watcher>,
        }
    }
    let heap = Heap::new();
    let watcher = Watcher {
        watch: GcCell::default(),
        next: Link::none(),
    };
    let watcher = heap.alloc(watcher).expect("no limit is set");
    watcher.next.set(Some(watcher.clone()));
    let bomb = at_drop(|| std::panic::resume_unwind(Box::new("asked for")));
    let watch = Gc::downgrade(&watcher).watch(move || drop(bomb));
    watcher.watch.replace(watch);
    drop(watcher);
    assert_eq!(heap.collect(Generation::Old), 1);
    assert_eq!(heap.stats().panics, 1);
    let in_all = Rc::new(Cell::new(0));
    drop(ring(&heap, count(&in_all), None));
    assert_eq!(heap.collect(Generation::Old), 1);
}

/// Panics when it is dropped.
struct Again;

impl Drop for Again {
    fn drop(&mut self) {
        // Of no size: what a second panic carries is let go of for good.
        std::panic::resume_unwind(Box::new(()));
    }
}

/// What a panic carried panicked when it was dropped, outside of what catches panics.
#[test]
fn what_a_panic_carries_may_panic_too() {
    traced! {
        struct Angry { ring: Link<Angry> }
        finalize |_this| {
            std::panic::resume_unwind(Box::new(Again));
        }
    }
    let heap = Heap::new();
    let ring = Link::none();
    let angry = heap.alloc(Angry { ring }).expect("no limit is set");
    angry.ring.set(Some(angry.clone()));
    drop(angry);
    assert_eq!(heap.collect(Generation::Old), 1);
    assert_eq!(heap.stats().panics, 1);
}

thread_local! {
    static SAVED: RefCell<Vec<Gc<Saved>>> = const { RefCell::new(Vec::new()) };
    static WEAK: RefCell<Vec<Weak<Saved>>> = const { RefCell::new(Vec::new()) };
}

traced! {
    /// Saves itself, and makes a weak reference to itself.
    struct Saved {
        ring: Link<Saved>,
        watch: GcCell<Option<Watch>>,
    }
    finalize |this| {
        SAVED.with_borrow_mut(|saved| saved.push(this.clone()));
        WEAK.with_borrow_mut(|weak| weak.push(Gc::downgrade(this)));
    }
}

fn saved(heap: &Heap) -> Gc<Saved> {
    let watch = GcCell::default();
    let ring = Link::none();
    let saved = heap.alloc(Saved { ring, watch }).expect("no limit is set");
    saved.ring.set(Some(saved.clone()));
    saved
}

/// Between the slices of its collection a saved object could not be had through
/// a weak reference although the program had a handle to it.
#[test]
fn a_weak_reference_made_by_a_finalizer_works() {
    let heap = Heap::new();
    drop(saved(&heap));
    heap.start_collection();
    while SAVED.with_borrow(Vec::is_empty) {
        assert!(heap.collect_units(1));
    }
    let weak = WEAK.take().pop().expect("the finalizer made one");
    assert!(heap.is_collecting() && weak.is_alive());
    let again = weak.upgrade().expect("it is held");
    assert!(Gc::same(
        &again,
        &SAVED.with_borrow(|saved| saved[0].clone())
    ));
    // Nor was it among the objects.
    assert_eq!(heap.objects(None).len(), 1);
    while heap.collect_units(1) {}
    assert_eq!(Gc::count(&again), 3);
    drop((again, SAVED.take()));
    heap.collect(Generation::Old);
    assert!(weak.upgrade().is_none());
    assert_eq!(heap.stats().live_objects, 0);
}

/// Watches in garbage were cancelled with it; one that a finalizer saved, of an
/// object that was no garbage, never fired.
#[test]
fn a_watch_that_is_saved_still_fires() {
    let heap = Heap::new();
    let fired = Rc::new(Cell::new(0));
    let watched = far(&heap, 1, &Rc::default());
    let watcher = saved(&heap);
    let callback = count(&fired);
    let watch = Gc::downgrade(&watched).watch(move || drop(callback));
    watcher.watch.replace(watch);
    // Somebody watches the garbage itself, so that its watches are looked at.
    let _other = Gc::downgrade(&watcher).watch(|| ());
    drop(watcher);
    heap.collect(Generation::Old);
    assert_eq!((SAVED.with_borrow(Vec::len), fired.get()), (1, 0));
    drop(watched);
    assert_eq!(fired.get(), 1);
    drop((SAVED.take(), WEAK.take()));
}

/// A candidate that frozen garbage held was found alive, and was no candidate any
/// more: after the thaw nobody looked at the cycle.
#[test]
fn garbage_with_a_frozen_part_is_found_after_the_thaw() {
    let in_all = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let counted = || {
        let (dropped, next, far) = (count(&in_all), Link::none(), None);
        let counted = Counted { dropped, next, far };
        heap.alloc(counted).expect("no limit is set")
    };
    let frozen = counted();
    heap.freeze();
    let fresh = counted();
    frozen.next.set(Some(fresh.clone()));
    // Moved, so that the frozen one loses no handle.
    fresh.next.set(Some(frozen));
    drop(fresh);
    assert_eq!(heap.collect(Generation::Old), 0);
    heap.unfreeze();
    assert_eq!(heap.collect(Generation::Old), 2);
    assert_eq!(in_all.get(), 2);
}

/// A unit of work that made garbage without end was not stopped by the bound on
/// garbage, as its guard promises.
#[test]
fn a_long_unit_of_work_keeps_the_bound_on_garbage() {
    let heap = Heap::with(Options {
        garbage_floor_bytes: 1 << 20,
        slice: Duration::MAX,
        ..Options::default()
    });
    let in_all = Rc::new(Cell::new(0));
    let mut units = heap.units();
    let unit = units.unit();
    let mut most = 0;
    for _ in 0..100_000 {
        drop(ring(&heap, count(&in_all), None));
        most = most.max(heap.stats().live_bytes);
    }
    let bound = heap.stats().garbage_bound_bytes;
    assert!(most <= bound, "{most} bytes with a bound of {bound}");
    drop(unit);
}
