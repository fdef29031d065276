//! Targets 7 and 8: what a trim gives back, and what an object takes; by the
//! kernel's count of resident memory.

use std::rc::Rc;
use std::time::Instant;

use filed::heap::{Buffer, Gc, Heap, Pool, Trim, malloc, traced};

use crate::child::{self, Numbers};
use crate::measure::{Random, Series, resident};
use crate::peers::{Counted, Node, Peer, Record, put};
use crate::table::{Aim, Table, Unit};

type Failure = Box<dyn std::error::Error>;

const SMALL: usize = 5_000_000;

pub(crate) fn target(table: &mut Table, python: &Numbers) -> Result<(), Failure> {
    for (case, what, least) in [
        ("all", "5M nodes, all freed", 0.99),
        ("thousandth", "5M nodes, every 1000th survives", 0.85),
        ("random", "5M nodes, 1 % survive at random", 0.35),
        ("buffers", "5,000 buffers of 100 KiB, 2 % survive", 0.97),
    ] {
        let numbers = child::run(&format!("returned-{case}"))?;
        let ours = Series::one(numbers.get("returned"));
        table.alone(what, Unit::Percent, &ours, Aim::AtLeast(least));
        let theirs = ("CPython", python.find(&format!("returned_{case}")));
        table.against_one(what, Unit::Percent, &ours, theirs, Aim::Seen);
        if case != "buffers" {
            for (name, library) in [("Rc", "counted"), ("Rc, malloc_trim", "counted-trimmed")] {
                let counted = child::run(&format!("returned-{case}_{library}"))?;
                let theirs = (name, Some(counted.get("returned")));
                table.against_one(what, Unit::Percent, &ours, theirs, Aim::Seen);
            }
            let took = Series::one(numbers.get("trim"));
            table.alone("time of the trim, CPU", Unit::Millis, &took, Aim::Seen);
        }
    }
    Ok(())
}

pub(crate) fn case(which: &str, numbers: &mut Numbers) -> Result<(), Failure> {
    if which == "buffers" {
        return buffers(numbers);
    }
    let survives = |case: &str| {
        let mut random = Random::new(3);
        let case = case.to_owned();
        move |number: usize| match &*case {
            "all" => false,
            "thousandth" => number.is_multiple_of(1000),
            _ => random.below(100) == 0,
        }
    };
    match which.split_once('_') {
        Some((case, "counted")) => freed(&Counted, survives(case), numbers, || ()),
        Some((case, _)) => freed(&Counted, survives(case), numbers, || {
            malloc::trim();
        }),
        None => {
            let heap = Heap::new();
            freed(&heap, survives(which), numbers, || {
                heap.trim(Trim::All, Instant::now());
                // Beside the objects, what was known of some of them goes back to the C library.
                malloc::trim();
            });
        }
    }
    Ok(())
}

fn freed<P: Peer>(
    peer: &P,
    mut survives: impl FnMut(usize) -> bool,
    numbers: &mut Numbers,
    trim: impl FnOnce(),
) {
    // The vector of handles is there before and after.
    let mut handles: Vec<Option<P::Node>> = places(SMALL);
    let start = resident();
    for (number, place) in handles.iter_mut().enumerate() {
        *place = Some(peer.node(number as u64));
    }
    let peak = resident();
    for (number, place) in handles.iter_mut().enumerate() {
        if !survives(number) {
            *place = None;
        }
    }
    numbers.set("trim", crate::measure::seconds(trim));
    numbers.set("returned", (peak - resident()) / (peak - start));
    drop(handles);
}

fn buffers(numbers: &mut Numbers) -> Result<(), Failure> {
    const BUFFERS: usize = 5000;
    let pool = Pool::new(2 << 30);
    let account = pool.account("bench");
    let start = resident();
    let mut buffers: Vec<Option<Buffer>> = Vec::with_capacity(BUFFERS);
    for _ in 0..BUFFERS {
        let mut buffer = account.take(100 << 10)?;
        buffer.fill(1);
        buffers.push(Some(buffer));
    }
    let peak = resident();
    for (number, buffer) in buffers.iter_mut().enumerate() {
        if number % 50 != 0 {
            *buffer = None;
        }
    }
    pool.trim(Trim::All, Instant::now());
    // Of what was freed: the rest is in use.
    let freed = (peak - start) * 0.98;
    numbers.set("returned", (peak - resident()) / freed);
    Ok(())
}

traced! {
    struct Listed {
        number: u64,
        name: Gc<Record>,
        other: Option<Gc<Listed>>,
    }
}

const SIZED: usize = 1_000_000;

/// Target 8: bytes of an object.
pub(crate) fn sizes(table: &mut Table, python: &Numbers) -> Result<(), Failure> {
    let (ours, counted) = (
        child::run("size-record")?,
        child::run("size-record_counted")?,
    );
    let bytes = |numbers: &Numbers| Series::one(numbers.get("bytes"));
    let what = "record of three fields";
    table.alone(what, Unit::Bytes, &bytes(&ours), Aim::AtMost(40.0));
    let theirs = ("Rc", Some(counted.get("bytes")));
    table.against_one(what, Unit::Bytes, &bytes(&ours), theirs, Aim::Seen);
    for (name, number) in [
        ("CPython slots", "bytes_slots"),
        ("CPython class", "bytes_class"),
        ("CPython dict", "bytes_dict"),
    ] {
        let theirs = (name, python.find(number));
        table.against_one(what, Unit::Bytes, &bytes(&ours), theirs, Aim::Seen);
    }
    let ours = child::run("size-handles")?;
    table.alone(
        "the same with handles in it, may be in a cycle",
        Unit::Bytes,
        &bytes(&ours),
        Aim::AtMost(40.0),
    );
    let (ours, counted) = (child::run("size-node")?, child::run("size-node_counted")?);
    let what = "node of three links and a number";
    let theirs = ("Rc", Some(counted.get("bytes")));
    table.against_one(what, Unit::Bytes, &bytes(&ours), theirs, Aim::Seen);
    Ok(())
}

pub(crate) fn size_case(which: &str, numbers: &mut Numbers) {
    let heap = Heap::new();
    let record = || Record { fields: [1, 2, 3] };
    let name = put(&heap, record());
    let bytes = match which {
        "record" => sized(|| put(&heap, record())),
        "record_counted" => sized(|| Rc::new(record())),
        "node" => sized(|| put(&heap, Node::new(1))),
        "node_counted" => sized(|| Counted.node(1)),
        _ => sized(|| {
            let (number, name) = (1, name.clone());
            let listed = Listed {
                number,
                name,
                other: None,
            };
            put(&heap, listed)
        }),
    };
    numbers.set("bytes", bytes);
}

/// Places whose memory is there.
fn places<T>(count: usize) -> Vec<Option<T>> {
    let mut places = Vec::with_capacity(count);
    places.extend((0..count).map(|_| std::hint::black_box(None)));
    places
}

fn sized<T>(mut make: impl FnMut() -> T) -> f64 {
    let mut handles: Vec<Option<T>> = places(SIZED);
    let before = resident();
    for place in &mut handles {
        *place = Some(make());
    }
    (resident() - before) / SIZED as f64
}
