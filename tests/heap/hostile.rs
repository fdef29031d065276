//! Programs that use a heap where that is most delicate: in drops, in
//! finalizers, between the slices of a collection, with another heap.
//!
//! Each test is of something that went wrong once, and tells what.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use filed::heap::{Gc, Generation, Heap, Link, leaf, traced};

type Log = Rc<RefCell<Vec<u32>>>;

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

struct Logged(Log);
leaf!(Logged);

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
/// to forget them. What they held was taken for garbage and freed before them;
/// their finalizers used it, and their drops freed it again.
#[test]
fn what_waits_to_be_freed_still_holds_what_it_holds() {
    traced! {
        struct Item {
            log: Logged,
            held: Option<Gc<Held>>,
            next: Option<Gc<Item>>,
        }
        finalize |this| {
            if let Some(held) = &this.held {
                assert!(!held.mark.0.get());
                this.log.0.borrow_mut().push(held.number);
            }
        }
        struct Held {
            number: u32,
            mark: Mark,
            ring: Link<Held>,
        }
    }
    const LENGTH: u32 = 5000;
    let (heap, log) = (Heap::new(), Log::default());
    heap.disable();
    let dropped = Rc::new(Cell::new(false));
    let mut head = None;
    for number in 0..LENGTH {
        let held = (number == 0).then(|| {
            let mark = Mark(Rc::clone(&dropped));
            let ring = Link::none();
            heap.alloc(Held {
                number: 42,
                mark,
                ring,
            })
            .expect("no limit is set")
        });
        let (log, next) = (Logged(Rc::clone(&log)), head.take());
        head = Some(
            heap.alloc(Item { log, held, next })
                .expect("no limit is set"),
        );
    }
    drop(head.clone());
    heap.start_collection();
    // All are members, enrolled or scanned, and none is compared yet.
    heap.collect_units(LENGTH + 2);
    drop(head);
    assert!(heap.stats().queued_objects > 0, "the drop is in parts");
    while heap.collect_units(64) {}
    assert!(!dropped.get(), "what is held by what waits was dropped");
    heap.drain();
    assert!(dropped.get());
    assert_eq!(*log.borrow(), [42]);
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
