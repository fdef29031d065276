//! The same objects on our heap and on the anchors'.
//!
//! A node has three links and a number; a hub has a list of links to its own
//! type. Each is made of what its library offers: cells of the standard
//! library where they are allowed.

use std::cell::RefCell;
use std::rc::Rc;

use filed::heap::{Gc, GcCell, Generation, Heap, Link, leaf, traced};

/// A record that cannot be in a cycle.
pub(crate) struct Record {
    #[expect(dead_code, reason = "is there for its size")]
    pub(crate) fields: [u64; 3],
}
leaf!(Record);

traced! {
    pub(crate) struct Node {
        pub(crate) left: Link<Node>,
        pub(crate) right: Link<Node>,
        pub(crate) parent: Link<Node>,
        pub(crate) number: u64,
    }

    pub(crate) struct Hub {
        hubs: GcCell<Vec<Gc<Hub>>>,
    }
}

impl Node {
    pub(crate) const fn new(number: u64) -> Self {
        Self {
            left: Link::none(),
            right: Link::none(),
            parent: Link::none(),
            number,
        }
    }
}

/// Puts on the heap what has no reason not to fit.
#[inline]
pub(crate) fn put<T: filed::heap::Trace>(heap: &Heap, value: T) -> Gc<T> {
    heap.alloc(value).expect("the heap has no limit")
}

/// Where a child hangs.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A library that counts handles.
pub(crate) trait Peer {
    type Node: Clone;
    type Hub: Clone;

    fn node(&self, number: u64) -> Self::Node;
    /// Lets two nodes link to each other.
    fn entangle(&self, one: &Self::Node, other: &Self::Node);
    /// Makes a node the left or the right child of another, which it knows as its parent.
    fn hang(&self, child: &Self::Node, side: Side, under: &Self::Node);
    /// Links a node to another in one direction.
    fn point(&self, from: &Self::Node, to: &Self::Node);
    fn hub(&self) -> Self::Hub;
    fn change<R>(hub: &Self::Hub, change: impl FnOnce(&mut Vec<Self::Hub>) -> R) -> R;
    fn collect(&self);
}

impl Peer for Heap {
    type Node = Gc<Node>;
    type Hub = Gc<Hub>;

    #[inline]
    fn node(&self, number: u64) -> Gc<Node> {
        put(self, Node::new(number))
    }

    #[inline]
    fn entangle(&self, one: &Gc<Node>, other: &Gc<Node>) {
        one.left.set(Some(other.clone()));
        other.left.set(Some(one.clone()));
    }

    #[inline]
    fn hang(&self, child: &Gc<Node>, side: Side, under: &Gc<Node>) {
        child.parent.set(Some(under.clone()));
        let link = match side {
            Side::Left => &under.left,
            Side::Right => &under.right,
        };
        link.set(Some(child.clone()));
    }

    #[inline]
    fn point(&self, from: &Gc<Node>, to: &Gc<Node>) {
        from.left.set(Some(to.clone()));
    }

    #[inline]
    fn hub(&self) -> Gc<Hub> {
        let hubs = GcCell::new(Vec::new());
        put(self, Hub { hubs })
    }

    #[inline]
    fn change<R>(hub: &Gc<Hub>, change: impl FnOnce(&mut Vec<Gc<Hub>>) -> R) -> R {
        change(&mut hub.hubs.borrow_mut())
    }

    fn collect(&self) {
        Heap::collect(self, Generation::Old);
    }
}

macro_rules! shapes {
    ($(#[$derive:meta])* $handle:ident, $node:ident, $hub:ident) => {
        $(#[$derive])*
        pub(crate) struct $node {
            left: RefCell<Option<$handle<$node>>>,
            right: RefCell<Option<$handle<$node>>>,
            parent: RefCell<Option<$handle<$node>>>,
            #[allow(dead_code, reason = "the same fields everywhere")]
            number: u64,
        }

        $(#[$derive])*
        pub(crate) struct $hub {
            hubs: RefCell<Vec<$handle<$hub>>>,
        }
    };
}

macro_rules! peer {
    ($peer:ident: $handle:ident, $node:ident, $hub:ident, $collect:expr) => {
        pub(crate) struct $peer;

        impl Peer for $peer {
            type Node = $handle<$node>;
            type Hub = $handle<$hub>;

            #[inline]
            fn node(&self, number: u64) -> Self::Node {
                $handle::new($node {
                    left: RefCell::new(None),
                    right: RefCell::new(None),
                    parent: RefCell::new(None),
                    number,
                })
            }

            #[inline]
            fn entangle(&self, one: &Self::Node, other: &Self::Node) {
                *one.left.borrow_mut() = Some(other.clone());
                *other.left.borrow_mut() = Some(one.clone());
            }

            #[inline]
            fn hang(&self, child: &Self::Node, side: Side, under: &Self::Node) {
                *child.parent.borrow_mut() = Some(under.clone());
                let link = match side {
                    Side::Left => &under.left,
                    Side::Right => &under.right,
                };
                *link.borrow_mut() = Some(child.clone());
            }

            #[inline]
            fn point(&self, from: &Self::Node, to: &Self::Node) {
                *from.left.borrow_mut() = Some(to.clone());
            }

            #[inline]
            fn hub(&self) -> Self::Hub {
                $handle::new($hub {
                    hubs: RefCell::new(Vec::new()),
                })
            }

            #[inline]
            fn change<R>(hub: &Self::Hub, change: impl FnOnce(&mut Vec<Self::Hub>) -> R) -> R {
                change(&mut hub.hubs.borrow_mut())
            }

            fn collect(&self) {
                $collect
            }
        }
    };
}

use bacon_rajan_cc::Cc as BaconHandle;
use dumpster::unsync::Gc as DumpsterHandle;
use rust_cc::Cc as RustCcHandle;

shapes!(Rc, CountedNode, CountedHub);
shapes!(BaconHandle, BaconNode, BaconHub);
shapes!(
    #[derive(rust_cc::Trace, rust_cc::Finalize)]
    RustCcHandle,
    RustCcNode,
    RustCcHub
);

// Its derive does not work on what a macro has made.
#[derive(dumpster::Trace)]
pub(crate) struct DumpsterNode {
    left: RefCell<Option<DumpsterHandle<DumpsterNode>>>,
    right: RefCell<Option<DumpsterHandle<DumpsterNode>>>,
    parent: RefCell<Option<DumpsterHandle<DumpsterNode>>>,
    #[allow(dead_code, reason = "the same fields everywhere")]
    number: u64,
}

#[derive(dumpster::Trace)]
pub(crate) struct DumpsterHub {
    hubs: RefCell<Vec<DumpsterHandle<DumpsterHub>>>,
}

peer!(Counted: Rc, CountedNode, CountedHub, ());
peer!(Bacon: BaconHandle, BaconNode, BaconHub, bacon_rajan_cc::collect_cycles());
peer!(Dumpster: DumpsterHandle, DumpsterNode, DumpsterHub, dumpster::unsync::collect());
peer!(RustCc: RustCcHandle, RustCcNode, RustCcHub, rust_cc::collect_cycles());

impl bacon_rajan_cc::Trace for BaconNode {
    fn trace(&self, tracer: &mut bacon_rajan_cc::Tracer) {
        self.left.trace(tracer);
        self.right.trace(tracer);
        self.parent.trace(tracer);
    }
}

impl bacon_rajan_cc::Trace for BaconHub {
    fn trace(&self, tracer: &mut bacon_rajan_cc::Tracer) {
        self.hubs.trace(tracer);
    }
}

/// A node of gc-arena, which does not count: everything in it is found by marking.
#[derive(gc_arena::Collect)]
#[collect(no_drop)]
pub(crate) struct ArenaNode<'gc> {
    pub(crate) left: ArenaLink<'gc>,
    pub(crate) right: ArenaLink<'gc>,
    pub(crate) parent: ArenaLink<'gc>,
    pub(crate) number: u64,
}

/// A link of gc-arena.
pub(crate) type ArenaLink<'gc> = gc_arena::Lock<Option<gc_arena::Gc<'gc, ArenaNode<'gc>>>>;

impl ArenaNode<'_> {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            left: gc_arena::Lock::new(None),
            right: gc_arena::Lock::new(None),
            parent: gc_arena::Lock::new(None),
            number,
        }
    }
}
