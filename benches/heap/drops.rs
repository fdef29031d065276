//! Target 6: the end of structures of ten million nodes.
//!
//! The drop itself and every moment after it are timed by the thread's clock,
//! until nothing is left; then the memory is trimmed, in slices as well.

use std::time::{Duration, Instant};

use filed::heap::{Gc, Heap, Link, Trim, TrimCursor, Trimmed, traced};

use crate::child::{self, Numbers};
use crate::measure::{Series, cpu, resident};
use crate::peers::put;
use crate::table::{Aim, Table, Unit};

const NODES: u64 = 10_000_000;
const MIB: f64 = 1048576.0;

traced! {
    struct Node {
        left: Link<Node>,
        right: Link<Node>,
        number: u64,
    }
}

pub(crate) fn target(table: &mut Table) -> Result<(), Box<dyn std::error::Error>> {
    for shape in ["chain", "ring", "tree"] {
        let ours = child::run(&format!("drop-{shape}"))?;
        let one = |name: &str| Series::one(ours.get(name));
        let what = |what: &str| format!("{shape} of 10M dropped: {what}");
        let longest = one("longest");
        table.alone(
            &what("longest slice, CPU"),
            Unit::Micros,
            &longest,
            Aim::AtMost(1e-3),
        );
        table.alone(
            &what("longest, wall"),
            Unit::Micros,
            &one("wall"),
            Aim::Seen,
        );
        table.alone(&what("in all, CPU"), Unit::Millis, &one("all"), Aim::Seen);
        table.alone(
            &what("longest slice of the trim"),
            Unit::Micros,
            &one("trim"),
            Aim::Seen,
        );
        table.alone(
            &what("stays resident"),
            Unit::MiB,
            &one("stays"),
            Aim::AtMost(4.0 * MIB),
        );
        table.alone(
            &what("objects left"),
            Unit::Count,
            &one("left"),
            Aim::AtMost(0.0),
        );
    }
    Ok(())
}

fn node(heap: &Heap, number: u64) -> Gc<Node> {
    let (left, right) = (Link::none(), Link::none());
    put(
        heap,
        Node {
            left,
            right,
            number,
        },
    )
}

pub(crate) fn case(shape: &str, numbers: &mut Numbers) {
    let heap = Heap::new();
    // What the first use of everything takes is not what the structure holds.
    drop(node(&heap, 0));
    let start = resident();
    let structure = match shape {
        "tree" => tree(&heap),
        shape => {
            let first = node(&heap, 0);
            let mut last = first.clone();
            for number in 1..NODES {
                let next = node(&heap, number);
                last.left.set(Some(next.clone()));
                last = next;
            }
            if shape == "ring" {
                last.left.set(Some(first.clone()));
            }
            first
        }
    };
    assert_eq!(heap.stats().live_objects, NODES);

    let mut slices = Slices::default();
    slices.time(|| drop(structure));
    if shape == "ring" {
        slices.time(|| heap.start_collection());
    }
    loop {
        let stats = heap.stats();
        if stats.live_objects == 0 && !heap.is_collecting() || slices.count > 1_000_000 {
            numbers.set("left", stats.live_objects as f64);
            break;
        }
        slices.time(|| heap.safe_point());
        // A ring is found by a collection; the first may have started before it was dropped.
        if shape == "ring" && !heap.is_collecting() && heap.stats().live_objects > 0 {
            heap.start_collection();
        }
    }
    numbers.set("longest", slices.longest.as_secs_f64());
    numbers.set("wall", slices.wall.as_secs_f64());
    numbers.set("all", slices.all.as_secs_f64());

    let mut trims = Slices::default();
    let (mut cursor, mut trimmed) = (TrimCursor::default(), Trimmed::default());
    let longest = heap.options().slice;
    let mut done = false;
    while !done {
        let now = Instant::now();
        trims.time(|| done = heap.trim_slice(Trim::All, now, longest, &mut cursor, &mut trimmed));
    }
    numbers.set("trim", trims.longest.as_secs_f64());
    // Beside the objects, what was known of some of them goes back to the C library.
    filed::heap::malloc::trim();
    numbers.set("stays", resident() - start);
}

fn tree(heap: &Heap) -> Gc<Node> {
    let root = node(heap, 0);
    let mut open = std::collections::VecDeque::with_capacity(NODES as usize / 2 + 2);
    open.push_back(root.clone());
    let mut made = 1;
    while made < NODES {
        let under = open.pop_front().expect("every node has room for two");
        for link in [&under.left, &under.right] {
            if made < NODES {
                let child = node(heap, made);
                link.set(Some(child.clone()));
                open.push_back(child);
                made += 1;
            }
        }
    }
    root
}

#[derive(Default)]
struct Slices {
    count: u64,
    longest: Duration,
    wall: Duration,
    all: Duration,
}

impl Slices {
    fn time(&mut self, run: impl FnOnce()) {
        let (wall, start) = (Instant::now(), cpu());
        run();
        let took = cpu() - start;
        self.count += 1;
        self.longest = self.longest.max(took);
        self.wall = self.wall.max(wall.elapsed());
        self.all += took;
    }
}
