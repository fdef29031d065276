//! Records of a fixed layout against records shaped as maps: what the fixed
//! layout saves is measured, bulk outside of the objects included.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use filed::heap::{Bulk, External, Gc, Heap, Trace, leaf, traced};

const RECORDS: u64 = 10_000;

traced! {
    struct Fixed { id: u64, name: &'static str, value: f64 }

    struct Linked { id: u64, value: f64, next: Option<Gc<Linked>> }

    /// As objects are where each has a map of its attributes.
    struct Mapped { fields: External<Fields> }

    struct Sorted { fields: External<SortedFields> }
}

#[derive(Clone, Copy)]
enum Value {
    Number(u64),
    Float(f64),
    Text(&'static str),
}
leaf!(Value);

struct Fields(HashMap<&'static str, Value>);

impl Bulk for Fields {
    fn bulk_bytes(&self) -> usize {
        hashed_bytes(&self.0)
    }
}

/// A hash map of the standard library has a power of two of places, an eighth
/// of them kept free, for each the pair and a byte, and 16 bytes at the end.
fn hashed_bytes<K: Eq + Hash, V>(map: &HashMap<K, V>) -> usize {
    let places = match map.capacity() {
        0 => return 0,
        few @ 1..=7 => few + 1,
        many => many / 7 * 8,
    };
    places * (size_of::<(K, V)>() + 1) + 16
}

struct SortedFields(BTreeMap<&'static str, Value>);

impl Bulk for SortedFields {
    /// A node has room for eleven pairs, whatever is in it; the rest of it is left out.
    fn bulk_bytes(&self) -> usize {
        self.0.len().div_ceil(11) * 11 * size_of::<(&str, Value)>()
    }
}

fn fields(id: u64) -> [(&'static str, Value); 3] {
    [
        ("id", Value::Number(id)),
        ("name", Value::Text("record")),
        ("value", Value::Float(id as f64 / 2.0)),
    ]
}

fn number(value: Value) -> f64 {
    match value {
        Value::Number(number) => number as f64,
        Value::Float(float) => float,
        Value::Text(text) => text.len() as f64,
    }
}

/// Bytes that one record takes, as the heap accounts for them.
fn bytes_each<T: Trace>(make: impl Fn(&Heap, u64) -> T, sum: impl Fn(&T) -> f64) -> f64 {
    let heap = Heap::new();
    let records: Vec<Gc<T>> = (0..RECORDS)
        .map(|id| {
            let record = make(&heap, id);
            heap.alloc(record).expect("no limit is set")
        })
        .collect();
    // All of them say the same, whatever their shape.
    let found: f64 = records.iter().map(|of| sum(of)).sum();
    let ids: f64 = (0..RECORDS).map(|id| id as f64).sum();
    assert_eq!(found, 1.5 * ids + 6.0 * RECORDS as f64);
    let census = heap.census();
    let stats = heap.stats();
    assert_eq!(census.of::<T>().objects, RECORDS);
    assert_eq!(census.bytes(), stats.live_bytes);
    // The slabs are full but for the last one.
    assert!(stats.held_bytes - stats.external_bytes < census.bytes() / 20 * 21 + (64 << 10));
    let bytes = (census.bytes() + stats.external_bytes) as f64 / RECORDS as f64;
    drop(records);
    let stats = heap.stats();
    assert_eq!((stats.live_bytes, stats.external_bytes), (0, 0));
    bytes
}

fn fixed_bytes() -> f64 {
    let make = |_: &Heap, id| Fixed {
        id,
        name: "record",
        value: id as f64 / 2.0,
    };
    bytes_each(make, |of| of.id as f64 + of.value + of.name.len() as f64)
}

#[test]
fn a_fixed_record_of_three_fields_takes_at_most_forty_bytes() {
    let fixed = fixed_bytes();
    assert!(fixed <= 40.0, "{fixed}");
    // Fields, header, and nothing else.
    assert_eq!(fixed, (size_of::<Fixed>() + 8) as f64);
}

#[test]
fn a_record_that_may_be_in_cycles_takes_at_most_forty_bytes() {
    let heap = Heap::new();
    let mut last = None;
    for id in 0..RECORDS {
        let value = id as f64;
        let record = Linked {
            id,
            value,
            next: last,
        };
        last = Some(heap.alloc(record).unwrap());
    }
    let mut sum = 0.0;
    let mut at = last.as_ref();
    while let Some(record) = at {
        sum += record.value - record.id as f64 + 1.0;
        at = record.next.as_ref();
    }
    assert_eq!(sum, RECORDS as f64);
    assert_eq!(heap.stats().live_bytes / RECORDS, 40);
}

#[test]
fn records_shaped_as_maps_take_a_multiple_of_that() {
    let fixed = fixed_bytes();
    let sum = |fields: &mut dyn Iterator<Item = &Value>| fields.map(|&of| number(of)).sum();
    let mapped = bytes_each(
        |heap, id| {
            let fields = External::new(heap, Fields(fields(id).into()));
            let fields = fields.expect("no limit is set");
            Mapped { fields }
        },
        |of| sum(&mut of.fields.0.values()),
    );
    let sorted = bytes_each(
        |heap, id| {
            let fields = External::new(heap, SortedFields(fields(id).into()));
            let fields = fields.expect("no limit is set");
            Sorted { fields }
        },
        |of| sum(&mut of.fields.0.values()),
    );
    for (shape, bytes) in [("hash map", mapped), ("sorted map", sorted)] {
        let saving = 100.0 * (1.0 - fixed / bytes);
        println!("{shape}: {bytes} bytes a record, fixed: {fixed}, saving {saving:.0} %");
        assert!(bytes > 2.0 * fixed, "{shape}: {bytes} against {fixed}");
    }
}
