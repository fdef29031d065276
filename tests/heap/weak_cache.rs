//! Weak against strong: a cache of weak references keeps nothing alive, costs
//! no allocation per reference, and forgets what is dead.

use std::collections::HashMap;

use filed::heap::{Gc, Generation, Heap, Link, Options, Trim, Weak, WeakMap, traced};
use std::time::Instant;

use crate::Log;

traced! {
    struct Document { id: u64, body: [u64; 16], related: Link<Document> }
}

fn document(heap: &Heap, id: u64) -> Gc<Document> {
    let (body, related) = ([id; 16], Link::none());
    heap.alloc(Document { id, body, related })
        .expect("no limit is set")
}

#[test]
fn a_strong_cache_keeps_everything_and_a_weak_one_what_is_in_use() {
    let heap = Heap::new();
    let mut strong = HashMap::new();
    let mut weak = WeakMap::new();
    let mut in_use = Vec::new();
    for id in 0..1000 {
        let (one, other) = (document(&heap, id), document(&heap, id));
        weak.insert(id, &other);
        if id % 10 == 0 {
            in_use.push(other);
        }
        strong.insert(id, one);
    }
    assert_eq!(heap.stats().live_objects, 1000 + 100);
    assert_eq!((strong.len(), weak.live()), (1000, 100));
    assert_eq!(weak.get(&10).unwrap().body[3], 10);
    assert!(weak.get(&11).is_none() && strong.contains_key(&11));
    in_use.clear();
    assert_eq!((weak.live(), strong.len()), (0, 1000));
    strong.clear();
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_weak_map_counts_accesses_and_forgets_them_with_the_object() {
    let heap = Heap::new();
    let mut map = WeakMap::new();
    let (one, two) = (document(&heap, 1), document(&heap, 2));
    assert!(map.insert("one", &one).is_none());
    assert!(map.insert("two", &two).is_none());
    assert_eq!(map.accesses(&"one"), Some(0));
    for _ in 0..3 {
        assert_eq!(map.get(&"one").unwrap().id, 1);
    }
    assert!(map.get(&"two").is_some() && map.get(&"three").is_none());
    assert_eq!(
        (map.accesses(&"one"), map.accesses(&"two")),
        (Some(3), Some(1))
    );
    assert!(map.contains(&"one") && !map.contains(&"three"));
    drop(one);
    assert!(map.get(&"one").is_none());
    assert_eq!(map.accesses(&"one"), None);
    assert_eq!((map.entries(), map.live()), (2, 1));
    assert_eq!((map.clean(), map.clean()), (1, 0));
    assert_eq!(map.entries(), 1);
    let stats = map.stats();
    assert_eq!((stats.inserted, stats.cleaned), (2, 1));
    assert_eq!((stats.hits, stats.misses), (4, 2));
    let alive: Vec<_> = map.iter().map(|(key, of)| (*key, of.id)).collect();
    assert_eq!(alive, [("two", 2)]);
}

#[test]
fn what_is_replaced_or_removed_is_given_back_if_it_lives() {
    let heap = Heap::new();
    let mut map = WeakMap::new();
    let (one, two) = (document(&heap, 1), document(&heap, 2));
    map.insert(7, &one);
    map.get(&7).unwrap();
    let before = map.insert(7, &two).unwrap();
    assert!(Gc::same(&before, &one));
    // The count is of the object and not of the key.
    assert_eq!(map.accesses(&7), Some(0));
    assert!(Gc::same(&map.remove(&7).unwrap(), &two));
    assert!(map.remove(&7).is_none());
    map.insert(7, &two);
    drop(two);
    assert!(map.insert(7, &one).is_none());
}

#[test]
fn a_weak_map_cleans_itself_up_while_it_is_used() {
    let heap = Heap::new();
    let mut map = WeakMap::new();
    let kept: Vec<_> = (0..50).map(|id| document(&heap, id)).collect();
    for of in &kept {
        map.insert(of.id, of);
    }
    for id in 50..100_000 {
        map.insert(id, &document(&heap, id));
        assert!(map.entries() <= 128, "{}", map.entries());
    }
    assert_eq!(map.live(), 50);
    assert!(map.stats().cleaned > 99_000);
}

#[test]
fn an_object_in_a_cycle_leaves_the_map_with_its_collection() {
    let heap = Heap::new();
    let mut map = WeakMap::new();
    let one = document(&heap, 1);
    one.related.set(Some(one.clone()));
    map.insert(1, &one);
    drop(one);
    // Until then it can be had back.
    let back = map.get(&1).unwrap();
    assert_eq!(back.id, 1);
    drop(back);
    assert_eq!(heap.collect(Generation::Young), 1);
    assert!(map.get(&1).is_none());
}

#[test]
fn an_object_had_back_during_a_collection_stays() {
    for slices in 0..200 {
        let heap = Heap::with(Options {
            slice: std::time::Duration::ZERO,
            ..Options::default()
        });
        heap.disable();
        let weak: Vec<Weak<Document>> = (0..100)
            .map(|id| {
                let (one, two) = (document(&heap, id), document(&heap, id));
                one.related.set(Some(two.clone()));
                two.related.set(Some(one.clone()));
                Gc::downgrade(&one)
            })
            .collect();
        heap.start_collection();
        for _ in 0..slices {
            heap.collect_slice();
        }
        let had_back = weak[50].upgrade();
        while heap.collect_slice() {}
        assert_eq!(weak[50].is_alive(), had_back.is_some());
        if let Some(document) = had_back {
            let other = document.related.get().unwrap();
            assert_eq!((document.body, other.body), ([50; 16], [50; 16]));
            assert!(Gc::same(&other.related.get().unwrap(), &document));
            assert_eq!(heap.stats().live_objects, 2);
        } else {
            assert_eq!(heap.stats().live_objects, 0);
        }
    }
}

#[test]
fn weak_references_cost_no_allocation_each() {
    let heap = Heap::new();
    let documents: Vec<_> = (0..100).map(|id| document(&heap, id)).collect();
    let before = (heap.held_bytes(), heap.overhead_bytes());
    let first: Vec<Weak<Document>> = documents.iter().map(Gc::downgrade).collect();
    let (held, overhead) = (heap.held_bytes(), heap.overhead_bytes());
    // A table beside the slab, eight bytes a slot.
    assert_eq!(held, before.0);
    let slots = (64 << 10) / heap.census().bytes() * heap.census().objects();
    assert!(overhead - before.1 <= 9 * slots, "{overhead} {slots}");
    let more: Vec<Weak<Document>> = (0..100_000).map(|at| first[at % 100].clone()).collect();
    let yet_more: Vec<_> = (0..100_000)
        .map(|at| Gc::downgrade(&documents[at % 100]))
        .collect();
    assert_eq!((heap.held_bytes(), heap.overhead_bytes()), (held, overhead));
    assert_eq!(size_of::<Weak<Document>>(), 16);
    assert!(more.iter().zip(&yet_more).all(|(one, other)| one == other));
    assert_eq!(Gc::count(&documents[0]), 1);
    drop(documents);
    assert!(more.iter().all(|weak| weak.upgrade().is_none()));
}

#[test]
fn a_weak_reference_is_dead_even_if_another_object_is_in_its_place() {
    let heap = Heap::new();
    let mut seen = Vec::new();
    for id in 0..1000 {
        let document = document(&heap, id);
        seen.push((Gc::address(&document), Gc::downgrade(&document)));
    }
    let again: Vec<_> = (0..1000).map(|id| document(&heap, id)).collect();
    let place = Gc::address(&again[0]);
    assert!(seen.iter().any(|(address, _)| *address == place));
    assert!(seen.iter().all(|(_, weak)| !weak.is_alive()));
    let fresh = Gc::downgrade(&again[0]);
    assert!(seen.iter().all(|(_, weak)| *weak != fresh));
}

#[test]
fn a_weak_reference_may_outlive_the_heap() {
    let heap = Heap::new();
    let document = document(&heap, 1);
    let weak = Gc::downgrade(&document);
    drop(heap);
    assert_eq!(weak.upgrade().unwrap().id, 1);
    drop(document);
    assert!(!weak.is_alive() && weak.upgrade().is_none());
    assert!(weak.clone().watch(|| ()).is_none());
}

#[test]
fn memory_is_given_back_although_weak_references_point_there() {
    let heap = Heap::new();
    let documents: Vec<_> = (0..50_000).map(|id| document(&heap, id)).collect();
    let bytes = heap.stats().live_bytes;
    let weak: Vec<_> = documents.iter().map(Gc::downgrade).collect();
    drop(documents);
    let trimmed = heap.trim(Trim::All, Instant::now());
    assert!(trimmed.returned_bytes >= bytes / 100 * 99);
    assert!(weak.iter().all(|weak| !weak.is_alive()));
}

#[test]
fn a_watch_calls_back_when_the_object_dies() {
    let (heap, log) = (Heap::new(), Log::default());
    let one = document(&heap, 1);
    let weak = Gc::downgrade(&one);
    let say = |text: &'static str| {
        let log = log.clone();
        move || log.say(text)
    };
    let _first = weak.watch(say("first")).unwrap();
    let _second = weak.watch(say("second")).unwrap();
    let cancelled = weak.watch(say("cancelled")).unwrap();
    drop(cancelled);
    assert!(log.take().is_empty());
    // Nothing more is to be had of the object when it is called.
    let (observer, seen) = (weak.clone(), log.clone());
    let _third = weak.watch(move || seen.say(format!("alive: {}", observer.is_alive())));
    drop(one);
    assert_eq!(log.take(), ["first", "second", "alive: false"]);
    assert!(weak.watch(say("late")).is_none());
    let two = document(&heap, 2);
    drop(two);
    assert!(log.take().is_empty());
}
