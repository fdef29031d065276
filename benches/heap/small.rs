//! Targets 1 and 2: single objects, and the churn of a small heap.

use std::collections::VecDeque;
use std::hint::black_box;
use std::rc::Rc;

use filed::heap::Heap;
use gc_arena::{Arena, Rootable};

use crate::child::Numbers;
use crate::measure::{Random, Run, in_turns, seconds};
use crate::peers::{ArenaNode, Bacon, Counted, Dumpster, Peer, Record, RustCc, put};
use crate::table::{Aim, Table, Unit};

const OBJECTS: u32 = 500_000;
const ROUNDS: usize = 15;
const WAITING: usize = 10_000;

/// Target 1: making and dropping one object, cloning and dropping a handle.
pub(crate) fn making(table: &mut Table, python: &Numbers) {
    let heap = Heap::new();
    let record = || Record { fields: [1, 2, 3] };
    let [ours, counted] = in_turns(
        ROUNDS,
        [
            each(|_| drop(black_box(put(&heap, record())))),
            each(|_| drop(black_box(Rc::new(record())))),
        ],
    );
    let what = "alloc + drop, acyclic record";
    table.against(what, Unit::Nanos, &ours, ("Rc", &counted), Aim::Ratio(0.6));
    let slots = ("CPython slots", python.find("alloc_slots"));
    table.against_one(what, Unit::Nanos, &ours, slots, Aim::Seen);

    let [ours, counted, bacon, cc, dumpster, arena] = in_turns(
        ROUNDS,
        [
            nodes(&heap),
            nodes(&Counted),
            nodes(&Bacon),
            nodes(&RustCc),
            nodes(&Dumpster),
            arena_nodes(),
        ],
    );
    let what = "alloc + drop, node of three links";
    table.against(what, Unit::Nanos, &ours, ("Rc", &counted), Aim::Ratio(1.0));
    for (name, theirs) in [
        ("bacon_rajan_cc", &bacon),
        ("rust-cc", &cc),
        ("dumpster", &dumpster),
        ("gc-arena", &arena),
    ] {
        table.against(what, Unit::Nanos, &ours, (name, theirs), Aim::Seen);
    }

    let [ours, counted, bacon, cc, dumpster] = in_turns(
        ROUNDS,
        [
            waiting(&heap),
            waiting(&Counted),
            waiting(&Bacon),
            waiting(&RustCc),
            waiting(&Dumpster),
        ],
    );
    let what = "the same, 10,000 waiting in a queue";
    table.against(what, Unit::Nanos, &ours, ("Rc", &counted), Aim::Ratio(1.0));
    for (name, theirs) in [
        ("bacon_rajan_cc", &bacon),
        ("rust-cc", &cc),
        ("dumpster", &dumpster),
    ] {
        table.against(what, Unit::Nanos, &ours, (name, theirs), Aim::Seen);
    }

    let [ours, counted, bacon, cc, dumpster] = in_turns(
        ROUNDS,
        [
            clones(heap.node(0)),
            clones(Counted.node(0)),
            clones(Bacon.node(0)),
            clones(RustCc.node(0)),
            clones(Dumpster.node(0)),
        ],
    );
    let what = "clone + drop of a handle";
    table.against(what, Unit::Nanos, &ours, ("Rc", &counted), Aim::Ratio(1.5));
    for (name, theirs) in [
        ("bacon_rajan_cc", &bacon),
        ("rust-cc", &cc),
        ("dumpster", &dumpster),
    ] {
        table.against(what, Unit::Nanos, &ours, (name, theirs), Aim::Seen);
    }
}

/// Measures something done many times, per time.
fn each<'a>(mut run: impl FnMut(u64) + 'a) -> Run<'a> {
    Box::new(move || {
        let all = seconds(|| {
            for number in 0..u64::from(OBJECTS) {
                run(number);
            }
        });
        all / f64::from(OBJECTS)
    })
}

fn nodes<P: Peer>(peer: &P) -> Run<'_> {
    each(|number| drop(black_box(peer.node(number))))
}

fn waiting<P: Peer>(peer: &P) -> Run<'_> {
    let mut queue: VecDeque<P::Node> = VecDeque::with_capacity(WAITING);
    each(move |number| {
        if queue.len() == WAITING {
            drop(queue.pop_front());
        }
        queue.push_back(peer.node(number));
    })
}

fn clones<T: Clone + 'static>(handle: T) -> Run<'static> {
    each(move |_| drop(black_box(black_box(&handle).clone())))
}

/// As its users do: a hundred objects, then a step of the collector.
fn arena_nodes() -> Run<'static> {
    const BATCH: u32 = 100;
    let mut arena = Arena::<Rootable![()]>::new(|_| ());
    Box::new(move || {
        let all = seconds(|| {
            for batch in 0..OBJECTS / BATCH {
                arena.mutate(|mutation, ()| {
                    for number in 0..BATCH {
                        let node = ArenaNode::new(u64::from(batch + number));
                        black_box(gc_arena::Gc::new(mutation, node));
                    }
                });
                arena.collect_debt();
            }
        });
        all / f64::from(OBJECTS)
    })
}

/// Target 2: the workload of dumpster's own benchmark, for one thread.
pub(crate) fn churn(table: &mut Table) {
    let [ours, counted, dumpster, cc, bacon] = in_turns(
        ROUNDS,
        [
            Box::new(|| churned(&Heap::new())),
            Box::new(|| churned(&Counted)),
            Box::new(|| churned(&Dumpster)),
            Box::new(|| churned(&RustCc)),
            Box::new(|| churned(&Bacon)),
        ],
    );
    let what = "a million steps of churn, a few hundred objects";
    for (name, theirs, aim) in [
        ("Rc (leaks)", &counted, Aim::Ratio(1.0)),
        ("dumpster", &dumpster, Aim::Ratio(0.6)),
        ("rust-cc", &cc, Aim::Ratio(1.0)),
        ("bacon_rajan_cc", &bacon, Aim::Seen),
    ] {
        table.against(what, Unit::Millis, &ours, (name, theirs), aim);
    }
    let [off, on] = in_turns(
        ROUNDS,
        [
            Box::new(|| {
                let heap = Heap::new();
                heap.disable();
                churned(&heap)
            }),
            Box::new(|| churned(&Heap::new())),
        ],
    );
    let anchor = ("ours, collector off", &off);
    table.against(what, Unit::Millis, &on, anchor, Aim::Seen);
}

fn churned<P: Peer>(peer: &P) -> f64 {
    const STEPS: u32 = 1_000_000;
    let mut random = Random::new(12_345);
    let mut hubs: Vec<P::Hub> = (0..50).map(|_| peer.hub()).collect();
    hubs.reserve(10_000);
    seconds(|| {
        for _ in 0..STEPS {
            if hubs.is_empty() {
                hubs.push(peer.hub());
                continue;
            }
            match random.below(4) {
                0 => hubs.push(peer.hub()),
                1 if hubs.len() > 1 => {
                    let (from, to) = (random.below(hubs.len()), random.below(hubs.len()));
                    let linked = hubs[to].clone();
                    P::change(&hubs[from], |list| list.push(linked));
                }
                1 => {}
                2 => drop(hubs.swap_remove(random.below(hubs.len()))),
                _ => {
                    let from = random.below(hubs.len());
                    let taken = P::change(&hubs[from], |list| {
                        let some = !list.is_empty();
                        some.then(|| list.swap_remove(random.below(list.len())))
                    });
                    drop(taken);
                }
            }
        }
        hubs.clear();
        peer.collect();
    })
}
