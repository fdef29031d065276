//! Seeing what is on a heap: a census by type, single objects, and who holds
//! whom.
//!
//! The rule that must hold: **a census costs what the number of types costs.**
//! Everything else here walks over the objects and says so.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use super::core::{Core, Object};
use super::handle::Gc;
use super::heap::Heap;
use super::snapshot::SiteName;
use super::stats::Generation;
use super::trace::{Trace, Tracer};

/// How many objects of one type there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeCount {
    /// Name of the type.
    pub name: &'static str,
    /// Objects that are there.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: u64,
    /// Bytes outside of the heap that values of this type hold, see [`External`](super::External).
    pub external_bytes: u64,
    /// Whether the collector is concerned with objects of this type.
    pub cyclic: bool,
}

/// How many objects of each type there are; most common first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    types: Vec<TypeCount>,
}

impl Census {
    /// All types of which there is something, most common first.
    #[must_use]
    pub fn types(&self) -> &[TypeCount] {
        &self.types
    }

    /// The row of a type; all zero if there is nothing of it.
    #[must_use]
    pub fn of<T: 'static>(&self) -> TypeCount {
        let name = std::any::type_name::<T>();
        let found = self.types.iter().find(|row| row.name == name);
        found.copied().unwrap_or(TypeCount {
            name,
            objects: 0,
            bytes: 0,
            external_bytes: 0,
            cyclic: false,
        })
    }

    /// Objects of all types.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.types.iter().map(|row| row.objects).sum()
    }

    /// Bytes of the slots of all objects.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.types.iter().map(|row| row.bytes).sum()
    }

    /// What has changed since an earlier census; what grew most comes first.
    #[must_use]
    pub fn growth_since(&self, mark: &Census) -> Vec<TypeGrowth> {
        let mut before: HashMap<&str, &TypeCount> =
            mark.types.iter().map(|row| (row.name, row)).collect();
        let signed = |now: u64, then: u64| now.wrapping_sub(then).cast_signed();
        let mut growth: Vec<TypeGrowth> = self
            .types
            .iter()
            .map(|row| {
                let then = before.remove(row.name);
                TypeGrowth {
                    name: row.name,
                    objects: signed(row.objects, then.map_or(0, |then| then.objects)),
                    bytes: signed(
                        row.bytes + row.external_bytes,
                        then.map_or(0, |then| then.bytes + then.external_bytes),
                    ),
                }
            })
            .collect();
        growth.extend(before.into_values().map(|then| TypeGrowth {
            name: then.name,
            objects: signed(0, then.objects),
            bytes: signed(0, then.bytes + then.external_bytes),
        }));
        growth.retain(|of| (of.objects, of.bytes) != (0, 0));
        growth.sort_by_key(|of| (Reverse(of.bytes), Reverse(of.objects), of.name));
        growth
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.types {
            write!(f, "{:>10} objects {:>12} bytes", row.objects, row.bytes)?;
            if row.external_bytes > 0 {
                write!(f, " and {} outside", row.external_bytes)?;
            }
            writeln!(f, "  {}", row.name)?;
        }
        Ok(())
    }
}

/// How a type has grown, or shrunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeGrowth {
    /// Name of the type.
    pub name: &'static str,
    /// Objects more.
    pub objects: i64,
    /// Bytes more, of slots and outside.
    pub bytes: i64,
}

/// An object, to be asked about. Holds nothing: a later object may come to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(usize);

impl ObjectId {
    /// The object a handle is for.
    #[must_use]
    pub fn of<T: Trace>(object: &Gc<T>) -> Self {
        Self(Gc::address(object))
    }

    /// Where its value is.
    #[must_use]
    pub const fn address(self) -> usize {
        self.0
    }
}

/// What is known of one object.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Which.
    pub id: ObjectId,
    /// Name of its type.
    pub type_name: &'static str,
    /// Its generation.
    pub generation: Generation,
    /// Handles to it.
    pub count: u32,
    /// Bytes of its slot.
    pub bytes: u64,
    /// Where it was allocated, if that was noted.
    pub site: Option<SiteName>,
}

impl Heap {
    /// How many objects of each type there are.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut types = Vec::new();
        self.core().kinds.each(|row| {
            let (objects, external_bytes) = (row.live(), row.external.get());
            if objects > 0 || external_bytes > 0 {
                types.push(TypeCount {
                    name: row.name,
                    objects,
                    bytes: objects * row.slot_bytes,
                    external_bytes,
                    cyclic: row.info.is_some_and(|info| info.cyclic),
                });
            }
        });
        // A type can have two rows: one for its objects, and one for its external bytes.
        types.sort_by_key(|row: &TypeCount| row.name);
        types.dedup_by(|row, of| {
            let same = row.name == of.name;
            if same {
                of.objects += row.objects;
                of.bytes += row.bytes;
                of.external_bytes += row.external_bytes;
                of.cyclic |= row.cyclic;
            }
            same
        });
        types.sort_by_key(|row| (Reverse(row.objects), Reverse(row.external_bytes), row.name));
        Census { types }
    }

    /// The objects of a generation, or all. Walks over all objects.
    #[must_use]
    pub fn objects(&self, generation: Option<Generation>) -> Vec<ObjectInfo> {
        let core = self.core();
        let mut found = Vec::new();
        core.each_object(|object| {
            if generation.is_none_or(|of| of == generation_of(object)) {
                found.push(core.describe(object));
            }
        });
        found
    }

    /// How many objects of each type there are in a generation; most common
    /// first. Walks over all objects.
    #[must_use]
    pub fn types_in(&self, generation: Generation) -> Vec<(&'static str, u64)> {
        let mut types: HashMap<&'static str, u64> = HashMap::new();
        self.core().each_object(|object| {
            if generation_of(object) == generation {
                *types.entry(object.row().name).or_default() += 1;
            }
        });
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by_key(|&(name, objects)| (Reverse(objects), name));
        types
    }

    /// How many objects there are in each generation. Walks over all objects.
    #[must_use]
    pub fn objects_by_generation(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        self.core()
            .each_object(|object| counts[generation_of(object).number()] += 1);
        counts
    }

    /// What is known of an object; none if it is not there any more. Walks over
    /// the objects until it is found.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> Option<ObjectInfo> {
        let found = self.find(id)?;
        Some(self.core().describe(found))
    }

    /// The objects that hold a handle to this one, each once. Walks over all objects.
    ///
    /// Types declared `acyclic`, and values in cells that are lent for change,
    /// do not say what they hold.
    #[must_use]
    pub fn referrers(&self, id: ObjectId) -> Vec<ObjectInfo> {
        let core = self.core();
        let mut tracer = Tracer::of_all();
        let mut found = Vec::new();
        core.each_object(|object| {
            let mut holds = false;
            core.each_edge(object, &mut tracer, |held| {
                holds |= held.address().addr().get() == id.0;
            });
            if holds {
                found.push(core.describe(object));
            }
        });
        found
    }

    /// The objects that this one holds handles to, once for each handle.
    #[must_use]
    pub fn referents(&self, id: ObjectId) -> Vec<ObjectInfo> {
        let core = self.core();
        let mut found = Vec::new();
        if let Some(object) = self.find(id) {
            core.each_edge(object, &mut Tracer::of_all(), |held| {
                // It may be of another heap.
                found.push(held.core().describe(held));
            });
        }
        found
    }

    /// Whether the collector is concerned with the object: whether its type may
    /// be part of a cycle.
    #[must_use]
    pub fn is_tracked<T: Trace>(_object: &Gc<T>) -> bool {
        T::CYCLIC
    }

    fn find(&self, id: ObjectId) -> Option<Object> {
        let mut found = None;
        // An address that is of no object leads nowhere, so it is compared and never followed.
        self.core().each_object(|object| {
            if object.address().addr().get() == id.0 {
                found = Some(object);
            }
        });
        found
    }
}

fn generation_of(object: Object) -> Generation {
    Generation::ALL[usize::from(object.generation().min(2))]
}

impl Core {
    fn describe(&self, object: Object) -> ObjectInfo {
        ObjectInfo {
            id: ObjectId(object.address().addr().get()),
            type_name: object.row().name,
            generation: generation_of(object),
            count: object.count(),
            bytes: u64::from(object.slot_bytes()),
            site: self.sites.of(object).map(|site| self.sites.name(&site)),
        }
    }

    /// Calls `each` with every object that this one holds a handle to.
    pub(super) fn each_edge(
        &self,
        object: Object,
        tracer: &mut Tracer,
        mut each: impl FnMut(Object),
    ) {
        (object.info().trace)(object, tracer);
        while let Some(held) = tracer.pop() {
            each(held);
        }
    }
}
