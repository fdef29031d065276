//! Reference counting: counts step by step, and the end with the last handle.

use std::cell::RefCell;
use std::rc::Rc;

use filed::heap::{Gc, Generation, Heap, Link, leaf, traced};

type Log = Rc<RefCell<Vec<&'static str>>>;

struct Told(Log);
leaf!(Told);

traced! {
    struct Noisy {
        name: &'static str,
        log: Told,
        next: Link<Noisy>,
    }
    finalize |this| {
        this.log.0.borrow_mut().push(this.name);
    }
}

fn noisy(heap: &Heap, log: &Log, name: &'static str) -> Gc<Noisy> {
    let value = Noisy {
        name,
        log: Told(Rc::clone(log)),
        next: Link::none(),
    };
    heap.alloc(value).expect("no limit is set")
}

#[test]
fn the_count_follows_every_handle() {
    let (heap, log) = (Heap::new(), Log::default());
    let first = noisy(&heap, &log, "first");
    assert_eq!(Gc::count(&first), 1);
    let second = first.clone();
    assert_eq!((Gc::count(&first), Gc::count(&second)), (2, 2));
    let list = vec![first.clone(), first.clone()];
    assert_eq!(Gc::count(&first), 4);
    drop(list);
    assert_eq!(Gc::count(&first), 2);
    drop(first);
    assert_eq!(Gc::count(&second), 1);
    assert!(log.borrow().is_empty());
    drop(second);
    assert_eq!(*log.borrow(), ["first"]);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_chain_of_ten_million_is_dropped_without_recursion() {
    traced! {
        struct Node { next: Option<Gc<Node>> }
    }
    let heap = Heap::new();
    let mut head = None;
    for _ in 0..10_000_000 {
        head = Some(heap.alloc(Node { next: head }).expect("no limit is set"));
    }
    assert_eq!(heap.stats().live_objects, 10_000_000);
    drop(head);
    heap.drain();
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_cycle_is_not_freed_before_a_collection() {
    let (heap, log) = (Heap::new(), Log::default());
    let one = noisy(&heap, &log, "one");
    let two = noisy(&heap, &log, "two");
    one.next.set(Some(two.clone()));
    two.next.set(Some(one.clone()));
    drop((one, two));
    assert!(log.borrow().is_empty());
    assert_eq!(heap.collect(Generation::Young), 2);
    assert_eq!(log.borrow().len(), 2);
    assert_eq!(heap.stats().live_objects, 0);
}
