//! The shapes of types that `traced!` knows: through each of them a cycle is
//! found, and nothing that is held through it is lost.

use std::collections::{BTreeMap, HashMap, VecDeque};

use filed::heap::{Gc, GcCell, Generation, Heap, Link, Trace, traced};

traced! {
    /// A node whose value is of any shape.
    struct Node<T> {
        value: GcCell<Option<T>>,
    }

    struct Named { first: u8, node: Link<Node<Named>>, last: String }

    struct Tuple(u8, Gc<Node<Tuple>>, String);

    enum Shape {
        Empty,
        One(Gc<Node<Shape>>),
        Two(u8, Gc<Node<Shape>>),
        Fields { name: &'static str, node: Gc<Node<Shape>> },
    }

    enum Single { Only(Gc<Node<Single>>) }

    struct Unit;

    enum UnitEnum { Only }

    struct Pair<A, B: Clone> { a: A, b: B }

    struct Generic<A>(A, Vec<A>);

    enum Either<A, B> { This(A), That { it: B } }
}

/// Builds a cycle of one node through what `value` makes of it, and says how
/// many objects a collection finds before and after it is let go.
fn through<T: Trace>(value: impl FnOnce(Gc<Node<T>>) -> T) -> (u64, u64) {
    let heap = Heap::new();
    let value_of = GcCell::new(None);
    let node = heap
        .alloc(Node { value: value_of })
        .expect("no limit is set");
    assert!(Heap::is_tracked(&node));
    let inside = value(node.clone());
    node.value.replace(Some(inside));
    assert_eq!(Gc::count(&node), 2);
    let held = heap.collect(Generation::Old);
    assert!(node.value.borrow().is_some());
    drop(node);
    assert_eq!(heap.stats().live_objects, 1);
    let dropped = heap.collect(Generation::Old);
    assert_eq!(heap.stats().live_objects, 0);
    (held, dropped)
}

#[test]
fn a_cycle_through_named_fields_is_found() {
    let found = through(|node| Named {
        first: 1,
        node: Link::to(node),
        last: "last".into(),
    });
    assert_eq!(found, (0, 1));
}

#[test]
fn a_cycle_through_a_tuple_struct_is_found() {
    assert_eq!(through(|node| Tuple(1, node, String::new())), (0, 1));
}

#[test]
fn a_cycle_through_each_variant_of_an_enum_is_found() {
    assert_eq!(through(Shape::One), (0, 1));
    assert_eq!(through(|node| Shape::Two(2, node)), (0, 1));
    let fields = |node| Shape::Fields {
        name: "fields",
        node,
    };
    assert_eq!(through(fields), (0, 1));
    assert_eq!(through(Single::Only), (0, 1));
}

#[test]
fn a_variant_without_handles_holds_nothing() {
    let heap = Heap::new();
    let value = GcCell::new(Some(Shape::Empty));
    let node = heap.alloc(Node { value }).unwrap();
    drop(node.clone());
    assert_eq!(heap.collect(Generation::Old), 0);
    drop(node);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn a_cycle_through_generic_types_is_found() {
    traced! {
        struct Paired(Pair<Gc<Node<Paired>>, u8>);
        struct Listed(Generic<Gc<Node<Listed>>>);
        struct This(Either<Gc<Node<This>>, u8>);
        struct That(Either<u8, Gc<Node<That>>>);
    }
    assert_eq!(through(|node| Paired(Pair { a: node, b: 1 })), (0, 1));
    let listed = |node: Gc<Node<Listed>>| {
        let other = node.clone();
        drop(other);
        Listed(Generic(node, Vec::new()))
    };
    assert_eq!(through(listed), (0, 1));
    assert_eq!(through(|node| This(Either::This(node))), (0, 1));
    assert_eq!(through(|node| That(Either::That { it: node })), (0, 1));
}

#[test]
fn a_cycle_through_containers_is_found() {
    traced! {
        struct Boxed(Box<Gc<Node<Boxed>>>);
        struct Slice(Box<[Gc<Node<Slice>>]>);
        struct Array([Gc<Node<Array>>; 1]);
        struct Queue(VecDeque<Gc<Node<Queue>>>);
        struct Hashed(HashMap<u8, Gc<Node<Hashed>>>);
        struct Sorted(BTreeMap<u8, (u8, Gc<Node<Sorted>>)>);
        struct Tried(Result<Gc<Node<Tried>>, u8>);
    }
    assert_eq!(through(|node| Boxed(Box::new(node))), (0, 1));
    assert_eq!(through(|node| Slice([node].into())), (0, 1));
    assert_eq!(through(|node| Array([node])), (0, 1));
    assert_eq!(through(|node| Queue([node].into())), (0, 1));
    assert_eq!(through(|node| Hashed([(1, node)].into())), (0, 1));
    assert_eq!(through(|node| Sorted([(1, (2, node))].into())), (0, 1));
    assert_eq!(through(|node| Tried(Ok(node))), (0, 1));
}

#[test]
fn several_handles_to_one_object_are_one_cycle() {
    traced! {
        struct Many(u8, Gc<Node<Many>>, Vec<Gc<Node<Many>>>);
    }
    let heap = Heap::new();
    let value = GcCell::default();
    let node = heap.alloc(Node { value }).unwrap();
    let many = Many(0, node.clone(), vec![node.clone(), node.clone()]);
    node.value.replace(Some(many));
    assert_eq!(Gc::count(&node), 4);
    drop(node);
    assert_eq!(heap.collect(Generation::Young), 1);
}

#[test]
fn types_that_hold_no_handles_are_known_not_to_be_cyclic() {
    let heap = Heap::new();
    let _unit = heap.alloc(Unit).unwrap();
    let only = heap.alloc(UnitEnum::Only).unwrap();
    assert!(matches!(*only, UnitEnum::Only));
    let pair = heap.alloc(Pair { a: 1_u8, b: 2_u8 }).unwrap();
    assert_eq!((pair.a, pair.b), (1, 2));
    let text = heap
        .alloc(Generic(String::new(), vec!["a".into()]))
        .unwrap();
    assert_eq!(text.1.len(), 1);
    assert!(!Heap::is_tracked(&pair) && !Heap::is_tracked(&text));
    let types = heap.census();
    assert_eq!(types.types().len(), 4);
    assert!(types.types().iter().all(|of| of.objects == 1 && !of.cyclic));
    // The collector has nothing to look at, however often they are used.
    drop((pair.clone(), text.clone()));
    assert_eq!((heap.stats().candidates, heap.counts().0), (0, 0));
}

#[test]
fn cyclic_has_a_type_that_contains_itself_traced() {
    traced! {
        cyclic struct Nested {
            inner: Option<Box<Nested>>,
            node: Option<Gc<Node<Nested>>>,
        }
    }
    let found = through(|node| Nested {
        inner: Some(Box::new(Nested {
            inner: None,
            node: Some(node),
        })),
        node: None,
    });
    assert_eq!(found, (0, 1));
}

#[test]
fn acyclic_spares_the_collector_a_type_with_handles() {
    traced! {
        acyclic struct Entry {
            name: Gc<String>,
        }
    }
    let heap = Heap::new();
    let name = heap.alloc("name".to_owned()).unwrap();
    let entry = heap.alloc(Entry { name: name.clone() }).unwrap();
    assert!(!Heap::is_tracked(&entry));
    drop(entry.clone());
    assert_eq!(heap.stats().candidates, 0);
    assert_eq!(Gc::count(&entry.name), 2);
    drop(entry);
    assert_eq!(Gc::count(&name), 1);
}
