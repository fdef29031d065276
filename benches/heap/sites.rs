//! Target 10: what it costs to know where objects were allocated.
//!
//! Pairs: the same work with and without, one after the other, in turns as to
//! which comes first.

use filed::heap::{Gc, GroupBy, Heap, traced};

use crate::child::Numbers;
use crate::measure::{Series, seconds};
use crate::peers::put;
use crate::table::{Aim, Table, Unit};

const PAIRS: usize = 31;
const RECORDS: u64 = 100_000;
const FRAMES: usize = 12;

traced! {
    struct Items(Vec<u64>);
    struct Nested {
        number: u64,
        name: String,
        items: Gc<Items>,
    }
    acyclic struct Flat {
        number: u64,
        other: u64,
    }
}

pub(crate) fn target(table: &mut Table, python: &Numbers) {
    for (what, work) in [
        ("nested records under 12 frames", nested as fn(&Heap)),
        ("bare records of 16 bytes", flat as fn(&Heap)),
    ] {
        let (off, on) = pairs(work, |heap| heap.set_sampling(0), |_| ());
        let name = format!("{what}: sampling on");
        table.against(&name, Unit::Millis, &on, ("off", &off), Aim::Ratio(1.01));
        let slower = Series::one(on.greater_than(&off) as f64);
        table.alone(
            "  pairs of 31 in which it was slower",
            Unit::Count,
            &slower,
            Aim::Seen,
        );
        let (off, on) = pairs(work, |_| (), |heap| heap.trace_allocations(10));
        let name = format!("{what}: all traced, 10 frames");
        // CPython was measured with the nested ones. Bare ones are for the cost itself.
        let aim = match what {
            "nested records under 12 frames" => Aim::Ratio(1.3),
            _ => Aim::Seen,
        };
        table.against(&name, Unit::Millis, &on, ("sampling", &off), aim);
    }
    for (what, name) in [("one frame", "traced_1"), ("10 frames", "traced_10")] {
        if let Some(times) = python.find(name) {
            let what = format!("tracemalloc of CPython, {what}");
            table.alone(&what, Unit::Times, &Series::one(times), Aim::Seen);
        }
    }
    table.alone(
        "1 GiB sampled at 512 KiB: the sum is off by",
        Unit::Percent,
        &Series::one(estimate_error()),
        Aim::AtMost(0.05),
    );
}

fn pairs(work: fn(&Heap), set_off: fn(&Heap), set_on: fn(&Heap)) -> (Series, Series) {
    let once = |set: fn(&Heap)| {
        let heap = Heap::new();
        set(&heap);
        seconds(|| work(&heap))
    };
    once(set_off);
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        if pair % 2 == 0 {
            off.push(once(set_off));
            on.push(once(set_on));
        } else {
            on.push(once(set_on));
            off.push(once(set_off));
        }
    }
    (Series::of(off), Series::of(on))
}

fn nested(heap: &Heap) {
    let names = ["daemon", "job", "file", "stage", "step", "part"];
    let frames = (0..FRAMES).map(|depth| heap.frame(names[depth % names.len()]));
    let mut frames: Vec<_> = frames.collect();
    let mut kept = Vec::with_capacity(RECORDS as usize);
    for number in 0..RECORDS {
        let items = put(heap, Items(vec![number; 4]));
        let name = format!("record {number}");
        let record = Nested {
            number,
            name,
            items,
        };
        kept.push(put(heap, record));
    }
    drop(kept);
    while frames.pop().is_some() {}
}

/// Nothing but allocations: what tracing adds is seen without anything around it.
fn flat(heap: &Heap) {
    let mut kept = Vec::with_capacity(RECORDS as usize);
    for number in 0..RECORDS {
        let other = number;
        kept.push(put(heap, Flat { number, other }));
    }
}

/// By which share the sum over sites is off for a GiB of objects of several sizes.
fn estimate_error() -> f64 {
    let heap = Heap::new();
    let mut bytes = 0;
    while bytes < 1 << 30 {
        for _ in 0..1000 {
            drop(put(&heap, [0_u64; 3]));
            drop(put(&heap, [0_u64; 14]));
            drop(put(&heap, [0_u64; 200]));
        }
        bytes = heap.stats().allocated_bytes;
    }
    let sites = heap.snapshot("sampled").sites(GroupBy::Line);
    let seen: u64 = sites.iter().map(|site| site.total_bytes).sum();
    (seen as f64 / bytes as f64 - 1.0).abs()
}
