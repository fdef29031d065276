//! The leak report: what grows, what only cycles hold, and who holds it.
//!
//! It takes the whole heap's graph apart: an object with more handles than
//! other objects hold to it is held from outside, and what such objects reach
//! is in use; the rest is garbage in cycles that no collection has freed.
//!
//! The rule that must hold: **the report changes nothing.** It costs time and
//! memory in proportion to the objects, and is asked for when something is wrong.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use super::census::TypeGrowth;
use super::core::Object;
use super::heap::Heap;
use super::snapshot::{GroupBy, SiteGrowth, Snapshot};
use super::trace::Tracer;

/// Objects of a grown type whose holders are looked up.
const EXAMPLES: usize = 256;
/// Longest chain of holders that is shown.
const LONGEST_CHAIN: usize = 8;
/// Different chains shown for a type.
const CHAINS: usize = 3;

/// What a heap seems to leak; see [`Heap::leaks`].
#[derive(Clone, Debug, Default)]
pub struct LeakReport {
    /// Types that grew since the snapshot, by bytes, and what keeps them alive.
    pub grown: Vec<GrownType>,
    /// Allocation sites that grew, by bytes.
    pub sites: Vec<SiteGrowth>,
    /// Types with objects that only cycles hold, by bytes.
    pub cycles: Vec<CycleType>,
}

/// A type that grew.
#[derive(Clone, Debug)]
pub struct GrownType {
    /// By how much.
    pub growth: TypeGrowth,
    /// What keeps its objects alive, most common first: how many of the
    /// objects looked at, and the types from the object outwards; the last one
    /// is held from outside of the heap.
    pub held_by: Vec<(usize, Vec<&'static str>)>,
}

/// Objects of a type that nothing but cycles holds.
#[derive(Clone, Debug)]
pub struct CycleType {
    /// Name of the type.
    pub name: &'static str,
    /// Objects.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: u64,
    /// Whether the type has a finalizer.
    pub finalizes: bool,
    /// Types of the objects that hold them, and how many handles they have.
    pub held_by: Vec<(&'static str, u64)>,
}

impl LeakReport {
    /// Whether nothing grew, and nothing is held by cycles only.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grown.is_empty() && self.cycles.is_empty()
    }

    /// The growth of a type, if it grew.
    #[must_use]
    pub fn grown<T: 'static>(&self) -> Option<&GrownType> {
        let name = std::any::type_name::<T>();
        self.grown.iter().find(|of| of.growth.name == name)
    }

    /// What of a type is held by cycles only, if anything is.
    #[must_use]
    pub fn cycles_of<T: 'static>(&self) -> Option<&CycleType> {
        let name = std::any::type_name::<T>();
        self.cycles.iter().find(|of| of.name == name)
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing grew, and nothing is held by cycles only");
        }
        for of in &self.grown {
            let TypeGrowth {
                name,
                objects,
                bytes,
            } = of.growth;
            writeln!(f, "grown by {objects} objects, {bytes} bytes: {name}")?;
            for (examples, chain) in &of.held_by {
                writeln!(f, "  {examples} held by {} <- outside", chain.join(" <- "))?;
            }
        }
        for site in &self.sites {
            writeln!(
                f,
                "grown by {} bytes: allocated at {}",
                site.bytes, site.site
            )?;
        }
        for of in &self.cycles {
            let finalizer = if of.finalizes {
                ", with a finalizer"
            } else {
                ""
            };
            writeln!(
                f,
                "held by cycles only: {} objects, {} bytes{finalizer}: {}",
                of.objects, of.bytes, of.name
            )?;
            for (holder, handles) in &of.held_by {
                writeln!(f, "  {handles} handles in {holder}")?;
            }
        }
        Ok(())
    }
}

/// The graph of a heap.
struct Graph {
    objects: Vec<Object>,
    places: HashMap<Object, u32>,
    /// By object: the one it was reached from, itself if it is held from
    /// outside; none if nothing reaches it.
    reached_from: Vec<Option<u32>>,
}

impl Heap {
    /// Looks for leaks: what grew since a snapshot, what only cycles hold, and
    /// who holds it.
    ///
    /// Before asking, let go of what is done with, and collect, if what only
    /// waits for a collection is not to be reported.
    #[must_use]
    pub fn leaks(&self, since: &Snapshot) -> LeakReport {
        let now = self.snapshot("now");
        let comparison = now.compare(since, GroupBy::Frames);
        let graph = self.graph();
        let grown = comparison.types.iter().filter(|of| of.bytes > 0);
        LeakReport {
            grown: grown
                .map(|&growth| GrownType {
                    growth,
                    held_by: graph.chains(growth.name),
                })
                .collect(),
            sites: comparison.grown(usize::MAX).cloned().collect(),
            cycles: self.cycles(&graph),
        }
    }

    fn graph(&self) -> Graph {
        let core = self.core();
        core.drain();
        let mut objects = Vec::new();
        core.each_object(|object| objects.push(object));
        let places: HashMap<Object, u32> = (0..).zip(&objects).map(|(at, of)| (*of, at)).collect();
        let mut tracer = Tracer::of_all();
        let mut held = vec![0_u32; objects.len()];
        for &object in &objects {
            core.each_edge(object, &mut tracer, |to| {
                if let Some(&to) = places.get(&to) {
                    held[to as usize] += 1;
                }
            });
        }
        let mut reached_from = vec![None; objects.len()];
        let mut wave: Vec<u32> = Vec::new();
        for (at, object) in (0..).zip(&objects) {
            if object.count() > held[at as usize] {
                reached_from[at as usize] = Some(at);
                wave.push(at);
            }
        }
        // In waves, so that the chains found are the shortest.
        while !wave.is_empty() {
            let mut next = Vec::new();
            for from in wave {
                core.each_edge(objects[from as usize], &mut tracer, |to| {
                    if let Some(&to) = places.get(&to)
                        && reached_from[to as usize].is_none()
                    {
                        reached_from[to as usize] = Some(from);
                        next.push(to);
                    }
                });
            }
            wave = next;
        }
        Graph {
            objects,
            places,
            reached_from,
        }
    }

    fn cycles(&self, graph: &Graph) -> Vec<CycleType> {
        let core = self.core();
        let mut types: HashMap<&'static str, CycleType> = HashMap::new();
        let mut holders: HashMap<(&'static str, &'static str), u64> = HashMap::new();
        let mut tracer = Tracer::of_all();
        for (at, object) in graph.objects.iter().enumerate() {
            if graph.reached_from[at].is_some() {
                continue;
            }
            let row = object.row();
            let of = types.entry(row.name).or_insert(CycleType {
                name: row.name,
                objects: 0,
                bytes: 0,
                finalizes: row.info.is_some_and(|info| info.finalizes),
                held_by: Vec::new(),
            });
            of.objects += 1;
            of.bytes += row.slot_bytes;
            core.each_edge(*object, &mut tracer, |held| {
                let unreached = graph
                    .places
                    .get(&held)
                    .is_some_and(|&at| graph.reached_from[at as usize].is_none());
                if unreached {
                    *holders.entry((held.row().name, row.name)).or_default() += 1;
                }
            });
        }
        for ((held, holder), handles) in holders {
            if let Some(of) = types.get_mut(held) {
                of.held_by.push((holder, handles));
            }
        }
        let mut types: Vec<_> = types.into_values().collect();
        for of in &mut types {
            of.held_by
                .sort_by_key(|&(name, handles)| (Reverse(handles), name));
        }
        types.sort_by_key(|of| (Reverse(of.bytes), of.name));
        types
    }
}

impl Graph {
    /// The most common chains that keep objects of a type alive.
    fn chains(&self, name: &str) -> Vec<(usize, Vec<&'static str>)> {
        let of_type: Vec<u32> = (0..)
            .zip(&self.objects)
            .filter(|(at, object)| {
                object.row().name == name && self.reached_from[*at as usize].is_some()
            })
            .map(|(at, _)| at)
            .collect();
        let step = of_type.len().div_ceil(EXAMPLES).max(1);
        let mut chains: HashMap<Vec<&'static str>, usize> = HashMap::new();
        for &at in of_type.iter().step_by(step) {
            *chains.entry(self.chain(at)).or_default() += 1;
        }
        let mut chains: Vec<_> = chains
            .into_iter()
            .map(|(chain, count)| (count, chain))
            .collect();
        chains.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
        chains.truncate(CHAINS);
        chains
    }

    /// Types from an object to the one that is held from outside; a long chain
    /// lacks its middle.
    fn chain(&self, of: u32) -> Vec<&'static str> {
        let mut chain = vec![self.objects[of as usize].row().name];
        let mut at = of;
        while let Some(from) = self.reached_from[at as usize]
            && from != at
        {
            at = from;
            let name = self.objects[at as usize].row().name;
            // A list of a thousand nodes is one link of the chain.
            if chain.last() != Some(&name) {
                chain.push(name);
            }
        }
        if chain.len() > LONGEST_CHAIN {
            chain.drain(LONGEST_CHAIN / 2..chain.len() - LONGEST_CHAIN / 2);
        }
        chain
    }
}
