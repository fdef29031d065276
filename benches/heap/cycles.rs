//! Target 3: garbage in cycles of two, made and collected.

use filed::heap::Heap;

use crate::child::{self, Numbers};
use crate::measure::{Run, Series, in_turns, resident, seconds};
use crate::peers::{Bacon, Dumpster, Peer, RustCc};
use crate::table::{Aim, Table, Unit};

type Failure = Box<dyn std::error::Error>;

const CYCLES: u32 = 1_000_000;
/// Of what takes microseconds each.
const FEW: u32 = 50_000;
const ROUNDS: usize = 7;

pub(crate) fn target(table: &mut Table, python: &Numbers) -> Result<(), Failure> {
    let [ours, cc, dumpster, bacon] = in_turns(
        ROUNDS,
        [
            Box::new(|| {
                let heap = Heap::new();
                made(&heap, CYCLES)
            }),
            Box::new(|| made(&RustCc, CYCLES)),
            Box::new(|| made(&Dumpster, FEW)),
            Box::new(|| made(&Bacon, CYCLES)),
        ] as [Run<'_>; 4],
    );
    let what = "a cycle of two made and collected, automatic";
    table.against(what, Unit::Nanos, &ours, ("rust-cc", &cc), Aim::Ratio(0.6));
    table.alone(what, Unit::Nanos, &ours, Aim::AtMost(65e-9));
    let slots = ("CPython slots", python.find("cycles_slots"));
    table.against_one(what, Unit::Nanos, &ours, slots, Aim::Ratio(0.4));
    let anchor = ("dumpster", &dumpster);
    table.against(what, Unit::Nanos, &ours, anchor, Aim::Ratio(1.0 / 15.0));
    let anchor = ("bacon_rajan_cc, by hand", &bacon);
    table.against(what, Unit::Nanos, &ours, anchor, Aim::Seen);

    let at_once = in_turns(
        ROUNDS,
        [Box::new(|| {
            let heap = Heap::new();
            heap.disable();
            made(&heap, CYCLES)
        })],
    );
    let anchor = ("bacon_rajan_cc, by hand", &bacon);
    table.against(
        "the same, collected at the end by hand",
        Unit::Nanos,
        &at_once[0],
        anchor,
        Aim::Seen,
    );

    let (ours, cc) = (child::run("cycles-ours")?, child::run("cycles-rust_cc")?);
    let grown = |numbers: &Numbers| Series::one(numbers.get("grown"));
    let what = "resident memory for it";
    let anchor = ("rust-cc", &grown(&cc));
    table.against(what, Unit::MiB, &grown(&ours), anchor, Aim::Seen);
    table.alone(what, Unit::MiB, &grown(&ours), Aim::AtMost(2.0 * 1048576.0));
    let what = "longest pause in it";
    let longest = Series::one(ours.get("longest"));
    let theirs = ("CPython slots", python.find("cycles_longest"));
    table.against_one(what, Unit::Micros, &longest, theirs, Aim::Seen);
    Ok(())
}

fn made<P: Peer>(peer: &P, cycles: u32) -> f64 {
    let all = seconds(|| {
        make(peer, cycles);
        peer.collect();
    });
    all / f64::from(cycles)
}

fn make<P: Peer>(peer: &P, cycles: u32) {
    for number in 0..u64::from(cycles) {
        let (one, other) = (peer.node(number), peer.node(number));
        peer.entangle(&one, &other);
    }
}

/// How resident memory grows meanwhile.
pub(crate) fn case(which: &str, numbers: &mut Numbers) {
    let before = resident();
    let mut most = before;
    let look = |most: &mut f64| *most = most.max(resident());
    if which == "ours" {
        let heap = Heap::new();
        for _ in 0..100 {
            make(&heap, CYCLES / 100);
            look(&mut most);
        }
        numbers.set("longest", heap.stats().longest_pause().as_secs_f64());
    } else {
        for _ in 0..100 {
            make(&RustCc, CYCLES / 100);
            look(&mut most);
        }
    }
    numbers.set("grown", most - before);
}
