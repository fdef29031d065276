//! Three generations: who is in which, when each is collected, and what is
//! known of its collections.
//!
//! The oldest is collected in slices, with a bound on the garbage outstanding.
//! Where a test is about slices it makes them as short as they get: then what
//! happens follows from what is allocated, and from no clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use filed::heap::{
    Cause, CollectionEvent, Gc, GcCell, Generation, Heap, Link, NoSuchGeneration, OldestRule,
    Options, Totals, traced,
};

use crate::unhurried;

traced! {
    struct Node {
        next: Link<Node>,
        others: GcCell<Vec<Gc<Node>>>,
    }

    /// A node large enough that few of them are many bytes.
    struct Large {
        next: Link<Large>,
        bulk: [u64; 128],
    }
}

fn node(heap: &Heap) -> Gc<Node> {
    let (next, others) = (Link::none(), GcCell::default());
    heap.alloc(Node { next, others }).expect("no limit is set")
}

fn large(heap: &Heap) -> Gc<Large> {
    let (next, bulk) = (Link::none(), [7; 128]);
    heap.alloc(Large { next, bulk }).expect("no limit is set")
}

/// A cycle of two that nobody holds.
fn garbage(heap: &Heap) {
    let (one, two) = (node(heap), node(heap));
    one.next.set(Some(two.clone()));
    two.next.set(Some(one.clone()));
}

/// Makes the collector look at an object, which it does when a handle is dropped.
fn touch(object: &Gc<Node>) {
    drop(object.clone());
}

/// A heap that collects when asked only.
fn manual() -> Heap {
    let heap = Heap::new();
    heap.disable();
    heap
}

#[test]
fn generations_are_zero_to_two_and_others_an_error() {
    for (number, generation) in (0..).zip(Generation::ALL) {
        assert_eq!(Generation::try_from(number), Ok(generation));
        assert_eq!(generation.number(), number as usize);
    }
    for wrong in [3, u32::MAX] {
        assert_eq!(Generation::try_from(wrong), Err(NoSuchGeneration(wrong)));
    }
    let message = NoSuchGeneration(3).to_string();
    assert_eq!(message, "there is no generation 3: only 0, 1 and 2");
}

#[test]
fn counts_say_what_there_is_toward_the_thresholds() {
    let heap = manual();
    assert_eq!(heap.counts(), (0, 0, 0));
    let mut nodes: Vec<_> = (0..5).map(|_| node(&heap)).collect();
    assert_eq!(heap.counts(), (5, 0, 0));
    nodes.truncate(3);
    assert_eq!(heap.counts(), (3, 0, 0));
    // What cannot be in a cycle does not count.
    let _number = heap.alloc(5_u64).unwrap();
    assert_eq!(heap.counts(), (3, 0, 0));
    heap.collect(Generation::Young);
    heap.collect(Generation::Young);
    assert_eq!(heap.counts(), (0, 2, 0));
    nodes.push(node(&heap));
    assert_eq!(heap.counts(), (1, 2, 0));
    heap.collect(Generation::Middle);
    assert_eq!(heap.counts(), (0, 0, 1));
    heap.collect(Generation::Old);
    assert_eq!(heap.counts(), (0, 0, 0));
}

#[test]
fn survivors_grow_older_with_each_collection_that_looks_at_them() {
    let heap = manual();
    let (looked_at, left_alone) = (node(&heap), node(&heap));
    let _number = heap.alloc(1_u64).unwrap();
    for (generation, expected, by_generation) in [
        (None, 0, [3, 0, 0]),
        (Some(Generation::Young), 1, [2, 1, 0]),
        (Some(Generation::Middle), 2, [2, 0, 1]),
        (Some(Generation::Old), 2, [2, 0, 1]),
    ] {
        if let Some(generation) = generation {
            touch(&looked_at);
            heap.collect(generation);
        }
        assert_eq!(Gc::generation(&looked_at), expected);
        assert_eq!(Gc::generation(&left_alone), 0);
        assert_eq!(heap.objects_by_generation(), by_generation);
    }
}

#[test]
fn objects_and_types_are_listed_by_generation() {
    let heap = manual();
    let old: Vec<_> = (0..3).map(|_| node(&heap)).collect();
    old.iter().for_each(touch);
    heap.collect(Generation::Old);
    let young = [large(&heap), large(&heap)];
    let number = heap.alloc(1_u64).unwrap();
    let addresses = |generation| {
        let objects = heap.objects(generation);
        let mut addresses: Vec<_> = objects.iter().map(|of| of.id.address()).collect();
        addresses.sort_unstable();
        addresses
    };
    let sorted = |mut addresses: Vec<usize>| {
        addresses.sort_unstable();
        addresses
    };
    let of_old = sorted(old.iter().map(Gc::address).collect());
    let mut of_young: Vec<_> = young.iter().map(Gc::address).collect();
    of_young.push(Gc::address(&number));
    assert_eq!(addresses(Some(Generation::Old)), of_old);
    assert_eq!(addresses(Some(Generation::Young)), sorted(of_young.clone()));
    assert!(addresses(Some(Generation::Middle)).is_empty());
    assert_eq!(addresses(None), sorted([of_old, of_young].concat()));
    let name = std::any::type_name::<Node>();
    assert_eq!(heap.types_in(Generation::Old), [(name, 3)]);
    let name = std::any::type_name::<Large>();
    assert_eq!(heap.types_in(Generation::Young), [(name, 2), ("u64", 1)]);
}

#[test]
fn a_young_collection_leaves_old_garbage_to_an_older_one() {
    for (age, generation) in [
        (0, Generation::Young),
        (1, Generation::Middle),
        (2, Generation::Old),
    ] {
        let heap = manual();
        let (one, two) = (node(&heap), node(&heap));
        one.next.set(Some(two.clone()));
        two.next.set(Some(one.clone()));
        for older in &Generation::ALL[..age] {
            touch(&one);
            heap.collect(*older);
        }
        assert_eq!(usize::from(Gc::generation(&one)), age);
        drop((one, two));
        for younger in &Generation::ALL[..age] {
            assert_eq!(heap.collect(*younger), 0);
        }
        assert_eq!(heap.collect(generation), 2);
    }
}

#[test]
fn each_generation_has_statistics() {
    let heap = manual();
    for (number, generation) in (0..).zip(Generation::ALL) {
        for _ in 0..=number {
            garbage(&heap);
            heap.collect(generation);
        }
        let stats = heap.stats();
        let of = &stats.generations[number];
        let collections = number as u64 + 1;
        assert_eq!(of.collections, collections);
        assert_eq!(of.collected, 2 * collections);
        assert_eq!((of.uncollectable, of.given_up), (0, 0));
        let pauses = &of.pauses;
        assert_eq!(pauses.count(), collections);
        assert!(pauses.total() >= pauses.longest() && pauses.longest() >= pauses.average());
        assert!(pauses.quantile(0.5) <= pauses.longest() && pauses.longest() > Duration::ZERO);
        assert!(stats.longest_pause() >= pauses.longest());
    }
    let pauses = heap.stats().generations.map(|of| of.pauses.total());
    assert_eq!(heap.stats().total_pause(), pauses.iter().sum());
}

fn record(heap: &Heap) -> (Rc<RefCell<Vec<CollectionEvent>>>, filed::heap::CallbackId) {
    let events = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&events);
    let id = heap.on_collection(move |event| noted.borrow_mut().push(*event));
    (events, id)
}

#[test]
fn callbacks_hear_of_the_start_and_the_end_of_each_collection() {
    let heap = manual();
    let (events, id) = record(&heap);
    for generation in Generation::ALL {
        garbage(&heap);
        heap.collect(generation);
        let [start, end] = events.take().try_into().unwrap();
        assert!(!start.ended && end.ended);
        assert_eq!((start.generation, end.generation), (generation, generation));
        assert_eq!((start.cause, end.cause), (Cause::Asked, Cause::Asked));
        assert_eq!((start.collected, start.candidates), (0, 0));
        assert_eq!((end.collected, end.uncollectable), (2, 0));
        assert!(end.candidates >= 1 && end.candidates <= 2);
        assert!(end.duration > start.duration);
    }
    heap.remove_callback(id);
    heap.collect(Generation::Old);
    assert!(events.take().is_empty());
}

#[test]
fn a_callback_starts_no_collection_and_may_panic() {
    let heap = manual();
    let inner = heap.clone();
    let id = heap.on_collection(move |_| {
        garbage(&inner);
        assert_eq!(inner.collect(Generation::Old), 0);
        panic!("a callback of the test");
    });
    garbage(&heap);
    // What the first call makes is there before the collection looks.
    assert_eq!(heap.collect(Generation::Young), 4);
    assert_eq!(heap.stats().panics, 2);
    assert_eq!(heap.stats().generations[2].collections, 0);
    heap.remove_callback(id);
    assert_eq!(heap.collect(Generation::Young), 2);
}

#[test]
fn what_is_frozen_is_not_looked_at_until_it_thaws() {
    let heap = manual();
    let (one, two) = (node(&heap), node(&heap));
    one.next.set(Some(two.clone()));
    two.next.set(Some(one.clone()));
    let counted = node(&heap);
    let _number = heap.alloc(1_u64).unwrap();
    garbage(&heap);
    assert_eq!(heap.frozen_count(), 0);
    heap.freeze();
    assert_eq!(heap.frozen_count(), 5);
    drop((one, two));
    // Whatever comes later is collected as ever.
    garbage(&heap);
    for generation in Generation::ALL {
        let expected = if generation == Generation::Young {
            2
        } else {
            0
        };
        assert_eq!(heap.collect(generation), expected);
    }
    assert_eq!(heap.frozen_count(), 5);
    // Counting goes on.
    drop(counted);
    assert_eq!(heap.frozen_count(), 4);
    heap.unfreeze();
    assert_eq!(heap.frozen_count(), 0);
    assert_eq!(heap.collect(Generation::Old), 4);
    assert_eq!(heap.stats().live_objects, 1);
}

#[test]
fn what_only_frozen_objects_hold_survives() {
    let heap = manual();
    let frozen = node(&heap);
    heap.freeze();
    let later = node(&heap);
    later.next.set(Some(later.clone()));
    frozen.next.set(Some(later));
    assert_eq!(heap.collect(Generation::Old), 0);
    assert_eq!(heap.stats().live_objects, 2);
    frozen.next.set(None);
    assert_eq!(heap.collect(Generation::Old), 1);
}

#[test]
fn young_garbage_is_collected_without_being_asked_for() {
    let heap = unhurried();
    let (events, _) = record(&heap);
    let mut most = 0;
    for _ in 0..20_000 {
        garbage(&heap);
        most = heap.stats().live_objects.max(most);
    }
    assert!(most <= 2 * 701, "{most}");
    let stats = heap.stats();
    // After 701 objects generation 0, and after every tenth of those generation 1.
    let passes = 40_000 / 701;
    assert_eq!(stats.generations[0].collections, passes - passes / 12);
    assert_eq!(stats.generations[1].collections, passes / 12);
    assert!(
        events
            .borrow()
            .iter()
            .all(|of| of.cause == Cause::Automatic)
    );
}

#[test]
fn a_young_collection_that_takes_long_is_given_up_for_the_incremental_one() {
    let heap = Heap::with(Options {
        longest_young: Duration::ZERO,
        ..Options::default()
    });
    for _ in 0..1000 {
        garbage(&heap);
    }
    let stats = heap.stats();
    assert!(stats.generations[0].given_up > 0);
    assert_eq!(stats.live_objects, 2000);
    assert_eq!(heap.collect(Generation::Old), 2000);
}

/// Keeps a number of cycles and replaces the oldest, so that all garbage is old.
struct Churn {
    kept: VecDeque<Gc<Large>>,
    /// Goes after what is on it: later nobody collects that.
    heap: Heap,
}

impl Churn {
    const KEPT: u64 = 200;

    fn new(options: Options) -> Self {
        let heap = Heap::with(options);
        let mut churn = Self {
            heap,
            kept: VecDeque::new(),
        };
        for _ in 0..Self::KEPT {
            churn.add();
        }
        churn
    }

    /// Each cycle is touched, so that young collections look at it and it grows old.
    fn add(&mut self) {
        let (one, two) = (large(&self.heap), large(&self.heap));
        one.next.set(Some(two.clone()));
        two.next.set(Some(one.clone()));
        self.kept.push_back(one);
    }

    fn turn(&mut self) {
        self.add();
        let old = self.kept.pop_front().expect("some are kept");
        drop(old);
    }

    /// Bytes of objects that nobody holds.
    fn garbage_bytes(&self) -> u64 {
        let stats = self.heap.stats();
        let each = stats.live_bytes / stats.live_objects;
        stats.live_bytes - 2 * Self::KEPT * each
    }
}

/// What CPython's incremental collector of 3.14.0 lacked.
#[test]
fn garbage_in_the_oldest_generation_stays_within_the_published_bound() {
    let mut churn = Churn::new(Options {
        garbage_floor_bytes: 1 << 20,
        // As little as possible in each slice: the bound holds by the number of slices.
        slice: Duration::ZERO,
        // The sampler is the only thing here that is left to chance.
        sample_bytes: 0,
        longest_young: Duration::MAX,
        ..Options::default()
    });
    churn.heap.set_thresholds(100, 2, 10);
    let mut most = 0;
    let mut slices = 0;
    for _ in 0..20_000 {
        churn.turn();
        let garbage = churn.garbage_bytes();
        let bound = churn.heap.stats().garbage_bound_bytes;
        assert!(garbage <= bound, "{garbage} of {bound}");
        most = garbage.max(most);
        slices += u64::from(churn.heap.is_collecting());
    }
    let stats = churn.heap.stats();
    let old = &stats.generations[2];
    // Without a bound it would be all that was allocated, some 40 MB.
    assert!(most > 256 << 10 && stats.allocated_bytes > 40_000_000);
    assert!(old.collected > 10_000 && old.collections > 10);
    assert!(old.pauses.count() > 10 * old.collections && slices > 1000);
    assert_eq!(stats.whole.count(), 0);
}

#[test]
fn without_automatic_collection_garbage_has_no_bound() {
    let mut churn = Churn::new(Options {
        garbage_floor_bytes: 1 << 20,
        ..Options::default()
    });
    churn.heap.disable();
    for _ in 0..2000 {
        churn.turn();
    }
    assert!(churn.garbage_bytes() > 4 << 20);
    assert!(churn.garbage_bytes() > churn.heap.stats().garbage_bound_bytes);
}

/// CPython's rule before 3.14, kept for comparison.
#[test]
fn the_rule_of_the_quarter_collects_by_objects_instead() {
    let mut churn = Churn::new(Options {
        oldest_rule: OldestRule::Quarter,
        slice: Duration::MAX,
        longest_young: Duration::MAX,
        ..Options::default()
    });
    churn.heap.set_thresholds(100, 1, 1);
    for _ in 0..5000 {
        churn.turn();
    }
    // The bound of the other rule, 16 MiB, is never reached.
    let old = churn.heap.stats().generations[2].clone();
    assert!(old.collections > 3 && old.collected > 5000, "{old:?}");
    let before = old.collections;
    churn.heap.set_oldest_rule(OldestRule::Debt);
    for _ in 0..1000 {
        churn.turn();
    }
    assert!(churn.heap.stats().generations[2].collections <= before + 1);
}

#[test]
fn an_incremental_collection_runs_between_the_steps_of_the_program() {
    let heap = Heap::with(Options {
        slice: Duration::ZERO,
        ..Options::default()
    });
    heap.disable();
    // A ring that is held, another that is not, and one that is let go meanwhile.
    let ring = |length: usize| {
        let last = node(&heap);
        let mut first = last.clone();
        for _ in 1..length {
            let before = node(&heap);
            before.next.set(Some(first));
            first = before;
        }
        last.next.set(Some(first));
        last
    };
    let (held, lost, later) = (ring(1000), ring(1000), ring(1000));
    touch(&held);
    drop(lost);
    let (events, _) = record(&heap);
    assert!(!heap.is_collecting() && !heap.collect_slice());
    heap.start_collection();
    assert!(heap.is_collecting());
    let mut later = Some(later);
    let mut at = held.clone();
    let mut slices = 0;
    while heap.collect_slice() {
        slices += 1;
        if slices == 20 {
            later.take();
        }
        // Takes the ring apart and puts it together again, all the while.
        let next = at.next.take().unwrap();
        at.others.borrow_mut().push(next);
        let next = at.others.borrow_mut().pop().unwrap();
        at.next.set(Some(next.clone()));
        at = next;
        drop(node(&heap));
    }
    assert!(!heap.is_collecting());
    assert!(slices > 100, "{slices}");
    let [start, end] = events.take().try_into().unwrap();
    assert_eq!(
        (start.generation, end.generation),
        (Generation::Old, Generation::Old)
    );
    assert!(end.collected >= 1000, "{}", end.collected);
    assert!(heap.stats().generations[2].pauses.count() > slices);
    assert_eq!(heap.stats().whole.count(), 0);
    heap.collect(Generation::Old);
    assert_eq!(heap.stats().live_objects, 1000);
    let mut length = 1;
    let mut at = held.next.get().unwrap();
    while !Gc::same(&at, &held) {
        at = at.next.get().unwrap();
        length += 1;
    }
    assert_eq!(length, 1000);
}

/// Moving a handle changes no count: the collector knows of it by the cells alone.
#[test]
fn what_is_moved_about_during_a_collection_survives_it() {
    // How handles are moved: out of where, and to where.
    type Move = fn(&Gc<Node>, &Gc<Node>) -> Option<Gc<Node>>;
    let moves: [(&str, Move); 4] = [
        ("out of a link", |from, _| from.next.take()),
        ("out of a cell", |from, _| from.others.borrow_mut().pop()),
        ("from a link to a cell", |from, to| {
            to.others.borrow_mut().extend(from.next.take());
            None
        }),
        ("from a cell to a link", |from, to| {
            to.next.set(from.others.borrow_mut().pop());
            None
        }),
    ];
    for (what, moved) in moves {
        for slices in 0..30 {
            let heap = Heap::with(Options {
                slice: Duration::ZERO,
                ..Options::default()
            });
            heap.disable();
            // Each holder holds two objects, one of them by its link.
            let holders: Vec<_> = (0..40).map(|_| node(&heap)).collect();
            for holder in &holders {
                holder.next.set(Some(node(&heap)));
                holder.others.borrow_mut().push(node(&heap));
                touch(holder);
            }
            heap.start_collection();
            for _ in 0..slices {
                heap.collect_slice();
            }
            let mut kept = Vec::new();
            // Forwards and backwards in the order in which the collector looks at them.
            for (from, to) in (0..10).zip(20..30).chain((30..40).zip(10..20)) {
                // What is there already would be let go of.
                kept.extend(holders[to].next.take());
                kept.extend(moved(&holders[from], &holders[to]));
            }
            while heap.collect_slice() {}
            heap.collect(Generation::Old);
            assert_eq!(heap.stats().live_objects, 120, "{what} after {slices}");
            assert!(kept.iter().all(|of| Gc::count(of) == 1));
        }
    }
}

#[test]
fn a_collection_because_memory_is_short_is_whole_and_says_so() {
    let heap = manual();
    let totals = Arc::new(Totals::default());
    heap.publish_to(&totals);
    let (events, _) = record(&heap);
    garbage(&heap);
    heap.start_collection();
    heap.collect_slice();
    garbage(&heap);
    assert!(heap.collect_critical() >= 2);
    assert!(!heap.is_collecting());
    assert_eq!(heap.stats().live_objects, 0);
    let last = events.borrow().last().copied().unwrap();
    assert_eq!((last.cause, last.ended), (Cause::Critical, true));
    assert_eq!(heap.stats().whole.count(), 1);
    heap.publish();
    assert_eq!(totals.now().whole_collections, 1);
}
