//! Targets 4 and 5: how long the collector keeps the program waiting in one
//! large connected graph, and how much garbage it leaves meanwhile.
//!
//! The graph is a binary tree whose nodes know their parents, of which one
//! handle in a thousand is kept: so one touched root makes a collector that
//! starts from it look at everything. The churn is a new node linked to a kept
//! one, and dropped. Every step is timed by the thread's clock, since a pause by
//! the wall clock holds what other programs took as well; both are shown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use filed::heap::{Gc, Generation, Heap, Trim};
use gc_arena::{Arena, Rootable};

use crate::child::{self, Numbers};
use crate::measure::{Random, Series, cpu, resident, seconds};
use crate::peers::{ArenaNode, Node, Peer, RustCc, Side, put};
use crate::table::{Aim, Table, Unit};

type Failure = Box<dyn std::error::Error>;

const NODES: usize = 10_000_000;
const KEPT: usize = 1000;
const STEPS: usize = 4_000_000;
/// A step of the program alone takes less.
const PAUSE: f64 = 5e-6;

pub(crate) fn target(table: &mut Table, python: &Numbers) -> Result<(), Failure> {
    // What the machine itself adds to a longest step is not the same twice: the middle one counts.
    let runs = [
        child::run("graph-ours")?,
        child::run("graph-ours")?,
        child::run("graph-ours")?,
    ];
    let cc = child::run("graph-rust_cc")?;
    let arena = child::run("graph-arena")?;
    let one = |name: &str| Series::of(runs.iter().map(|run| run.get(name)));

    let what = "10M connected, root touched: longest step, CPU";
    let longest = one("longest");
    table.alone(what, Unit::Micros, &longest, Aim::AtMost(1e-3));
    for (name, theirs) in [("gc-arena", &arena), ("rust-cc", &cc)] {
        table.against_one(
            what,
            Unit::Micros,
            &longest,
            (name, theirs.find("longest")),
            Aim::Seen,
        );
    }
    let full = ("CPython, gen 2 of 1M", python.find("collect_1m"));
    table.against_one(what, Unit::Micros, &longest, full, Aim::Seen);
    let full = ("rust-cc, root touched", cc.find("full"));
    table.against_one(what, Unit::Micros, &longest, full, Aim::Ratio(1.0 / 500.0));
    let full = ("gc-arena, whole cycle", arena.find("full"));
    table.against_one(what, Unit::Micros, &longest, full, Aim::Seen);
    table.alone(
        "steps with a pause: p99.9, CPU",
        Unit::Micros,
        &one("p999"),
        Aim::AtMost(250e-6),
    );
    table.alone(
        "the heap's own pauses: p99.9, wall",
        Unit::Micros,
        &one("wall_p999"),
        Aim::Seen,
    );
    table.alone(
        "the heap's own pauses: longest, wall",
        Unit::Micros,
        &one("wall_longest"),
        Aim::Seen,
    );
    table.alone("slices", Unit::Count, &one("slices"), Aim::Seen);
    table.alone(
        "collections of everything, in slices",
        Unit::Count,
        &one("epochs"),
        Aim::AtLeast(1.0),
    );
    table.alone(
        "collections of everything at once",
        Unit::Count,
        &one("whole"),
        Aim::AtMost(0.0),
    );
    table.alone(
        "share of the collector in the churn",
        Unit::Percent,
        &one("share"),
        Aim::Seen,
    );
    let building = one("building");
    table.alone(
        "longest step while building it, CPU",
        Unit::Micros,
        &building,
        Aim::AtMost(1e-3),
    );
    let what = "everything at once, root touched";
    for (name, theirs) in [("gc-arena", &arena), ("rust-cc", &cc)] {
        table.against_one(
            what,
            Unit::Millis,
            &one("full"),
            (name, theirs.find("full")),
            Aim::Seen,
        );
    }
    let what = "bytes a node";
    table.against_one(
        what,
        Unit::Bytes,
        &one("bytes"),
        ("rust-cc", cc.find("bytes")),
        Aim::Seen,
    );
    Ok(())
}

pub(crate) fn graph(which: &str, numbers: &mut Numbers) {
    match which {
        "arena" => arena(numbers),
        "rust_cc" => {
            counted(&RustCc, numbers);
        }
        _ => ours(numbers),
    }
}

fn ours(numbers: &mut Numbers) {
    let heap = Heap::new();
    let kept = built(&heap, numbers);
    // What building left is no part of it: everybody starts with what is alive.
    heap.collect(Generation::Old);
    let before = heap.stats();
    churn(&heap, &kept, numbers);
    let after = heap.stats();
    let since = |of: fn(&filed::heap::HeapStats) -> u64| (of(&after) - of(&before)) as f64;
    numbers.set("slices", since(|stats| stats.generations[2].pauses.count()));
    numbers.set("epochs", since(|stats| stats.generations[2].collections));
    numbers.set("whole", since(|stats| stats.whole.count()));
    // The one collection at once above is in these as their longest: it is left out by rank.
    let pauses = &after.generations[2].pauses;
    numbers.set("wall_p999", pauses.quantile(0.999).as_secs_f64());
    let but_one = 1.0 - 1.5 / pauses.count() as f64;
    numbers.set("wall_longest", pauses.quantile(but_one).as_secs_f64());
    touch_root(&kept);
    numbers.set("full", seconds(|| Peer::collect(&heap)));
    // Its end is another target's.
    std::mem::forget((heap, kept));
}

fn counted<P: Peer>(peer: &P, numbers: &mut Numbers) {
    let kept = built(peer, numbers);
    touch_root(&kept);
    numbers.set("full", seconds(|| peer.collect()));
    churn(peer, &kept, numbers);
}

/// The root comes first among the kept handles.
fn touch_root<T: Clone>(kept: &[T]) {
    drop(kept[0].clone());
}

fn built<P: Peer>(peer: &P, numbers: &mut Numbers) -> Vec<P::Node> {
    let mut kept = Vec::with_capacity(NODES / KEPT + 1);
    let mut open = VecDeque::with_capacity(NODES / 2 + 2);
    touch(&mut open, NODES / 2 + 1);
    let before = resident();
    let root = peer.node(0);
    kept.push(root.clone());
    open.push_back(Some(root));
    let mut made = 1;
    let mut longest: f64 = 0.0;
    while made < NODES {
        let start = cpu();
        let under = open
            .pop_front()
            .flatten()
            .expect("every node has room for two");
        for side in [Side::Left, Side::Right] {
            let child = peer.node(made as u64);
            peer.hang(&child, side, &under);
            if made % KEPT == 0 {
                kept.push(child.clone());
            }
            open.push_back(Some(child));
            made += 1;
        }
        drop(under);
        longest = longest.max((cpu() - start).as_secs_f64());
    }
    drop(open);
    numbers.set("building", longest);
    numbers.set("bytes", (resident() - before) / NODES as f64);
    kept
}

/// Faults the memory of a queue in, so that its growth is not taken for a pause.
fn touch<T>(queue: &mut VecDeque<Option<T>>, places: usize) {
    for _ in 0..places {
        queue.push_back(std::hint::black_box(None));
    }
    queue.clear();
}

fn churn<P: Peer>(peer: &P, kept: &[P::Node], numbers: &mut Numbers) {
    let mut random = Random::new(7);
    let mut steps = vec![0.0_f64; STEPS];
    steps.fill(1.0);
    let start = cpu();
    for (number, took) in steps.iter_mut().enumerate() {
        let start = cpu();
        if number % 100_000 == 0 {
            touch_root(kept);
        }
        let node = peer.node(number as u64);
        peer.point(&node, &kept[random.below(kept.len())]);
        drop(node);
        *took = (cpu() - start).as_secs_f64();
    }
    let all = (cpu() - start).as_secs_f64();
    pauses(&steps, all, numbers);
}

/// What steps of a churn come to, which took `all` seconds with the timing of them.
fn pauses(steps: &[f64], all: f64, numbers: &mut Numbers) {
    let paused = steps.iter().copied().filter(|&took| took > PAUSE);
    let paused = Series::of(paused);
    numbers.set("longest", Series::of(steps.iter().copied()).max());
    numbers.set("p999", paused.quantile(0.999));
    let total: f64 = steps.iter().filter(|&&took| took > PAUSE).sum();
    numbers.set("share", total / all);
}

fn arena(numbers: &mut Numbers) {
    let mut arena = Arena::<Rootable![Vec<gc_arena::Gc<'_, ArenaNode<'_>>>]>::new(|_| {
        Vec::with_capacity(NODES / KEPT + 1)
    });
    let before = resident();
    arena.mutate_root(|mutation, kept| {
        let mut open = VecDeque::with_capacity(NODES / 2 + 2);
        let root = gc_arena::Gc::new(mutation, ArenaNode::new(0));
        kept.push(root);
        open.push_back(root);
        let mut made = 1;
        while made < NODES {
            let under = open.pop_front().expect("every node has room for two");
            let mut child = || {
                let node = ArenaNode::new(made as u64);
                let child = gc_arena::Gc::new(mutation, node);
                if made % KEPT == 0 {
                    kept.push(child);
                }
                open.push_back(child);
                made += 1;
                child
            };
            let (left, right) = (child(), child());
            for child in [left, right] {
                let link = gc_arena::Gc::write(mutation, child);
                gc_arena::barrier::field!(link, ArenaNode, parent)
                    .unlock()
                    .set(Some(under));
            }
            let links = gc_arena::Gc::write(mutation, under);
            gc_arena::barrier::field!(links, ArenaNode, left)
                .unlock()
                .set(Some(left));
            gc_arena::barrier::field!(links, ArenaNode, right)
                .unlock()
                .set(Some(right));
        }
    });
    numbers.set("bytes", (resident() - before) / NODES as f64);
    arena.finish_cycle();
    numbers.set("full", seconds(|| arena.finish_cycle()));
    let mut random = Random::new(7);
    let mut steps = vec![1.0_f64; STEPS];
    let start = cpu();
    for (number, took) in steps.iter_mut().enumerate() {
        let start = cpu();
        arena.mutate_root(|mutation, kept| {
            let node = gc_arena::Gc::new(mutation, ArenaNode::new(number as u64));
            let links = gc_arena::Gc::write(mutation, node);
            let to = kept[random.below(kept.len())];
            gc_arena::barrier::field!(links, ArenaNode, left)
                .unlock()
                .set(Some(to));
        });
        if number % 100 == 0 {
            arena.collect_debt();
        }
        *took = (cpu() - start).as_secs_f64();
    }
    pauses(&steps, (cpu() - start).as_secs_f64(), numbers);
}

/// Target 5: the most memory held while old structures become garbage, in slices and at once.
pub(crate) fn bound(table: &mut Table) -> Result<(), Failure> {
    let (ours, whole) = (child::run("bound-slices")?, child::run("bound-whole")?);
    let one = |numbers: &Numbers, name: &str| Series::one(numbers.get(name));
    for (what, name) in [
        ("1M live, old rings replaced: peak of the heap", "held"),
        ("the same: peak of resident memory", "resident"),
    ] {
        let anchor = ("ours, at once", &one(&whole, name));
        table.against(what, Unit::MiB, &one(&ours, name), anchor, Aim::Ratio(1.15));
    }
    let what = "longest step meanwhile, CPU";
    let longest = one(&ours, "longest");
    table.alone(what, Unit::Micros, &longest, Aim::AtMost(1e-3));
    let anchor = ("ours, at once", &one(&whole, "longest"));
    table.against(what, Unit::Micros, &longest, anchor, Aim::Seen);
    let what = "time for all of it, CPU";
    let anchor = ("ours, at once", &one(&whole, "all"));
    table.against(what, Unit::Millis, &one(&ours, "all"), anchor, Aim::Seen);
    table.alone(
        "collections of everything, in slices",
        Unit::Count,
        &one(&ours, "epochs"),
        Aim::AtLeast(1.0),
    );
    table.alone(
        "of those at once",
        Unit::Count,
        &one(&ours, "whole"),
        Aim::AtMost(0.0),
    );
    Ok(())
}

/// Rings of ten nodes, of which a hundred thousand are alive; a step replaces one at random. So
/// most garbage is old, and no young collection finds it.
pub(crate) fn bound_case(which: &str, numbers: &mut Numbers) {
    const RINGS: usize = 100_000;
    const ROUND: u64 = 10;
    let heap = Heap::new();
    let at_once = which == "whole";
    if at_once {
        // Only the threshold of the oldest generation is out of the way.
        heap.set_thresholds(700, 10, 0);
    }
    let ring = |number: u64| {
        let first = put(&heap, Node::new(number));
        let mut last = first.clone();
        for number in 1..ROUND {
            let next = put(&heap, Node::new(number));
            last.left.set(Some(next.clone()));
            last = next;
        }
        last.left.set(Some(first.clone()));
        first
    };
    let mut rings: Vec<Gc<Node>> = (0..RINGS as u64).map(ring).collect();
    heap.collect(Generation::Old);
    heap.trim(Trim::All, Instant::now());
    heap.reset_peak();
    let before = heap.stats();
    let mut due = before.allocated_bytes + before.garbage_bound_bytes / 2;
    let mut random = Random::new(11);
    let (mut longest, mut most) = (Duration::ZERO, 0.0_f64);
    let start = cpu();
    for number in 0..10 * RINGS {
        let start = cpu();
        rings[random.below(RINGS)] = ring(number as u64);
        // At once when the slices would begin: what they add is what is to be seen.
        if at_once && number % 64 == 0 && heap.stats().allocated_bytes >= due {
            heap.collect(Generation::Old);
            let stats = heap.stats();
            due = stats.allocated_bytes + stats.garbage_bound_bytes / 2;
        }
        longest = longest.max(cpu() - start);
        if number % 1000 == 0 {
            most = most.max(resident());
        }
    }
    numbers.set("all", (cpu() - start).as_secs_f64());
    let after = heap.stats();
    numbers.set("held", after.peak_bytes as f64);
    numbers.set("resident", most);
    numbers.set("longest", longest.as_secs_f64());
    let epochs = after.generations[2].collections - before.generations[2].collections;
    numbers.set("epochs", epochs as f64);
    numbers.set("whole", (after.whole.count() - before.whole.count()) as f64);
}
