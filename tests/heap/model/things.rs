//! The objects of the model test: a type for each way of being in a heap, each
//! with a [`Tomb`] that tells the world of its end.

use std::rc::Rc;

use filed::heap::{External, Gc, GcCell, Link, Watch, Weak, leaf, traced};

use super::machine::World;
use super::op::{Habit, Kind};
use super::oracle::Id;

const CANARY: u64 = 0x5eed_cafe_f00d_d00d;

/// The part of an object that says who it is, and tells when it is dropped.
pub(super) struct Tomb {
    pub(super) id: Id,
    canary: u64,
    pub(super) at_finalizer: Habit,
    pub(super) at_drop: Habit,
    pub(super) world: Rc<World>,
}
leaf!(Tomb);

impl Tomb {
    pub(super) fn new(world: &Rc<World>, id: Id, at_finalizer: Habit, at_drop: Habit) -> Self {
        Self {
            id,
            canary: CANARY ^ u64::from(id),
            at_finalizer,
            at_drop,
            world: Rc::clone(world),
        }
    }

    /// Whether it is what it was made as.
    pub(super) fn is_whole(&self) -> bool {
        self.canary == CANARY ^ u64::from(self.id)
    }
}

impl Drop for Tomb {
    fn drop(&mut self) {
        if !self.is_whole() {
            // A heap would catch a panic here, and nothing can be relied on any more.
            eprintln!(
                "the value of object {} was dropped twice or overwritten",
                self.id
            );
            std::process::abort();
        }
        self.canary = 0;
        let world = Rc::clone(&self.world);
        world.on_drop(self.id, self.at_drop);
    }
}

traced! {
    /// What objects that may be in cycles hold. The tomb goes first.
    pub(super) struct Body {
        pub(super) tomb: Tomb,
        pub(super) fixed: Option<Any>,
        pub(super) plain: Link<Plain>,
        pub(super) last: Link<Last>,
        pub(super) many: GcCell<Vec<Any>>,
        pub(super) watch: GcCell<Option<Watch>>,
    }

    pub(super) struct Plain {
        pub(super) body: Body,
    }

    pub(super) struct Last {
        pub(super) body: Body,
    }
    finalize |this| {
        this.body.tomb.world.on_finalize(&Any::Last(this.clone()));
    }

    pub(super) acyclic struct Flat {
        pub(super) tomb: Tomb,
        pub(super) next: Option<Gc<Flat>>,
    }
    finalize |this| {
        this.tomb.world.on_finalize(&Any::Flat(this.clone()));
    }

    pub(super) acyclic struct Bulky {
        pub(super) tomb: Tomb,
        pub(super) bulk: Option<External<Vec<u8>>>,
        pub(super) pad: [u64; 2000],
    }

    /// A handle to an object of any type.
    #[derive(Clone)]
    pub(super) enum Any {
        Plain(Gc<Plain>),
        Last(Gc<Last>),
        Flat(Gc<Flat>),
        Bulky(Gc<Bulky>),
    }
}

impl Any {
    pub(super) fn tomb(&self) -> &Tomb {
        match self {
            Self::Plain(object) => &object.body.tomb,
            Self::Last(object) => &object.body.tomb,
            Self::Flat(object) => &object.tomb,
            Self::Bulky(object) => &object.tomb,
        }
    }

    pub(super) fn id(&self) -> Id {
        self.tomb().id
    }

    pub(super) fn body(&self) -> Option<&Body> {
        match self {
            Self::Plain(object) => Some(&object.body),
            Self::Last(object) => Some(&object.body),
            Self::Flat(_) | Self::Bulky(_) => None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Plain(_) => Kind::Plain,
            Self::Last(_) => Kind::Last,
            Self::Flat(_) => Kind::Flat,
            Self::Bulky(_) => Kind::Bulky,
        }
    }

    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Plain(object) => Gc::count(object),
            Self::Last(object) => Gc::count(object),
            Self::Flat(object) => Gc::count(object),
            Self::Bulky(object) => Gc::count(object),
        }
    }

    pub(super) fn address(&self) -> usize {
        match self {
            Self::Plain(object) => Gc::address(object),
            Self::Last(object) => Gc::address(object),
            Self::Flat(object) => Gc::address(object),
            Self::Bulky(object) => Gc::address(object),
        }
    }

    pub(super) fn downgrade(&self) -> AnyWeak {
        match self {
            Self::Plain(object) => AnyWeak::Plain(Gc::downgrade(object)),
            Self::Last(object) => AnyWeak::Last(Gc::downgrade(object)),
            Self::Flat(object) => AnyWeak::Flat(Gc::downgrade(object)),
            Self::Bulky(object) => AnyWeak::Bulky(Gc::downgrade(object)),
        }
    }
}

/// A weak reference to an object of any type.
#[derive(Clone)]
pub(super) enum AnyWeak {
    Plain(Weak<Plain>),
    Last(Weak<Last>),
    Flat(Weak<Flat>),
    Bulky(Weak<Bulky>),
}

impl AnyWeak {
    pub(super) fn upgrade(&self) -> Option<Any> {
        Some(match self {
            Self::Plain(weak) => Any::Plain(weak.upgrade()?),
            Self::Last(weak) => Any::Last(weak.upgrade()?),
            Self::Flat(weak) => Any::Flat(weak.upgrade()?),
            Self::Bulky(weak) => Any::Bulky(weak.upgrade()?),
        })
    }

    pub(super) fn watch(&self, callback: impl FnOnce() + 'static) -> Option<Watch> {
        match self {
            Self::Plain(weak) => weak.watch(callback),
            Self::Last(weak) => weak.watch(callback),
            Self::Flat(weak) => weak.watch(callback),
            Self::Bulky(weak) => weak.watch(callback),
        }
    }
}
