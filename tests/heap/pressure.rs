//! Memory pressure: what was allocated is given back, a limit refuses and never
//! aborts, and what all heaps hold can be read from outside.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use filed::heap::{
    Cause, External, Gc, GcCell, Generation, Heap, HeapFull, Link, Options, Pool, Totals, Trim,
    TrimCursor, Trimmed, malloc, traced,
};

use crate::alone;

const MIB: u64 = 1 << 20;
/// What the system and the allocator keep for themselves, besides the heap.
const SLACK: i64 = 4 << 20;

traced! {
    /// 112 bytes with what the heap adds.
    struct Node { next: Link<Node>, bulk: [u64; 11] }

    struct Holder { bulk: External<Vec<u8>>, next: Link<Holder> }
}

fn node(heap: &Heap) -> Result<Gc<Node>, HeapFull> {
    let (next, bulk) = (Link::none(), [1; 11]);
    heap.alloc(Node { next, bulk })
}

fn resident(heap: &Heap) -> i64 {
    let resident = heap.snapshot("now").resident_bytes;
    resident.expect("the system says").cast_signed()
}

/// Rings of a thousand nodes, all held by the one handle to the last.
fn graph(heap: &Heap, bytes: u64) -> Vec<Gc<Node>> {
    let mut rings = Vec::new();
    for _ in 0..bytes / 112 / 1000 {
        let last = node(heap).expect("no limit is set");
        let mut first = last.clone();
        for _ in 1..1000 {
            let before = node(heap).expect("no limit is set");
            before.next.set(Some(first));
            first = before;
        }
        last.next.set(Some(first));
        rings.push(last);
    }
    rings
}

#[test]
fn memory_is_back_after_graphs_of_50_100_200_and_500_megabytes() {
    if cfg!(filed_asan) {
        // A sanitizer keeps what was freed, for a while.
        return;
    }
    alone(
        "pressure::memory_is_back_after_graphs_of_50_100_200_and_500_megabytes",
        || {
            let heap = Heap::new();
            let start = resident(&heap);
            for megabytes in [50, 100, 200, 500] {
                let bytes = megabytes * MIB;
                let graph = graph(&heap, bytes);
                let grown = resident(&heap) - start;
                assert!(grown > bytes.cast_signed() - SLACK, "{grown} of {bytes}");
                assert!(heap.held_bytes() >= bytes / 10 * 9);
                let live = heap.stats().live_objects;
                drop(graph);
                // Held by its own cycles: counting alone does not free it.
                assert_eq!(heap.stats().live_objects, live);
                assert_eq!(heap.collect_critical(), live);
                let trimmed = heap.trim(Trim::All, Instant::now());
                assert_eq!(heap.held_bytes(), 0);
                assert!(trimmed.returned_bytes >= bytes / 100 * 95, "{trimmed:?}");
                assert!(
                    trimmed.unmapped_segments as u64 >= megabytes / 5,
                    "{trimmed:?}"
                );
                assert_eq!(heap.overhead_bytes(), 0);
                let kept = resident(&heap) - start;
                assert!(kept < SLACK, "{kept} after {megabytes} MB");
            }
        },
    );
}

#[test]
fn memory_is_back_after_buffers_of_50_100_200_and_500_megabytes() {
    if cfg!(filed_asan) {
        // A sanitizer keeps what was freed, for a while.
        return;
    }
    traced! {
        struct Chunk { buffer: External<filed::heap::Buffer> }
    }
    alone(
        "pressure::memory_is_back_after_buffers_of_50_100_200_and_500_megabytes",
        || {
            let heap = Heap::new();
            let pool = Pool::new(600 * MIB);
            let account = pool.account("chunks");
            let start = resident(&heap);
            for megabytes in [50, 100, 200, 500] {
                let chunks: Vec<_> = (0..megabytes)
                    .map(|at| {
                        let mut buffer = account.take(MIB as usize).unwrap();
                        buffer.fill(at as u8);
                        let buffer = External::new(&heap, buffer).unwrap();
                        heap.alloc(Chunk { buffer }).unwrap()
                    })
                    .collect();
                assert_eq!(heap.stats().external_bytes, megabytes * MIB);
                assert_eq!(chunks[3].buffer[0], 3);
                let grown = resident(&heap) - start;
                let bytes = (megabytes * MIB).cast_signed();
                assert!(grown > bytes - SLACK, "{grown} of {bytes}");
                drop(chunks);
                assert_eq!(heap.stats().external_bytes, 0);
                let trimmed = pool.trim(Trim::All, Instant::now());
                assert_eq!(trimmed.returned_bytes, megabytes * MIB);
                let kept = resident(&heap) - start;
                assert!(kept < SLACK, "{kept} after {megabytes} MB");
            }
        },
    );
}

/// Unconfigured, glibc takes the second block from an arena, because freeing the first raises
/// the threshold, and it would stay there.
#[test]
fn freed_large_blocks_do_not_stay_in_the_arenas() {
    const BLOCK_BYTES: usize = 16 << 20;
    alone(
        "pressure::freed_large_blocks_do_not_stay_in_the_arenas",
        || {
            for _ in 0..3 {
                drop(std::hint::black_box(vec![1_u8; BLOCK_BYTES]));
            }
            let idle_bytes = malloc::idle_bytes();
            assert!(idle_bytes < BLOCK_BYTES as u64 / 2, "{idle_bytes}");
        },
    );
}

#[test]
fn free_pages_are_given_back_although_one_object_in_a_thousand_stays() {
    let heap = Heap::new();
    let mut nodes: Vec<_> = (0..500_000).map(|_| node(&heap).unwrap()).collect();
    let bytes = heap.stats().live_bytes;
    let mut at = 0;
    nodes.retain(|_| {
        at += 1;
        at % 1000 == 0
    });
    let trimmed = heap.trim(Trim::All, Instant::now());
    let returned = trimmed.returned_bytes as f64 / bytes as f64;
    assert!(returned >= 0.85, "{returned}");
    assert_eq!(nodes.len(), 500);
    assert!(nodes.iter().all(|of| of.bulk == [1; 11]));
    // The holes are used again.
    let held = heap.held_bytes();
    nodes.extend((0..250_000).map(|_| node(&heap).unwrap()));
    assert_eq!(heap.held_bytes(), held);
    assert!(nodes.iter().all(|of| of.bulk == [1; 11]));
}

#[test]
fn a_trim_in_slices_gives_back_as_much_as_one_at_once() {
    let heap = Heap::new();
    let bytes = 40 * MIB;
    drop(graph(&heap, bytes));
    heap.collect_critical();
    let (mut cursor, mut trimmed) = (TrimCursor::default(), Trimmed::default());
    let mut slices = 1;
    let mut before = 0;
    while !heap.trim_slice(
        Trim::All,
        Instant::now(),
        Duration::ZERO,
        &mut cursor,
        &mut trimmed,
    ) {
        // No slice does more than one segment.
        assert!(trimmed.returned_bytes - before <= 4 * MIB);
        before = trimmed.returned_bytes;
        slices += 1;
    }
    assert!(slices >= bytes / (4 * MIB), "{slices}");
    assert!(trimmed.returned_bytes >= bytes / 100 * 95, "{trimmed:?}");
    assert_eq!(heap.stats().trimmed_bytes, trimmed.returned_bytes);
    assert_eq!(heap.trim(Trim::All, Instant::now()), Trimmed::default());
}

#[test]
fn pages_are_kept_until_they_were_idle_for_so_long() {
    let heap = Heap::new();
    let start = Instant::now();
    let idle = Trim::IdleSince(Duration::from_secs(1));
    let trim_at = |millis| {
        let now = start + Duration::from_millis(millis);
        heap.trim(idle, now).returned_bytes
    };
    let nodes = |count: u64| -> Vec<_> { (0..count).map(|_| node(&heap).unwrap()).collect() };
    drop(nodes(10_000));
    // The first only looks.
    assert_eq!(trim_at(0), 0);
    assert_eq!(trim_at(900), 0);
    let first = trim_at(1000);
    assert!(first > MIB);
    drop(nodes(10_000));
    // Idle since then, whoever looked in between.
    assert_eq!(trim_at(1900), 0);
    assert_eq!(trim_at(2000), 0);
    // Used again: they begin anew.
    drop(nodes(10_000));
    assert_eq!(trim_at(3000), 0);
    assert_eq!(trim_at(4000), first);
    assert_eq!(trim_at(5000), 0);
}

fn limited(limit: u64) -> Heap {
    Heap::with(Options {
        limit_bytes: Some(limit),
        ..Options::default()
    })
}

#[test]
fn a_heap_over_its_limit_refuses_and_goes_on() {
    let heap = limited(4 * MIB);
    let mut nodes = Vec::new();
    let full = loop {
        match node(&heap) {
            Ok(node) => nodes.push(node),
            Err(full) => break full,
        }
    };
    assert_eq!(full.limit_bytes, 4 * MIB);
    assert!(full.held_bytes <= full.limit_bytes);
    assert!(full.held_bytes + full.wanted_bytes > full.limit_bytes);
    assert_eq!(full.refused_by_system, None);
    assert!(
        full.to_string()
            .contains("would exceed its limit of 4194304")
    );
    assert!(heap.held_bytes() <= 4 * MIB && heap.stats().peak_bytes <= 4 * MIB);
    assert!(heap.stats().live_bytes > 3 * MIB);
    assert!(node(&heap).is_err());
    assert_eq!(heap.stats().refusals, 2);
    // With room there is no refusal any more.
    nodes.truncate(nodes.len() / 2);
    assert!(node(&heap).is_ok());
    // Nor with a higher limit.
    heap.set_limit(None);
    assert_eq!(heap.options().limit_bytes, None);
    nodes.extend((0..100_000).map(|_| node(&heap).unwrap()));
    heap.set_limit(Some(MIB));
    let held = heap.held_bytes();
    assert!(held > 10 * MIB);
    while node(&heap).map(|node| nodes.push(node)).is_ok() {}
    assert!(heap.held_bytes() <= held);
}

#[test]
fn a_heap_at_its_limit_collects_before_it_refuses() {
    let heap = limited(4 * MIB);
    heap.disable();
    let causes = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let noted = std::rc::Rc::clone(&causes);
    heap.on_collection(move |event| noted.borrow_mut().push(event.cause));
    // Forty times as much garbage as there is room.
    for _ in 0..1_500_000 {
        let node = node(&heap).unwrap();
        node.next.set(Some(node.clone()));
    }
    let causes = causes.take();
    assert!(causes.len() >= 40 && causes.iter().all(|of| *of == Cause::Limit));
    assert_eq!(heap.stats().refusals, 0);
    assert!(heap.stats().peak_bytes <= 4 * MIB);
}

#[test]
fn a_refused_value_is_dropped_and_what_it_held_freed() {
    let heap = limited(MIB);
    let mut kept = Vec::new();
    while let Ok(node) = node(&heap) {
        kept.push(node);
    }
    let first = kept.swap_remove(0);
    assert_eq!(Gc::count(&first), 1);
    // Another size, for which there is no slab.
    traced! {
        struct Big { of: Gc<Node>, bulk: GcCell<[u64; 100]> }
    }
    let bulk = GcCell::new([0; 100]);
    let of = first.clone();
    let refused = heap.alloc(Big { of, bulk });
    assert!(refused.is_err());
    assert_eq!(Gc::count(&first), 1);
    // What is freed gives room for any size.
    kept.clear();
    let bulk = GcCell::new([7; 100]);
    let big = heap.alloc(Big { of: first, bulk }).unwrap();
    assert_eq!((big.of.bulk[0], big.bulk.borrow()[99]), (1, 7));
}

#[test]
fn external_bytes_count_against_the_limit() {
    let heap = limited(4 * MIB);
    let holder = |bytes: u64| {
        let bulk = External::new(&heap, vec![0; bytes as usize])?;
        let next = Link::none();
        heap.alloc(Holder { bulk, next })
    };
    let three = holder(3 * MIB).unwrap();
    assert_eq!(heap.stats().external_bytes, 3 * MIB);
    let census = heap.census();
    assert_eq!(census.of::<Vec<u8>>().external_bytes, 3 * MIB);
    let full = holder(2 * MIB).err().unwrap();
    assert_eq!(full.wanted_bytes, 2 * MIB);
    assert!(full.held_bytes >= 3 * MIB);
    drop(three);
    assert_eq!(heap.stats().external_bytes, 0);
    // A cycle that holds bulk is collected when the room is wanted.
    let cycle = holder(3 * MIB).unwrap();
    cycle.next.set(Some(cycle.clone()));
    drop(cycle);
    let two = holder(2 * MIB).unwrap();
    assert_eq!(heap.stats().external_bytes, 2 * MIB);
    assert_eq!(two.bulk.len() as u64, 2 * MIB);
    assert_eq!(heap.stats().refusals, 1);
}

#[test]
fn external_bytes_follow_the_value() {
    let heap = Heap::new();
    let mut text = External::new(&heap, String::new()).unwrap();
    assert_eq!(
        (External::bytes(&text), heap.stats().external_bytes),
        (0, 0)
    );
    External::update(&mut text, |text| text.push_str(&"a".repeat(1000)));
    let capacity = text.capacity() as u64;
    assert!(capacity >= 1000);
    assert_eq!(heap.stats().external_bytes, capacity);
    assert_eq!(heap.held_bytes(), capacity);
    assert_eq!(heap.census().of::<String>().external_bytes, capacity);
    External::update(&mut text, |text| *text = String::new());
    assert_eq!(heap.stats().external_bytes, 0);
    External::update(&mut text, |text| text.push('b'));
    drop(heap);
    assert_eq!(&**text, "b");
}

#[test]
fn a_type_of_objects_and_of_external_bytes_is_in_the_census_once() {
    let heap = Heap::new();
    let mark = heap.census();
    let _outside = External::new(&heap, String::with_capacity(100)).unwrap();
    let _inside = heap.alloc(String::new()).unwrap();
    let census = heap.census();
    assert_eq!(census.types().len(), 1);
    let of = census.of::<String>();
    assert_eq!((of.objects, of.external_bytes), (1, 100));
    let growth = census.growth_since(&mark);
    assert_eq!((growth.len(), growth[0].objects), (1, 1));
    assert_eq!(growth[0].bytes.cast_unsigned(), of.bytes + 100);
}

/// Garbage is counted with what it holds outside, or a few small objects could
/// keep any amount of memory.
#[test]
fn external_bytes_start_collections() {
    let heap = Heap::with(Options {
        slice: Duration::MAX,
        longest_young: Duration::MAX,
        ..Options::default()
    });
    for _ in 0..400 {
        let bulk = External::new(&heap, vec![0; MIB as usize]).unwrap();
        let next = Link::none();
        let holder = heap.alloc(Holder { bulk, next }).unwrap();
        holder.next.set(Some(holder.clone()));
        // Old when it is let go, so that only the bound on garbage leads to it.
        for generation in [Generation::Young, Generation::Middle] {
            drop(holder.clone());
            heap.collect(generation);
        }
        assert_eq!(Gc::generation(&holder), 2);
        drop(holder);
        let stats = heap.stats();
        assert!(stats.external_bytes <= stats.garbage_bound_bytes + MIB);
    }
    assert!(heap.stats().generations[2].collections > 10);
}

#[test]
fn totals_of_all_heaps_can_be_read_from_another_thread() {
    let totals = Arc::new(Totals::default());
    let (asks, answers) = (mpsc::channel::<u64>(), mpsc::channel::<()>());
    let theirs = Arc::clone(&totals);
    let worker = std::thread::spawn(move || {
        let heap = Heap::new();
        heap.publish_to(&theirs);
        let mut nodes = Vec::new();
        // Each question is for so many objects; at the end of the questions the heap goes.
        while let Ok(objects) = asks.1.recv() {
            nodes.truncate(objects as usize);
            while (nodes.len() as u64) < objects {
                nodes.push(node(&heap).unwrap());
            }
            heap.collect_critical();
            heap.safe_point();
            answers.0.send(()).unwrap();
        }
    });
    let mine = Heap::new();
    let number = mine.alloc(1_u64).unwrap();
    mine.publish_to(&totals);
    for (round, objects) in (1..).zip([1000, 5000, 10]) {
        asks.0.send(objects).unwrap();
        answers.1.recv().unwrap();
        let now = totals.now();
        assert_eq!(now.live_objects, objects + 1);
        assert_eq!(now.live_bytes, objects * 112 + 16);
        assert!(now.held_bytes >= now.live_bytes);
        assert_eq!((now.whole_collections, now.collections[2]), (round, round));
        assert!(now.total_pause >= now.longest_pause && now.longest_pause > Duration::ZERO);
    }
    drop(asks.0);
    worker.join().unwrap();
    // A heap that has ended holds nothing any more; what it did stays counted.
    let now = totals.now();
    assert_eq!((now.live_objects, now.live_bytes), (1, 16));
    assert!(now.collections[2] >= 3);
    drop((mine, number));
    assert_eq!(totals.now().live_objects, 0);
}

#[test]
fn what_a_heap_did_last_is_in_the_totals() {
    let totals = Arc::new(Totals::default());
    let heap = Heap::new();
    heap.publish_to(&totals);
    let node = node(&heap).unwrap();
    node.next.set(Some(node.clone()));
    drop(node);
    assert_eq!(totals.now().collected, 0);
    drop(heap);
    // By the collection at its end.
    assert_eq!(
        (totals.now().collected, totals.now().collections[2]),
        (1, 1)
    );
    assert_eq!((totals.now().live_objects, totals.now().held_bytes), (0, 0));
}
