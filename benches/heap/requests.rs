//! Target 11: collections between requests, with a million objects alive.
//!
//! A request makes a hundred records with a list of five relations each, which
//! know their record: seven hundred objects in cycles. It reads them all, and
//! forgets them.

use std::fmt::Write;

use filed::heap::{Gc, GcCell, Heap, Link, traced};

use crate::child::Numbers;
use crate::measure::{Series, cpu};
use crate::peers::put;
use crate::table::{Aim, Table, Unit};

const REQUESTS: usize = 2000;
const LIVE: u64 = 1_000_000;
const ROUNDS: usize = 5;

traced! {
    struct Relation {
        kind: u64,
        name: String,
        of: Link<Record>,
    }
    struct Relations(GcCell<Vec<Gc<Relation>>>);
    struct Record {
        number: u64,
        name: String,
        relations: Gc<Relations>,
    }
}

/// How a round went.
struct Round {
    per_second: f64,
    p99: f64,
    longest: f64,
}

pub(crate) fn target(table: &mut Table, python: &Numbers) {
    let (mut off, mut scoped, mut automatic) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(round(Mode::Off));
        scoped.push(round(Mode::Scoped));
        automatic.push(round(Mode::Automatic));
    }
    let series = |rounds: &[Round], of: fn(&Round) -> f64| Series::of(rounds.iter().map(of));
    let speed = |rounds: &[Round]| series(rounds, |round| round.per_second);
    let shares = Series::one(speed(&scoped).ratio_to(&speed(&off)));
    let what = "1M live, cycles: requests collected after, of off";
    table.alone(what, Unit::Percent, &shares, Aim::AtLeast(0.97));
    let anchor = ("collector off (leaks)", &speed(&off));
    table.against(
        "requests, collected after each",
        Unit::PerSecond,
        &speed(&scoped),
        anchor,
        Aim::Seen,
    );
    table.against(
        "requests, automatic",
        Unit::PerSecond,
        &speed(&automatic),
        anchor,
        Aim::Seen,
    );
    for (name, number) in [("CPython scoped", "scoped"), ("CPython off", "off")] {
        let theirs = (name, python.find(&format!("requests_{number}")));
        table.against_one(
            "requests, collected after each",
            Unit::PerSecond,
            &speed(&scoped),
            theirs,
            Aim::Seen,
        );
    }
    let p99 = |rounds: &[Round]| series(rounds, |round| round.p99);
    let anchor = ("collector off (leaks)", &p99(&off));
    table.against(
        "request and collection: p99",
        Unit::Micros,
        &p99(&scoped),
        anchor,
        Aim::Ratio(1.1),
    );
    let theirs = ("CPython scoped", python.find("requests_scoped_p99"));
    table.against_one(
        "request and collection: p99",
        Unit::Micros,
        &p99(&scoped),
        theirs,
        Aim::Seen,
    );
    let longest = series(&scoped, |round| round.longest);
    table.alone(
        "longest pause after a request, CPU",
        Unit::Micros,
        &longest,
        Aim::AtMost(500e-6),
    );
    let theirs = ("CPython scoped", python.find("requests_scoped_longest"));
    table.against_one(
        "longest pause after a request, CPU",
        Unit::Micros,
        &longest,
        theirs,
        Aim::Seen,
    );
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Off,
    Automatic,
    Scoped,
}

fn round(mode: Mode) -> Round {
    let heap = Heap::new();
    let live = live(&heap);
    if mode == Mode::Off {
        heap.disable();
    }
    let mut units = (mode == Mode::Scoped).then(|| heap.units());
    let mut text = String::with_capacity(1 << 16);
    let (mut took, mut longest) = (Vec::with_capacity(REQUESTS), 0.0_f64);
    let begin = cpu();
    for number in 0..REQUESTS as u64 {
        let start = cpu();
        let unit = units.as_mut().map(filed::heap::Units::unit);
        request(&heap, number, &mut text);
        let end = cpu();
        drop(unit);
        longest = longest.max((cpu() - end).as_secs_f64());
        took.push((cpu() - start).as_secs_f64());
    }
    let all = (cpu() - begin).as_secs_f64();
    drop(units);
    drop(live);
    Round {
        per_second: REQUESTS as f64 / all,
        p99: Series::of(took).quantile(0.99),
        longest,
    }
}

/// What the program holds anyway: records that relate to each other, all of them old.
fn live(heap: &Heap) -> Vec<Gc<Record>> {
    let records = (0..LIVE / 7).map(|number| record(heap, number));
    let records = records.collect();
    heap.collect(filed::heap::Generation::Old);
    records
}

fn record(heap: &Heap, number: u64) -> Gc<Record> {
    let relations = GcCell::new(Vec::with_capacity(5));
    let relations = put(heap, Relations(relations));
    let name = format!("record-{number}");
    let record = Record {
        number,
        name,
        relations,
    };
    let record = put(heap, record);
    for kind in 0..5 {
        let name = format!("relation-{kind}");
        let of = Link::to(record.clone());
        let relation = put(heap, Relation { kind, name, of });
        record.relations.0.borrow_mut().push(relation);
    }
    record
}

fn request(heap: &Heap, number: u64, text: &mut String) {
    text.clear();
    let records: Vec<_> = (0..100).map(|at| record(heap, number + at)).collect();
    for record in &records {
        let relations = record.relations.0.borrow();
        for relation in &*relations {
            let of = relation.of.get().map_or(0, |of| of.number);
            let _ = writeln!(
                text,
                "{} {}: {} {of}",
                record.name, relation.name, relation.kind
            );
        }
    }
    std::hint::black_box(&*text);
}
