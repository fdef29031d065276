//! Three leaks as programs have them, and that the report finds each: what
//! grows, what only cycles hold, and who holds it.

use std::collections::HashMap;

use filed::heap::{External, Gc, GcCell, Generation, GroupBy, Heap, LeakReport, Link, traced};

use crate::Log;

fn name<T>() -> &'static str {
    std::any::type_name::<T>()
}

traced! {
    struct Entry { bulk: External<Vec<u8>> }

    /// A cache that nobody ever empties.
    struct Cache { entries: GcCell<HashMap<u64, Gc<Entry>>> }

    struct Server { cache: Gc<Cache>, requests: GcCell<Vec<Gc<u64>>> }
}

fn server(heap: &Heap) -> Gc<Server> {
    let entries = GcCell::default();
    let cache = heap.alloc(Cache { entries }).expect("no limit is set");
    let requests = GcCell::default();
    heap.alloc(Server { cache, requests })
        .expect("no limit is set")
}

/// Answers a request, and remembers the answer.
fn answer(heap: &Heap, server: &Server, request: u64) {
    let bulk = External::new(heap, vec![0; 1000]).expect("no limit is set");
    let entry = heap.alloc(Entry { bulk }).expect("no limit is set");
    assert_eq!(entry.bulk.len(), 1000);
    server.cache.entries.borrow_mut().insert(request, entry);
}

#[test]
fn an_ever_growing_cache_is_found_and_its_holders_named() {
    let heap = Heap::new();
    heap.trace_allocations(2);
    let server = server(&heap);
    (0..100).for_each(|request| answer(&heap, &server, request));
    let mark = heap.snapshot("warm");
    {
        let _frame = heap.frame("requests");
        (100..600).for_each(|request| answer(&heap, &server, request));
        // What comes and goes is no leak.
        server.requests.borrow_mut().push(heap.alloc(1).unwrap());
        server.requests.borrow_mut().clear();
    }
    let report = heap.leaks(&mark);
    let grown = report.grown::<Entry>().unwrap();
    assert_eq!(grown.growth.objects, 500);
    let chain = vec![name::<Entry>(), name::<Cache>(), name::<Server>()];
    assert_eq!(grown.held_by.len(), 1);
    assert_eq!(grown.held_by[0].1, chain);
    assert!(grown.held_by[0].0 > 0);
    // Its bulk grew most, and stands first.
    assert_eq!(report.grown[0].growth.name, name::<Vec<u8>>());
    assert_eq!(report.grown[0].growth.bytes, 500_000);
    assert_eq!(report.sites.len(), 1);
    assert!(report.sites[0].site.file.ends_with("leaks.rs"));
    assert_eq!(report.sites[0].site.frames, ["requests"]);
    assert!(report.grown::<u64>().is_none() && report.cycles.is_empty());
    let text = report.to_string();
    let chain = chain.join(" <- ");
    assert!(
        text.contains(&format!("held by {chain} <- outside")),
        "{text}"
    );
}

#[test]
fn a_cache_that_is_emptied_is_no_leak() {
    let heap = Heap::new();
    let server = server(&heap);
    let mark = heap.snapshot("start");
    (0..100).for_each(|request| answer(&heap, &server, request));
    assert!(!heap.leaks(&mark).is_empty());
    server.cache.entries.borrow_mut().clear();
    let report = heap.leaks(&mark);
    assert!(report.is_empty(), "{report}");
    assert_eq!(
        report.to_string(),
        "nothing grew, and nothing is held by cycles only\n"
    );
}

traced! {
    struct Parent { children: GcCell<Vec<Gc<Child>>> }

    /// Knows its parent, and has something to do at its end.
    struct Child { parent: Link<Parent>, log: Log }
    finalize |this| {
        this.log.say("closed");
    }
}

#[test]
fn cycles_with_finalizers_that_nobody_collects_are_found() {
    let heap = Heap::new();
    heap.disable();
    let log = Log::default();
    let family = || {
        let children = GcCell::default();
        let parent = heap.alloc(Parent { children }).unwrap();
        for _ in 0..2 {
            let (link, log) = (Link::to(parent.clone()), log.clone());
            let child = heap.alloc(Child { parent: link, log }).unwrap();
            parent.children.borrow_mut().push(child);
        }
        parent
    };
    let kept = family();
    let mark = heap.snapshot("start");
    for _ in 0..50 {
        family();
    }
    let report = heap.leaks(&mark);
    let children = report.cycles_of::<Child>().unwrap();
    assert_eq!((children.objects, children.finalizes), (100, true));
    assert_eq!(children.held_by, [(name::<Parent>(), 100)]);
    let parents = report.cycles_of::<Parent>().unwrap();
    assert_eq!((parents.objects, parents.finalizes), (50, false));
    assert_eq!(parents.held_by, [(name::<Child>(), 100)]);
    assert!(parents.bytes > 0 && children.bytes > 0);
    // The report changes nothing, and what is in use is not in it as a cycle.
    assert_eq!(heap.stats().live_objects, 153);
    assert!(log.take().is_empty());
    let text = report.to_string();
    assert!(
        text.contains("100 objects, ") && text.contains("with a finalizer"),
        "{text}"
    );
    assert_eq!(heap.collect(Generation::Old), 150);
    assert_eq!(log.take().len(), 100);
    let report = heap.leaks(&mark);
    assert!(report.is_empty(), "{report}");
    assert_eq!(kept.children.borrow().len(), 2);
}

traced! {
    /// All that was at hand when the closure below was made.
    struct Surroundings { title: String, table: Gc<Table> }

    struct Table { rows: External<Vec<u64>> }

    /// What a closure is: what it captured, and the code. It needs the title only.
    struct Closure { captured: Gc<Surroundings> }

    struct Handlers { handlers: GcCell<Vec<Gc<Closure>>> }
}

impl Closure {
    fn call(&self) -> usize {
        self.captured.title.len()
    }
}

#[test]
fn a_closure_that_captures_more_than_it_uses_is_found_to_hold_it() {
    let heap = Heap::new();
    let handlers = GcCell::default();
    let handlers = heap.alloc(Handlers { handlers }).unwrap();
    let mark = heap.snapshot("start");
    for at in 0..10 {
        let rows = External::new(&heap, vec![at; 10_000]).unwrap();
        let table = heap.alloc(Table { rows }).unwrap();
        assert_eq!(table.rows[0], at);
        let title = format!("table {at}");
        let captured = heap.alloc(Surroundings { title, table }).unwrap();
        let closure = heap.alloc(Closure { captured }).unwrap();
        handlers.handlers.borrow_mut().push(closure);
    }
    let report: LeakReport = heap.leaks(&mark);
    let tables = report.grown::<Table>().unwrap();
    assert_eq!(tables.growth.objects, 10);
    let chain = vec![
        name::<Table>(),
        name::<Surroundings>(),
        name::<Closure>(),
        name::<Handlers>(),
    ];
    assert_eq!(tables.held_by, [(10, chain)]);
    let bulk = report.grown::<Vec<u64>>().unwrap();
    assert_eq!(bulk.growth.bytes, 800_000);
    // What the closures use is a thousandth of that.
    let used: usize = handlers.handlers.borrow().iter().map(|of| of.call()).sum();
    assert_eq!(used, 70);
    let types = heap.snapshot("now").compare(&mark, GroupBy::Line).types;
    assert_eq!(types[0].name, name::<Vec<u64>>());
}

#[test]
fn the_chain_of_a_long_list_is_one_link() {
    traced! {
        struct Item { before: Option<Gc<Item>> }
        struct List { last: GcCell<Option<Gc<Item>>> }
    }
    let heap = Heap::new();
    let last = GcCell::default();
    let list = heap.alloc(List { last }).unwrap();
    let mark = heap.snapshot("start");
    for _ in 0..1000 {
        let before = list.last.borrow_mut().take();
        let item = heap.alloc(Item { before }).unwrap();
        list.last.replace(Some(item));
    }
    let report = heap.leaks(&mark);
    let items = report.grown::<Item>().unwrap();
    assert_eq!(items.held_by.len(), 1);
    assert_eq!(items.held_by[0].1, [name::<Item>(), name::<List>()]);
    let first = list.last.borrow().clone().unwrap();
    assert!(first.before.is_some());
}
