//! Cycles: found by a collection and not before, and taken apart in the order
//! of PEP 442.
//!
//! Weak references die first and their callbacks run; then finalizers, each
//! once, while all of the garbage is whole; what they saved lives on, and the
//! values of the rest are dropped.

use std::cell::RefCell;
use std::rc::Rc;

use filed::heap::{Gc, GcCell, Generation, Heap, Link, Watch, Weak, leaf, traced};

use crate::Log;

/// Says when the value that it is a part of is dropped.
struct Dropped(&'static str, Log);
leaf!(Dropped);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.1.say(format!("drop {}", self.0));
    }
}

traced! {
    struct Node {
        name: &'static str,
        next: Link<Node>,
    }
}

fn node(heap: &Heap, name: &'static str) -> Gc<Node> {
    let next = Link::none();
    heap.alloc(Node { name, next }).expect("no limit is set")
}

fn ring(heap: &Heap, length: usize) -> Gc<Node> {
    let last = node(heap, "last");
    let mut first = last.clone();
    for _ in 1..length {
        let next = Link::to(first);
        first = heap
            .alloc(Node {
                name: "other",
                next,
            })
            .expect("no limit is set");
    }
    last.next.set(Some(first));
    last
}

#[test]
fn a_cycle_is_not_freed_before_a_collection() {
    let heap = Heap::new();
    let one = node(&heap, "one");
    let two = node(&heap, "two");
    one.next.set(Some(two.clone()));
    two.next.set(Some(one.clone()));
    drop((one, two));
    heap.drain();
    heap.safe_point();
    assert_eq!(heap.stats().live_objects, 2);
    assert_eq!(heap.collect(Generation::Young), 2);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_collection_says_how_many_objects_it_found() {
    let heap = Heap::new();
    for (length, generation) in [
        (1, Generation::Young),
        (3, Generation::Middle),
        (100, Generation::Old),
    ] {
        drop(ring(&heap, length));
        assert_eq!(heap.collect(generation), length as u64);
        assert_eq!(heap.collect(generation), 0);
    }
    for _ in 0..10 {
        drop(ring(&heap, 7));
    }
    assert_eq!(heap.collect(Generation::Young), 70);
}

#[test]
fn what_hangs_on_a_cycle_goes_with_it() {
    let heap = Heap::new();
    let first = ring(&heap, 2);
    traced! {
        struct Tail { of: Gc<Node>, name: String }
    }
    // Held by nothing, and what it holds is held by the ring alone.
    let tail = heap
        .alloc(Tail {
            of: first.clone(),
            name: "tail".into(),
        })
        .unwrap();
    let kept = node(&heap, "kept");
    first.next.get().unwrap().next.set(Some(kept.clone()));
    kept.next.set(Some(first.clone()));
    drop(first);
    assert_eq!(heap.collect(Generation::Old), 0);
    assert_eq!((tail.name.as_str(), tail.of.name), ("tail", "last"));
    drop(tail);
    assert_eq!(heap.collect(Generation::Old), 0);
    assert_eq!(heap.stats().live_objects, 3);
    drop(kept);
    assert_eq!(heap.collect(Generation::Old), 3);
}

#[test]
fn a_cycle_that_is_held_survives_whole() {
    let heap = Heap::new();
    let ring = ring(&heap, 50);
    // Makes every one of them a candidate.
    let mut at = ring.clone();
    for _ in 0..50 {
        at = at.next.get().unwrap();
    }
    assert!(Gc::same(&at, &ring));
    for generation in Generation::ALL {
        assert_eq!(heap.collect(generation), 0);
    }
    let mut length = 1;
    let mut at = ring.next.get().unwrap();
    while !Gc::same(&at, &ring) {
        at = at.next.get().unwrap();
        length += 1;
    }
    assert_eq!(length, 50);
}

type Others = Rc<RefCell<Vec<Weak<Member>>>>;

struct Seen(Others);
leaf!(Seen);

traced! {
    struct Member {
        name: &'static str,
        log: Log,
        others: Seen,
        next: Link<Member>,
        dropped: Dropped,
    }
    finalize |this| {
        let next = this.next.get().expect("it is a ring");
        let alive = this.others.0.borrow().iter().filter(|other| other.is_alive()).count();
        this.log.say(format!("finalize {}, next {}, weak {alive}", this.name, next.name));
    }
}

#[test]
fn weak_references_die_first_then_finalizers_run_then_values_are_dropped() {
    let (heap, log, others) = (Heap::new(), Log::default(), Others::default());
    let member = |name| {
        heap.alloc(Member {
            name,
            log: log.clone(),
            others: Seen(Rc::clone(&others)),
            next: Link::none(),
            dropped: Dropped(name, log.clone()),
        })
        .unwrap()
    };
    let members: Vec<_> = ["a", "b", "c"].map(member).into();
    let mut watches = Vec::new();
    for (at, one) in members.iter().enumerate() {
        one.next.set(Some(members[(at + 1) % 3].clone()));
        let weak = Gc::downgrade(one);
        let said = log.clone();
        let text = format!("callback {}", one.name);
        watches.push(weak.watch(move || said.say(text)).unwrap());
        others.borrow_mut().push(weak);
    }
    drop(members);
    assert!(log.take().is_empty());
    assert_eq!(heap.collect(Generation::Young), 3);
    let mut said = log.take();
    assert_eq!(said.len(), 9, "{said:?}");
    // Within a step the order is nobody's business.
    for step in said.chunks_mut(3) {
        step.sort();
    }
    assert_eq!(
        said,
        [
            "callback a",
            "callback b",
            "callback c",
            "finalize a, next b, weak 0",
            "finalize b, next c, weak 0",
            "finalize c, next a, weak 0",
            "drop a",
            "drop b",
            "drop c",
        ]
    );
    assert!(others.borrow().iter().all(|weak| weak.upgrade().is_none()));
}

type Saved = Rc<RefCell<Vec<Gc<Phoenix>>>>;

struct Nest(Saved);
leaf!(Nest);

traced! {
    struct Phoenix {
        name: &'static str,
        log: Log,
        nest: Nest,
        next: Link<Phoenix>,
    }
    finalize |this| {
        this.log.say(this.name);
        this.nest.0.borrow_mut().push(this.clone());
    }
}

fn phoenix(heap: &Heap, name: &'static str, log: &Log, nest: &Saved) -> Gc<Phoenix> {
    heap.alloc(Phoenix {
        name,
        log: log.clone(),
        nest: Nest(Rc::clone(nest)),
        next: Link::none(),
    })
    .expect("no limit is set")
}

#[test]
fn an_object_saved_by_its_finalizer_lives_and_is_finalized_only_once() {
    let (heap, log, nest) = (Heap::new(), Log::default(), Saved::default());
    drop(phoenix(&heap, "alone", &log, &nest));
    assert_eq!(log.take(), ["alone"]);
    assert_eq!(heap.stats().live_objects, 1);
    assert_eq!(heap.stats().resurrected, 1);
    let saved = nest.borrow_mut().pop().unwrap();
    assert_eq!((saved.name, Gc::count(&saved)), ("alone", 1));
    drop(saved);
    assert_eq!(heap.stats().live_objects, 0);
    assert!(log.take().is_empty());
    assert_eq!(heap.stats().finalizers, 1);
}

#[test]
fn a_cycle_saved_by_its_finalizers_lives_and_is_finalized_only_once() {
    let (heap, log, nest) = (Heap::new(), Log::default(), Saved::default());
    for (round, generation) in (1..).zip(Generation::ALL) {
        let (one, two) = (
            phoenix(&heap, "one", &log, &nest),
            phoenix(&heap, "two", &log, &nest),
        );
        one.next.set(Some(two.clone()));
        two.next.set(Some(one.clone()));
        drop((one, two));
        assert_eq!(heap.collect(generation), 0);
        assert_eq!(log.take().len(), 2);
        assert_eq!(heap.stats().resurrected, 2 * round);
        assert_eq!(heap.stats().live_objects, 2);
        let saved = nest.take();
        assert_eq!(saved.len(), 2);
        for object in &saved {
            let other = object.next.get().unwrap();
            assert!(Gc::same(object, &other.next.get().unwrap()));
        }
        drop(saved);
        assert_eq!(heap.collect(Generation::Old), 2);
        assert!(log.take().is_empty());
        assert_eq!(heap.stats().live_objects, 0);
    }
}

#[test]
fn one_saved_member_saves_what_it_reaches_and_nothing_else() {
    traced! {
        struct Plain { name: &'static str, to: Link<Plain>, saves: Link<Phoenix> }
    }
    let (heap, log, nest) = (Heap::new(), Log::default(), Saved::default());
    let saved = phoenix(&heap, "saved", &log, &nest);
    saved.next.set(Some(saved.clone()));
    let plain = |name, to: Option<&Gc<Plain>>| {
        let link = Link::none();
        link.set(to.cloned());
        heap.alloc(Plain {
            name,
            to: link,
            saves: Link::none(),
        })
        .unwrap()
    };
    // A ring of two that holds the one that saves itself, but is not held by it.
    let one = plain("one", None);
    let two = plain("two", Some(&one));
    one.to.set(Some(two.clone()));
    assert_eq!((one.name, two.name), ("one", "two"));
    one.saves.set(Some(saved.clone()));
    drop((one, two, saved));
    assert_eq!(heap.collect(Generation::Old), 2);
    assert_eq!(heap.census().of::<Plain>().objects, 0);
    assert_eq!(heap.census().of::<Phoenix>().objects, 1);
    nest.borrow_mut().clear();
    assert_eq!(heap.collect(Generation::Old), 1);
}

#[test]
fn a_panic_of_a_finalizer_is_caught_and_the_object_freed() {
    traced! {
        struct Panics { next: Link<Panics> }
        finalize |_this| {
            panic!("a finalizer of the test");
        }
    }
    let heap = Heap::new();
    drop(heap.alloc(Panics { next: Link::none() }).unwrap());
    assert_eq!((heap.stats().live_objects, heap.stats().panics), (0, 1));
    for (round, generation) in (1..).zip(Generation::ALL) {
        let one = heap.alloc(Panics { next: Link::none() }).unwrap();
        one.next.set(Some(one.clone()));
        drop(one);
        assert_eq!(heap.collect(generation), 1);
        let stats = heap.stats();
        assert_eq!((stats.live_objects, stats.panics), (0, 1 + round));
        assert_eq!(stats.finalizers, 1 + round);
    }
}

#[test]
fn a_panic_of_a_callback_or_a_drop_spares_the_rest_of_the_garbage() {
    struct Bomb(Log);
    leaf!(Bomb);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.say("drop");
            panic!("a drop of the test");
        }
    }
    traced! {
        struct Armed { next: Link<Armed>, bomb: Bomb }
    }
    let (heap, log) = (Heap::new(), Log::default());
    let armed = || {
        let bomb = Bomb(log.clone());
        let next = Link::none();
        heap.alloc(Armed { next, bomb }).unwrap()
    };
    let (one, two) = (armed(), armed());
    one.next.set(Some(two.clone()));
    two.next.set(Some(one.clone()));
    let watch = Gc::downgrade(&one).watch(|| panic!("a callback of the test"));
    drop((one, two));
    assert_eq!(heap.collect(Generation::Young), 2);
    assert_eq!(log.take(), ["drop", "drop"]);
    assert_eq!((heap.stats().live_objects, heap.stats().panics), (0, 3));
    drop(watch);
}

#[test]
fn a_callback_is_not_called_when_its_watch_is_garbage_too() {
    traced! {
        struct Watched { next: Link<Watched>, watch: GcCell<Option<Watch>> }
    }
    let (heap, log) = (Heap::new(), Log::default());
    let alloc = || {
        let (next, watch) = (Link::none(), GcCell::default());
        heap.alloc(Watched { next, watch }).unwrap()
    };
    let watch = |of: &Gc<Watched>, text: &'static str| {
        let log = log.clone();
        Gc::downgrade(of).watch(move || log.say(text)).unwrap()
    };
    let (one, two) = (alloc(), alloc());
    one.next.set(Some(two.clone()));
    two.next.set(Some(one.clone()));
    one.watch.replace(Some(watch(&two, "from garbage")));
    let outside = watch(&two, "from outside");
    drop((one, two));
    assert_eq!(heap.collect(Generation::Young), 2);
    assert_eq!(log.take(), ["from outside"]);
    drop(outside);
}

#[test]
fn a_finalizer_starts_no_collection_but_may_allocate() {
    struct Home(Heap);
    leaf!(Home);
    traced! {
        struct Maker { heap: Home, next: Link<Maker>, log: Log }
        finalize |this| {
            let first = this.heap.0.alloc(Node { name: "new", next: Link::none() }).unwrap();
            first.next.set(Some(first.clone()));
            let found = this.heap.0.collect(Generation::Old);
            this.log.say(format!("found {found}"));
        }
    }
    let (heap, log) = (Heap::new(), Log::default());
    let maker = heap
        .alloc(Maker {
            heap: Home(heap.clone()),
            next: Link::none(),
            log: log.clone(),
        })
        .unwrap();
    maker.next.set(Some(maker.clone()));
    drop(maker);
    heap.collect(Generation::Old);
    assert_eq!(log.take(), ["found 0"]);
    assert_eq!(heap.census().of::<Maker>().objects, 0);
    heap.collect(Generation::Old);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn cycles_still_there_when_the_heap_goes_are_finalized() {
    let (heap, log, nest) = (Heap::new(), Log::default(), Saved::default());
    let one = phoenix(&heap, "one", &log, &nest);
    one.next.set(Some(one.clone()));
    let clone = heap.clone();
    drop((one, heap));
    assert!(log.take().is_empty());
    drop(clone);
    assert_eq!(log.take(), ["one"]);
    // It was saved, and outlives the heap.
    assert_eq!(nest.borrow()[0].next.get().unwrap().name, "one");
    nest.borrow()[0].next.set(None);
    nest.borrow_mut().clear();
}
