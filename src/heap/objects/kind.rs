//! Types of objects: what the collector knows of a type, and how many of its
//! objects there are.
//!
//! The rule that must hold: **a row's counts change with every object that
//! comes and goes**, so that a census costs what the number of types costs and
//! not what the number of objects costs.
#![expect(
    unsafe_code,
    reason = "rows are referred to from everywhere, and freed last"
)]

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::needs_drop;
use std::ptr::NonNull;

use super::core::Object;
use super::layout::class_of;
use super::trace::{Trace, Tracer};

/// What the collector knows of a type, whatever the type is.
pub(super) struct TypeInfo {
    pub(super) id: TypeId,
    pub(super) name: fn() -> &'static str,
    pub(super) class: usize,
    pub(super) cyclic: bool,
    pub(super) finalizes: bool,
    /// Reports the handles in the value of an object of this type.
    pub(super) trace: fn(Object, &mut Tracer),
    /// Runs the finalizer of an object of this type.
    pub(super) finalize: fn(Object),
    /// Drops the value of an object of this type, once; none if there is nothing to drop.
    pub(super) drop: Option<fn(Object)>,
}

/// Makes [`TypeInfo`]s.
pub(super) trait Describe: Trace + Sized {
    const INFO: TypeInfo = TypeInfo {
        id: TypeId::of::<Self>(),
        name: std::any::type_name::<Self>,
        class: class_of(size_of::<Self>(), align_of::<Self>(), Self::CYCLIC),
        cyclic: Self::CYCLIC,
        finalizes: Self::FINALIZES,
        trace: Object::trace_as::<Self>,
        finalize: Object::finalize_as::<Self>,
        drop: if needs_drop::<Self>() {
            Some(Object::drop_as::<Self>)
        } else {
            None
        },
    };
}

impl<T: Trace> Describe for T {}

/// What a heap knows of one type.
pub(super) struct Row {
    pub(super) info: Option<&'static TypeInfo>,
    pub(super) name: &'static str,
    /// Size of its slots in bytes; 0 for a type of external bytes only.
    pub(super) slot_bytes: u64,
    pub(super) kind: u16,
    /// Objects made, and freed. Two counts and not their difference: made and dropped in turns,
    /// neither waits for the other.
    pub(super) made: Cell<u64>,
    pub(super) freed: Cell<u64>,
    /// Bytes outside of the heap that objects of this type hold.
    pub(super) external: Cell<u64>,
}

impl Row {
    /// Objects that are there.
    pub(super) fn live(&self) -> u64 {
        self.made.get() - self.freed.get()
    }
}

/// A row of a heap that exists.
#[derive(Clone, Copy)]
pub(super) struct RowRef(NonNull<Row>);

impl std::ops::Deref for RowRef {
    type Target = Row;

    #[inline]
    fn deref(&self) -> &Row {
        // SAFETY: rows are freed with the heap's `Kinds`, which outlives every object and everything
        // else that has a `RowRef`, and they are only used through shared references to cells.
        unsafe { self.0.as_ref() }
    }
}

#[derive(Clone, Copy)]
struct Cached {
    key: *const (),
    row: Option<RowRef>,
}

const CACHED: usize = 64;

/// The types of a heap.
pub(super) struct Kinds {
    cache: [Cell<Cached>; CACHED],
    rows: RefCell<Vec<RowRef>>,
    by_type: RefCell<HashMap<TypeId, u16>>,
}

impl Kinds {
    pub(super) fn new() -> Self {
        Self {
            cache: std::array::from_fn(|_| {
                Cell::new(Cached {
                    key: std::ptr::null(),
                    row: None,
                })
            }),
            rows: RefCell::default(),
            by_type: RefCell::default(),
        }
    }

    /// The row of a type.
    #[inline]
    pub(super) fn row(&self, info: &'static TypeInfo) -> RowRef {
        let key = std::ptr::from_ref(info).cast::<()>();
        let cached = self.cache[key.addr() / 16 % CACHED].get();
        match cached.row {
            Some(row) if cached.key == key => row,
            _ => self.look_up(info),
        }
    }

    #[cold]
    fn look_up(&self, info: &'static TypeInfo) -> RowRef {
        let row = self.row_of(info.id, (info.name)(), Some(info));
        let key = std::ptr::from_ref(info).cast::<()>();
        self.cache[key.addr() / 16 % CACHED].set(Cached {
            key,
            row: Some(row),
        });
        row
    }

    /// The row of a type that is not one of objects, but holds bytes outside.
    pub(super) fn external_row<T: 'static>(&self) -> RowRef {
        self.row_of(TypeId::of::<T>(), std::any::type_name::<T>(), None)
    }

    fn row_of(&self, id: TypeId, name: &'static str, info: Option<&'static TypeInfo>) -> RowRef {
        let mut rows = self.rows.borrow_mut();
        let mut by_type = self.by_type.borrow_mut();
        if let Some(&kind) = by_type.get(&id)
            && (info.is_none() || rows[usize::from(kind)].info.is_some())
        {
            return rows[usize::from(kind)];
        }
        let kind = u16::try_from(rows.len()).expect("a heap is for at most 65,536 types");
        let row = RowRef(NonNull::from(Box::leak(Box::new(Row {
            info,
            name,
            slot_bytes: info.map_or(0, |info| super::layout::slot_bytes(info.class) as u64),
            kind,
            made: Cell::new(0),
            freed: Cell::new(0),
            external: Cell::new(0),
        }))));
        rows.push(row);
        by_type.insert(id, kind);
        row
    }

    /// The row with this number.
    #[inline]
    pub(super) fn numbered(&self, kind: u16) -> RowRef {
        self.rows.borrow()[usize::from(kind)]
    }

    /// Calls `each` with every row.
    pub(super) fn each(&self, mut each: impl FnMut(&Row)) {
        let count = self.rows.borrow().len();
        for kind in 0..count {
            let row = self.rows.borrow()[kind];
            each(&row);
        }
    }

    /// Objects that are there.
    pub(super) fn live(&self) -> u64 {
        let mut live = 0;
        self.each(|row| live += row.live());
        live
    }

    /// Bytes of the slots of objects that are there.
    pub(super) fn live_bytes(&self) -> u64 {
        let mut bytes = 0;
        self.each(|row| bytes += row.live() * row.slot_bytes);
        bytes
    }

    /// Objects that are there and may be in cycles.
    pub(super) fn live_cyclic(&self) -> u64 {
        let mut live = 0;
        self.each(|row| {
            if row.info.is_some_and(|info| info.cyclic) {
                live += row.live();
            }
        });
        live
    }
}

impl Drop for Kinds {
    fn drop(&mut self) {
        for row in self.rows.take() {
            // SAFETY: the row was leaked from a box in `row_of`, is in the list once, and the heap
            // is gone with all that referred to it.
            drop(unsafe { Box::from_raw(row.0.as_ptr()) });
        }
    }
}
