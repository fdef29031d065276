//! Reference counting: counts step by step, and the end with the last handle.
//!
//! What nobody holds any more is gone when the drop returns. Only what a very
//! large drop leaves behind waits, in a queue that is worked off in slices, or
//! at once by [`Heap::drain`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use filed::heap::{Gc, GcCell, Generation, Heap, HeapStats, Link, Options, leaf, traced};

use crate::Log;

traced! {
    struct Noisy {
        name: &'static str,
        log: Log,
    }
    finalize |this| {
        this.log.say(this.name);
    }
}

fn noisy(heap: &Heap, log: &Log, name: &'static str) -> Gc<Noisy> {
    let log = log.clone();
    heap.alloc(Noisy { name, log }).expect("no limit is set")
}

#[test]
fn the_count_follows_every_handle() {
    let (heap, log) = (Heap::new(), Log::default());
    let first = noisy(&heap, &log, "first");
    assert_eq!(Gc::count(&first), 1);
    let second = first.clone();
    assert_eq!((Gc::count(&first), Gc::count(&second)), (2, 2));
    let list = vec![first.clone(), first.clone()];
    assert_eq!(Gc::count(&first), 4);
    drop(list);
    assert_eq!(Gc::count(&first), 2);
    drop(first);
    assert_eq!(Gc::count(&second), 1);
    assert!(log.take().is_empty());
    drop(second);
    assert_eq!(log.take(), ["first"]);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_handle_on_the_heap_counts_wherever_it_is() {
    traced! {
        struct Holder {
            link: Link<Noisy>,
            list: GcCell<Vec<Gc<Noisy>>>,
            maybe: GcCell<Option<Gc<Noisy>>>,
        }
    }
    let (heap, log) = (Heap::new(), Log::default());
    let object = noisy(&heap, &log, "object");
    let holder = heap
        .alloc(Holder {
            link: Link::to(object.clone()),
            list: GcCell::new(vec![object.clone(), object.clone()]),
            maybe: GcCell::new(Some(object.clone())),
        })
        .unwrap();
    assert_eq!(Gc::count(&object), 5);
    holder.list.borrow_mut().push(object.clone());
    assert_eq!(Gc::count(&object), 6);
    holder.list.borrow_mut().swap_remove(0);
    assert_eq!(Gc::count(&object), 5);
    // Moving a handle from one place to another changes no count.
    let moved = holder.link.take().unwrap();
    holder.maybe.replace(Some(moved));
    assert_eq!(Gc::count(&object), 4);
    assert!(holder.link.is_none());
    // To read a link is to hold a handle for as long.
    holder.link.set(Some(object.clone()));
    assert_eq!(Gc::count(&holder.link.get().unwrap()), 6);
    assert_eq!(Gc::count(&object), 5);
    holder.list.borrow_mut().clear();
    assert_eq!(Gc::count(&object), 3);
    drop(holder);
    assert_eq!(Gc::count(&object), 1);
    assert!(log.take().is_empty());
    drop(object);
    assert_eq!(log.take(), ["object"]);
}

#[test]
fn what_an_object_held_alone_goes_with_it_at_once() {
    traced! {
        struct Outer {
            inner: Gc<Noisy>,
            log: Log,
        }
        finalize |this| {
            this.log.say(format!("outer, while inner is {}", Gc::count(&this.inner)));
        }
    }
    let (heap, log) = (Heap::new(), Log::default());
    let inner = noisy(&heap, &log, "inner");
    let outer = heap
        .alloc(Outer {
            inner,
            log: log.clone(),
        })
        .unwrap();
    drop(outer);
    assert_eq!(log.take(), ["outer, while inner is 1", "inner"]);
    let stats = heap.stats();
    assert_eq!((stats.live_objects, stats.live_bytes), (0, 0));
    assert_eq!(stats.generations[0].collections, 0);
}

#[test]
fn an_address_is_that_of_one_object_for_its_life() {
    let heap = Heap::new();
    let objects: Vec<Gc<u64>> = (0..1000).map(|at| heap.alloc(at).unwrap()).collect();
    let mut addresses: Vec<usize> = objects.iter().map(Gc::address).collect();
    let clone = objects[7].clone();
    assert_eq!(Gc::address(&clone), addresses[7]);
    assert_eq!(addresses[7], &raw const *clone as usize);
    assert!(Gc::same(&clone, &objects[7]) && !Gc::same(&clone, &objects[8]));
    heap.collect(Generation::Old);
    assert!(
        objects
            .iter()
            .map(Gc::address)
            .eq(addresses.iter().copied())
    );
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), objects.len());
}

#[test]
fn a_drop_of_a_thousand_is_over_when_it_returns() {
    let heap = Heap::new();
    let list = list(&heap, 1000);
    assert_eq!(heap.stats().live_objects, 1000);
    drop(list);
    let HeapStats {
        live_objects,
        queued_objects,
        ..
    } = heap.stats();
    assert_eq!((live_objects, queued_objects), (0, 0));
}

traced! {
    struct Node {
        next: Option<Gc<Node>>,
    }

    struct Tree {
        left: Option<Gc<Tree>>,
        right: Option<Gc<Tree>>,
    }

    struct Ring {
        next: Link<Ring>,
    }
}

fn list(heap: &Heap, length: usize) -> Option<Gc<Node>> {
    let mut head = None;
    for _ in 0..length {
        head = Some(heap.alloc(Node { next: head }).expect("no limit is set"));
    }
    head
}

fn tree(heap: &Heap, depth: u32) -> Option<Gc<Tree>> {
    let below = depth.checked_sub(1)?;
    let left = tree(heap, below);
    let right = tree(heap, below);
    Some(heap.alloc(Tree { left, right }).expect("no limit is set"))
}

/// Ten million; a sanitizer shows no more with all of them, and needs minutes.
const LONG: usize = if cfg!(filed_asan) {
    100_000
} else {
    10_000_000
};

#[test]
fn a_list_of_ten_million_is_dropped_without_recursion() {
    let heap = Heap::new();
    let list = list(&heap, LONG);
    assert_eq!(heap.stats().live_objects, LONG as u64);
    drop(list);
    heap.drain();
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_ring_of_a_million_is_collected_without_recursion() {
    let heap = Heap::new();
    let last = heap.alloc(Ring { next: Link::none() }).unwrap();
    let mut first = last.clone();
    for _ in 1..LONG / 10 {
        let next = Link::to(first);
        first = heap.alloc(Ring { next }).unwrap();
    }
    last.next.set(Some(first));
    assert_eq!(heap.stats().live_objects, LONG as u64 / 10);
    drop(last);
    assert_eq!(heap.collect(Generation::Old), LONG as u64 / 10);
    assert_eq!(heap.stats().live_objects, 0);
}

/// No clock is asked: with a slice of no length each moment does the least it can.
#[test]
fn a_large_drop_is_cut_into_small_slices() {
    const OBJECTS: u64 = (1 << 20) - 1;
    for shape in ["list", "tree"] {
        let heap = Heap::with(Options {
            slice: Duration::ZERO,
            ..Options::default()
        });
        // What the drop and each moment after it may free: some 100 us of work.
        let at_once = 5000;
        let live = || heap.stats().live_objects;
        match shape {
            "list" => drop(list(&heap, OBJECTS as usize)),
            _ => drop(tree(&heap, OBJECTS.count_ones())),
        }
        let mut before = OBJECTS;
        let mut slices = 0;
        while heap.stats().queued_objects > 0 {
            assert!(before - live() <= at_once, "{shape}: {}", before - live());
            before = live();
            heap.safe_point();
            slices += 1;
        }
        assert_eq!(live(), 0, "{shape}");
        assert!(slices > OBJECTS / at_once, "{shape}: {slices}");
        assert_eq!(heap.stats().drains.count(), slices, "{shape}");
    }
}

#[test]
fn a_drain_frees_at_once_what_a_large_drop_left() {
    let heap = Heap::new();
    let tree = tree(&heap, 20);
    drop(tree);
    let left = heap.stats();
    assert!(left.queued_objects > 0 && left.live_objects > 0);
    heap.drain();
    let drained = heap.stats();
    assert_eq!((drained.queued_objects, drained.live_objects), (0, 0));
}

#[test]
fn allocations_work_off_what_a_large_drop_left() {
    let heap = Heap::new();
    drop(tree(&heap, 18));
    assert!(heap.stats().queued_objects > 0);
    while heap.stats().queued_objects > 0 {
        heap.alloc([0_u8; 1024]).unwrap();
    }
    assert_eq!(heap.stats().live_objects, 0);
}

struct Counted(Rc<Cell<u32>>);
leaf!(Counted);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Without a heap there are no later moments at which the rest could be freed.
#[test]
fn a_large_drop_after_the_heap_has_gone_leaves_nothing() {
    traced! {
        struct Chained {
            next: Option<Gc<Chained>>,
            counted: Counted,
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let heap = Heap::new();
    let mut head = None;
    for _ in 0..100_000 {
        let counted = Counted(Rc::clone(&dropped));
        head = Some(
            heap.alloc(Chained {
                next: head,
                counted,
            })
            .unwrap(),
        );
    }
    drop(heap);
    assert_eq!(dropped.get(), 0);
    drop(head);
    assert_eq!(dropped.get(), 100_000);
}
