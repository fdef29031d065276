//! Target 9: a map whose values are held weakly.

use std::collections::HashMap;
use std::hint::black_box;

use filed::heap::{Gc, Heap, WeakMap};

use crate::child::Numbers;
use crate::measure::{Run, Series, in_turns, seconds};
use crate::peers::{Record, put};
use crate::table::{Aim, Table, Unit};

const VALUES: u64 = 200_000;
const ROUNDS: usize = 9;

pub(crate) fn target(table: &mut Table, python: &Numbers) {
    let heap = Heap::new();
    let values: Vec<Gc<Record>> = (0..VALUES).map(|number| record(&heap, number)).collect();
    let mut full = WeakMap::new();
    for (key, value) in (0..VALUES).zip(&values) {
        full.insert(key, value);
    }
    let mut plain: HashMap<u64, Gc<Record>, foldhash::fast::RandomState> = HashMap::default();
    let [insert, get, create, upgrade, counted] = in_turns(
        ROUNDS,
        [
            Box::new(|| {
                let mut map = WeakMap::new();
                per(|| {
                    for (key, value) in (0..VALUES).zip(&values) {
                        map.insert(key, value);
                    }
                })
            }),
            Box::new(|| {
                per(|| {
                    for key in 0..VALUES {
                        black_box(full.get(&key));
                    }
                })
            }),
            Box::new(|| {
                per(|| {
                    values
                        .iter()
                        .for_each(|value| drop(black_box(Gc::downgrade(value))))
                })
            }),
            {
                let weak: Vec<_> = values.iter().map(Gc::downgrade).collect();
                Box::new(move || {
                    per(|| weak.iter().for_each(|weak| drop(black_box(weak.upgrade()))))
                })
            },
            Box::new(|| {
                plain.clear();
                plain.shrink_to_fit();
                per(|| {
                    for (key, value) in (0..VALUES).zip(&values) {
                        plain.insert(key, value.clone());
                    }
                })
            }),
        ] as [Run<'_>; 5],
    );
    let deaths = in_turns(
        ROUNDS,
        [Box::new(|| {
            let mut map = WeakMap::new();
            let values: Vec<_> = (0..VALUES).map(|number| record(&heap, number)).collect();
            for (key, value) in (0..VALUES).zip(&values) {
                map.insert(key, value);
            }
            per(|| {
                drop(values);
                black_box(map.clean());
            })
        })],
    );
    let [death] = deaths;
    for (what, ours, name, faster) in [
        ("weak map: insert", &insert, "weak_insert", 10.0),
        ("weak map: get", &get, "weak_get", 5.0),
        (
            "weak map: death of a value, and of its entry",
            &death,
            "weak_death",
            5.0,
        ),
    ] {
        let theirs = ("CPython", python.find(name));
        table.against_one(what, Unit::Nanos, ours, theirs, Aim::Ratio(1.0 / faster));
    }
    table.against(
        "weak map: insert",
        Unit::Nanos,
        &insert,
        ("HashMap of Gc", &counted),
        Aim::Seen,
    );
    for (what, ours, name) in [
        ("weak reference: made and dropped", &create, "weak_create"),
        ("weak reference: upgraded", &upgrade, "weak_upgrade"),
    ] {
        table.against_one(
            what,
            Unit::Nanos,
            ours,
            ("CPython", python.find(name)),
            Aim::Seen,
        );
    }
    let [first, second] = beside(&heap);
    let what = "bytes beside the slot: an object's first weak reference";
    table.alone(what, Unit::Bytes, &Series::one(first), Aim::AtMost(16.0));
    let what = "bytes beside the slot: its second";
    table.alone(what, Unit::Bytes, &Series::one(second), Aim::AtMost(0.0));
}

/// Bytes that the heap holds for first and second weak references to its objects, each.
fn beside(heap: &Heap) -> [f64; 2] {
    let values: Vec<_> = (0..VALUES).map(|number| record(heap, number)).collect();
    let mut kept: Vec<_> = Vec::with_capacity(2 * VALUES as usize);
    [0, 1].map(|_| {
        let before = heap.overhead_bytes();
        kept.extend(values.iter().map(Gc::downgrade));
        (heap.overhead_bytes() - before) as f64 / VALUES as f64
    })
}

fn record(heap: &Heap, number: u64) -> Gc<Record> {
    let fields = [number; 3];
    put(heap, Record { fields })
}

fn per(run: impl FnOnce()) -> f64 {
    seconds(run) / VALUES as f64
}
