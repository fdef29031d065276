//! Batches: automatic collection is off while one runs, and the result is the
//! same as with it on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use filed::heap::{Batch, Gc, GcCell, Generation, Heap, Link, traced};

use crate::unhurried;

traced! {
    struct Record { id: u64, value: u64, relations: GcCell<Vec<Gc<Record>>>, owner: Link<Record> }
}

/// Makes records that refer to each other in cycles, keeps every 100th, and adds something up.
fn process(heap: &Heap, records: u64) -> (u64, Vec<Gc<Record>>) {
    let mut sum = 0;
    let mut kept = Vec::new();
    for id in 0..records {
        let record = |id: u64, owner| {
            let (value, relations) = (id * id % 97, GcCell::default());
            let record = Record {
                id,
                value,
                relations,
                owner,
            };
            heap.alloc(record).expect("no limit is set")
        };
        let one = record(id, Link::none());
        let other = record(id + 1, Link::to(one.clone()));
        one.relations.borrow_mut().push(other);
        let related = one.relations.borrow();
        sum += related.iter().map(|of| of.value + of.id).sum::<u64>() + one.value;
        drop(related);
        if id % 100 == 0 {
            kept.push(one);
        }
    }
    (sum, kept)
}

fn ids(records: &[Gc<Record>]) -> Vec<u64> {
    records.iter().map(|of| of.id).collect()
}

fn passes(heap: &Heap) -> u64 {
    heap.stats()
        .generations
        .iter()
        .map(|of| of.collections)
        .sum()
}

#[test]
fn a_batch_has_the_same_result_as_without_one() {
    const RECORDS: u64 = 20_000;
    let heap = unhurried();
    let (expected, kept) = process(&heap, RECORDS);
    heap.collect(Generation::Old);
    let live = heap.stats().live_objects;
    assert!(heap.stats().generations[0].collections > 10);

    let other = unhurried();
    let (found, kept_in_batch) = {
        let _batch = other.batch();
        let before = passes(&other);
        let result = process(&other, RECORDS);
        // Nothing was collected, so all of it is there.
        assert_eq!(passes(&other), before);
        assert_eq!(other.stats().live_objects, 2 * RECORDS);
        result
    };
    assert_eq!(found, expected);
    assert_eq!(ids(&kept_in_batch), ids(&kept));
    assert_eq!(other.stats().live_objects, live);
    assert_eq!(live, 2 * RECORDS / 100);
}

#[test]
fn a_batch_collects_before_and_after() {
    let heap = unhurried();
    process(&heap, 100);
    let batch = heap.batch();
    assert_eq!(heap.stats().live_objects, 0);
    assert!(!heap.is_enabled());
    process(&heap, 100);
    assert_eq!(heap.stats().live_objects, 200);
    drop(batch);
    assert_eq!(heap.stats().live_objects, 0);
    assert!(heap.is_enabled());
    assert_eq!(heap.stats().generations[2].collections, 2);
}

#[test]
fn of_nested_batches_the_outermost_counts() {
    let heap = unhurried();
    let outer = heap.batch();
    let inner = heap.batch();
    process(&heap, 10);
    drop(inner);
    assert!(!heap.is_enabled());
    assert_eq!(heap.stats().live_objects, 20);
    assert_eq!(passes(&heap), 1);
    drop(outer);
    assert!(heap.is_enabled());
    assert_eq!((heap.stats().live_objects, passes(&heap)), (0, 2));
}

#[test]
fn a_batch_leaves_collection_off_where_it_was_off() {
    let heap = unhurried();
    heap.disable();
    drop(heap.batch());
    assert!(!heap.is_enabled());
}

#[test]
fn a_batch_ends_by_a_panic_too() {
    let heap = unhurried();
    let panics = || {
        let _outer: Batch = heap.batch();
        let _inner = heap.batch();
        process(&heap, 10);
        panic!("work of the test");
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert!(heap.is_enabled());
    assert_eq!(heap.stats().live_objects, 0);
    process(&heap, 10_000);
    assert!(heap.stats().live_objects <= 701);
}
