//! Tuning: thresholds are set, each generation is collected, and all is as it
//! was before.

use filed::heap::{Gc, Generation, Heap, Link, traced};

use crate::unhurried;

traced! {
    struct Node { next: Link<Node> }
}

/// A cycle of one that nobody holds.
fn garbage(heap: &Heap) {
    let node = heap
        .alloc(Node { next: Link::none() })
        .expect("no limit is set");
    node.next.set(Some(node.clone()));
}

#[test]
fn thresholds_are_set_and_restored() {
    let heap = unhurried();
    let before = heap.thresholds();
    assert_eq!(before, (700, 10, 10));
    heap.set_thresholds(1000, 15, 20);
    assert_eq!(heap.thresholds(), (1000, 15, 20));
    for generation in Generation::ALL {
        garbage(&heap);
        assert_eq!(heap.collect(generation), 1);
    }
    let (young, middle, old) = before;
    heap.set_thresholds(young, middle, old);
    assert_eq!(heap.thresholds(), before);
    let collections = heap.stats().generations.map(|of| of.collections);
    assert_eq!(collections, [1, 1, 1]);
}

#[test]
fn a_collection_starts_with_the_object_beyond_the_threshold() {
    let heap = unhurried();
    heap.set_thresholds(50, 10, 10);
    for _ in 0..50 {
        garbage(&heap);
    }
    assert_eq!(heap.stats().live_objects, 50);
    garbage(&heap);
    assert_eq!(heap.stats().generations[0].collected, 50);
    assert_eq!(heap.stats().live_objects, 1);
}

#[test]
fn the_middle_threshold_says_how_many_young_collections_make_one_of_the_middle() {
    for (middle, expected) in [(1, 2), (4, 5)] {
        let heap = unhurried();
        heap.set_thresholds(10, middle, 10);
        while heap.stats().generations[1].collections == 0 {
            garbage(&heap);
        }
        assert_eq!(heap.stats().generations[0].collections, expected);
    }
}

#[test]
fn a_threshold_of_zero_turns_automatic_collection_off() {
    let heap = unhurried();
    heap.set_thresholds(0, 10, 10);
    for _ in 0..10_000 {
        garbage(&heap);
    }
    assert_eq!(heap.stats().live_objects, 10_000);
    assert!(heap.is_enabled());
    heap.set_thresholds(700, 0, 10);
    for _ in 0..10_000 {
        garbage(&heap);
    }
    let stats = heap.stats();
    assert!(stats.generations[0].collections > 10);
    assert_eq!(stats.generations[1].collections, 0);
}

#[test]
fn disabled_nothing_is_collected_but_what_is_asked_for() {
    let heap = unhurried();
    assert!(heap.is_enabled());
    heap.disable();
    assert!(!heap.is_enabled());
    for _ in 0..10_000 {
        garbage(&heap);
    }
    heap.safe_point();
    assert_eq!(heap.stats().live_objects, 10_000);
    assert_eq!(heap.collect(Generation::Young), 10_000);
    heap.enable();
    assert!(heap.is_enabled());
    for _ in 0..10_000 {
        garbage(&heap);
    }
    assert!(heap.stats().live_objects <= 701);
}

/// As PHP does: looking where there is nothing to be found is put off.
#[test]
fn collections_that_find_nothing_become_rare_until_one_finds_something() {
    let heap = unhurried();
    heap.set_thresholds(100, 0, 0);
    let mut kept: Vec<Gc<Node>> = Vec::new();
    for _ in 0..20_000 {
        kept.push(heap.alloc(Node { next: Link::none() }).unwrap());
        drop(kept[kept.len() - 1].clone());
    }
    let fruitless = heap.stats().generations[0].collections;
    assert!(fruitless <= 10, "{fruitless}");
    for _ in 0..20_000 {
        garbage(&heap);
    }
    let fruitful = heap.stats().generations[0].collections - fruitless;
    assert!(fruitful >= 100, "{fruitful}");
    assert_eq!(kept.len(), 20_000);
}
