//! Target 12: a million records made, with the collector on and off.

use filed::heap::{Gc, GcCell, Heap, traced};

use crate::child::Numbers;
use crate::measure::{Run, Series, in_turns, seconds};
use crate::peers::put;
use crate::table::{Aim, Table, Unit};

const RECORDS: u64 = 1_000_000;
const ROUNDS: usize = 11;

traced! {
    struct Flat {
        number: u64,
        name: &'static str,
        value: f64,
    }
    struct Items(GcCell<Vec<u64>>, Option<Gc<Nested>>);
    struct Nested {
        number: u64,
        name: &'static str,
        items: Gc<Items>,
    }
}

pub(crate) fn target(table: &mut Table, python: &Numbers) {
    let turns = |make: fn(&Heap)| {
        in_turns(
            ROUNDS,
            [
                Box::new(move || once(make, Heap::disable)) as Run<'_>,
                Box::new(move || once(make, |_| ())),
            ],
        )
    };
    for (what, make, name, aim) in [
        (
            "1M flat records: collector on",
            flat as fn(&Heap),
            "flat",
            1.02,
        ),
        ("1M nested records: collector on", nested, "nested", 1.05),
    ] {
        let [off, on] = turns(make);
        table.against(what, Unit::Millis, &on, ("off", &off), Aim::Ratio(aim));
        let ratio = python.find(&format!("records_{name}"));
        if let Some(ratio) = ratio {
            let what = format!("CPython, 1M {name} records: on against off");
            table.alone(&what, Unit::Times, &Series::one(ratio), Aim::Seen);
        }
    }
}

fn once(make: fn(&Heap), set: fn(&Heap)) -> f64 {
    let heap = Heap::new();
    set(&heap);
    seconds(|| make(&heap))
}

fn flat(heap: &Heap) {
    let mut records = Vec::with_capacity(RECORDS as usize);
    for number in 0..RECORDS {
        let (name, value) = ("name", number as f64);
        records.push(put(
            heap,
            Flat {
                number,
                name,
                value,
            },
        ));
    }
}

fn nested(heap: &Heap) {
    let mut records = Vec::with_capacity(RECORDS as usize);
    for number in 0..RECORDS {
        let items = Items(GcCell::new(vec![number, number + 1]), None);
        let items = put(heap, items);
        records.push(put(
            heap,
            Nested {
                number,
                name: "name",
                items,
            },
        ));
    }
}
