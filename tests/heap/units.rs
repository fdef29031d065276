//! Collections between units of work: generation 0 after each, 1 after every
//! 10th, 2 after every 100th, in slices.
//!
//! A request makes 100 records with 5 relations each and lets go of them, with
//! cycles between them or without, beside a heap of objects that stay.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use filed::heap::{Cause, Gc, GcCell, Generation, Heap, Link, Options, Units, traced};

use crate::unhurried;

traced! {
    struct Record { id: u64, relations: GcCell<Vec<Gc<Relation>>> }

    struct Relation { weight: u64, from: Link<Record>, to: Gc<Record> }

    /// What stays: a tree whose nodes know their parents.
    struct Kept { parent: Link<Kept>, children: GcCell<Vec<Gc<Kept>>> }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cycles {
    Yes,
    No,
}

const RECORDS: u64 = 100;
const RELATIONS: u64 = 5;
const OBJECTS: u64 = RECORDS * (1 + RELATIONS);

/// Answers a request with the sum of the weights of its relations.
fn request(heap: &Heap, cycles: Cycles) -> u64 {
    let mut records: Vec<Gc<Record>> = Vec::new();
    for id in 0..RECORDS {
        let relations = GcCell::default();
        let record = heap.alloc(Record { id, relations });
        let record = record.expect("no limit is set");
        for weight in 0..RELATIONS {
            // Without cycles a relation leads to an earlier record only.
            let to = records.get((id * weight) as usize / 5).unwrap_or(&record);
            if cycles == Cycles::No && Gc::same(to, &record) {
                continue;
            }
            let from = match cycles {
                Cycles::Yes => Link::to(record.clone()),
                Cycles::No => Link::none(),
            };
            let to = to.clone();
            let relation = heap.alloc(Relation { weight, from, to });
            let relation = relation.expect("no limit is set");
            record.relations.borrow_mut().push(relation);
        }
        records.push(record);
    }
    let relations = records.iter().flat_map(|of| of.relations.borrow().clone());
    relations.map(|of| of.weight + of.to.id / RECORDS).sum()
}

/// A tree of so many objects, each of which the collector has to look at.
fn keep(heap: &Heap, objects: usize) -> Vec<Gc<Kept>> {
    let mut kept: Vec<Gc<Kept>> = Vec::new();
    for at in 0..objects {
        let parent = kept.get(at / 4).cloned();
        let link = Link::none();
        link.set(parent.clone());
        let children = GcCell::default();
        let object = heap.alloc(Kept {
            parent: link,
            children,
        });
        let object = object.expect("no limit is set");
        if let Some(parent) = parent {
            parent.children.borrow_mut().push(object.clone());
        }
        kept.push(object);
    }
    kept
}

fn serve(heap: &Heap, requests: u64, cycles: Cycles, mut check: impl FnMut(&Units)) -> Units {
    let mut units = heap.units();
    for _ in 0..requests {
        let unit = units.unit();
        let sum = request(heap, cycles);
        assert!(sum > 0);
        drop(unit);
        check(&units);
    }
    units
}

#[test]
fn after_two_thousand_requests_nothing_is_left_of_them() {
    for cycles in [Cycles::No, Cycles::Yes] {
        let heap = Heap::new();
        let kept = keep(&heap, 100_000);
        let mut most = 0;
        let units = serve(&heap, 2000, cycles, |_| {
            most = heap.stats().live_objects.max(most);
        });
        // What the incremental collection has in hand is taken apart by later slices.
        let garbage = most - kept.len() as u64;
        assert!(garbage <= 400 * OBJECTS, "{garbage}");
        while heap.collect_slice() {}
        drop(units);
        heap.collect(Generation::Old);
        assert_eq!(heap.stats().live_objects, 100_000);
        let tree: u64 = kept
            .iter()
            .map(|of| of.children.borrow().len() as u64)
            .sum();
        assert_eq!(tree, 99_999);
        assert!(kept[0].parent.is_none() && !kept[1].parent.is_none());
    }
}

#[test]
fn generations_are_collected_after_each_tenth_and_hundredth_unit() {
    let heap = unhurried();
    let kept = keep(&heap, 1000);
    let before = heap.stats().generations.map(|of| of.collections);
    let units = serve(&heap, 2000, Cycles::Yes, |units| {
        let live = heap.stats().live_objects;
        assert_eq!(live, kept.len() as u64, "after {}", units.count());
    });
    let stats = heap.stats();
    let collections = stats.generations.each_ref().map(|of| of.collections);
    let since = [0, 1, 2].map(|at| collections[at] - before[at]);
    assert_eq!(since, [2000 - 200, 200 - 20, 20]);
    assert_eq!(units.count(), 2000);
    // Every hundredth is incremental too: nothing was collected as a whole.
    assert_eq!(stats.whole.count(), 0);
}

#[test]
fn the_rhythm_can_be_chosen() {
    let heap = unhurried();
    let mut units = heap.units().every(2, 0);
    for _ in 0..10 {
        let _unit = units.unit();
        request(&heap, Cycles::Yes);
    }
    let collections = heap.stats().generations.map(|of| of.collections);
    assert_eq!(collections, [5, 5, 0]);
}

#[test]
fn the_pauses_between_units_are_known() {
    let heap = Heap::new();
    let units = serve(&heap, 200, Cycles::Yes, |_| ());
    let pauses = units.pauses();
    assert_eq!((units.count(), pauses.count()), (200, 200));
    assert!(pauses.total() >= pauses.longest() && pauses.longest() >= pauses.average());
    assert!(pauses.average() > Duration::ZERO);
    assert!(pauses.quantile(0.99) <= pauses.longest());
    // They are more than the collections alone, which the heap counts.
    assert!(pauses.total() >= heap.stats().generations[0].pauses.total());
}

#[test]
fn no_collection_disturbs_a_unit() {
    let heap = unhurried();
    let mut units = heap.units();
    assert!(!heap.is_enabled());
    let unit = units.unit();
    for _ in 0..10 {
        request(&heap, Cycles::Yes);
    }
    assert_eq!(heap.stats().live_objects, 10 * OBJECTS);
    let events = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let noted = std::rc::Rc::clone(&events);
    let id = heap.on_collection(move |event| noted.borrow_mut().push(event.cause));
    drop(unit);
    heap.remove_callback(id);
    assert_eq!(events.take(), [Cause::Unit, Cause::Unit]);
    assert_eq!(heap.stats().live_objects, 0);
    drop(units);
    assert!(heap.is_enabled());
}

#[test]
fn a_unit_ends_by_a_panic_too() {
    let heap = unhurried();
    let mut units = heap.units();
    let panics = || {
        let _unit = units.unit();
        request(&heap, Cycles::Yes);
        panic!("a request of the test");
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(units.count(), 1);
    assert_eq!(heap.stats().live_objects, 0);
}

/// The pass of a unit looks at what the unit left, and not at what stays.
#[test]
fn a_pass_costs_the_same_beside_a_heap_a_hundred_times_as_large() {
    let candidates = |kept: usize| {
        let heap = Heap::with(Options {
            longest_young: Duration::MAX,
            ..Options::default()
        });
        heap.disable();
        let kept = keep(&heap, kept);
        heap.collect(Generation::Old);
        let seen = std::rc::Rc::new(std::cell::Cell::new(0));
        let noted = std::rc::Rc::clone(&seen);
        heap.on_collection(move |event| noted.set(noted.get() + event.candidates));
        let mut units = heap.units().every(0, 0);
        for _ in 0..20 {
            let _unit = units.unit();
            request(&heap, Cycles::Yes);
        }
        assert_eq!(heap.stats().live_objects, kept.len() as u64);
        seen.get()
    };
    let small = candidates(1000);
    assert!(small > 0);
    assert_eq!(candidates(100_000), small);
}

#[test]
fn a_unit_that_makes_very_much_garbage_stays_within_the_bound() {
    traced! {
        struct Large { next: Link<Large>, bulk: [u64; 128] }
    }
    let most_within_a_unit = |enabled: bool| {
        let heap = Heap::with(Options {
            garbage_floor_bytes: 1 << 20,
            slice: Duration::MAX,
            ..Options::default()
        });
        if !enabled {
            heap.disable();
        }
        let mut units = heap.units();
        let _unit = units.unit();
        let mut most = 0;
        for _ in 0..10_000 {
            let (next, bulk) = (Link::none(), [1; 128]);
            let large = heap.alloc(Large { next, bulk }).unwrap();
            large.next.set(Some(large.clone()));
            assert_eq!(large.bulk[0], 1);
            drop(large);
            most = heap.stats().live_bytes.max(most);
        }
        assert_eq!(heap.stats().generations[0].collections, 0);
        (most, heap.stats().garbage_bound_bytes)
    };
    let (most, bound) = most_within_a_unit(true);
    assert!(most <= bound, "{most} of {bound}");
    // Somebody who has turned collection off gets what was asked for.
    let (most, _) = most_within_a_unit(false);
    assert!(most > 10 << 20, "{most}");
}
