//! A map whose values are held weakly: an entry goes with its object.
//!
//! The rule that must hold: **the map keeps no object alive**, and what is left
//! of dead ones is in proportion to those alive: they are cleaned up when the
//! map has doubled since the last time, so at no cost that grows.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::handle::Gc;
use super::trace::Trace;
use super::weak::Weak;

/// Fewest entries at which dead ones are looked for.
const LEAST: usize = 64;

/// A map to objects that it does not keep alive.
pub struct WeakMap<K, V: Trace, S = RandomState> {
    entries: HashMap<K, Entry<V>, S>,
    /// With so many entries dead ones are looked for.
    clean_at: usize,
    stats: WeakMapStats,
}

struct Entry<V: Trace> {
    value: Weak<V>,
    accesses: u64,
}

/// What a [`WeakMap`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeakMapStats {
    /// Values put in.
    pub inserted: u64,
    /// Questions answered with an object.
    pub hits: u64,
    /// Questions for keys that were not there, or whose object was dead.
    pub misses: u64,
    /// Entries of dead objects cleaned up, their counts with them.
    pub cleaned: u64,
}

impl<K: Eq + Hash, V: Trace> WeakMap<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::with_hasher(RandomState::default())
    }
}

impl<K: Eq + Hash, V: Trace, S: BuildHasher> WeakMap<K, V, S> {
    /// An empty map with another way of hashing.
    #[must_use]
    pub fn with_hasher(hasher: S) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher),
            clean_at: LEAST,
            stats: WeakMapStats::default(),
        }
    }

    /// Puts an object in; gives the one that was there under the key, if it lives.
    pub fn insert(&mut self, key: K, value: &Gc<V>) -> Option<Gc<V>> {
        if self.entries.len() >= self.clean_at {
            self.clean();
        }
        self.stats.inserted += 1;
        let entry = Entry {
            value: Gc::downgrade(value),
            accesses: 0,
        };
        self.entries.insert(key, entry)?.value.upgrade()
    }

    /// The object under a key, if it lives.
    pub fn get(&mut self, key: &K) -> Option<Gc<V>> {
        let found = self.entries.get_mut(key).and_then(|entry| {
            let value = entry.value.upgrade()?;
            entry.accesses += 1;
            Some(value)
        });
        match found {
            Some(_) => self.stats.hits += 1,
            None => self.stats.misses += 1,
        }
        found
    }

    /// How often the object under a key was asked for; none if there is none alive.
    #[must_use]
    pub fn accesses(&self, key: &K) -> Option<u64> {
        let entry = self.entries.get(key)?;
        entry.value.is_alive().then_some(entry.accesses)
    }

    /// Whether there is a living object under a key. Counts as no access.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.accesses(key).is_some()
    }

    /// Takes an entry out; gives its object, if it lives.
    pub fn remove(&mut self, key: &K) -> Option<Gc<V>> {
        self.entries.remove(key)?.value.upgrade()
    }

    /// Removes the entries of dead objects and their counts; how many those were.
    pub fn clean(&mut self) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.value.is_alive());
        let cleaned = before - self.entries.len();
        self.stats.cleaned += cleaned as u64;
        self.clean_at = (2 * self.entries.len()).max(LEAST);
        if self.entries.capacity() > 4 * self.clean_at {
            self.entries.shrink_to(self.clean_at);
        }
        cleaned
    }

    /// Entries, those of dead objects that have not been cleaned up included.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Living objects. Looks at all entries.
    #[must_use]
    pub fn live(&self) -> usize {
        let entries = self.entries.values();
        entries.filter(|entry| entry.value.is_alive()).count()
    }

    /// The keys and objects that live. Looks at all entries; counts as no access.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Gc<V>)> {
        let entries = self.entries.iter();
        entries.filter_map(|(key, entry)| Some((key, entry.value.upgrade()?)))
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> WeakMapStats {
        self.stats
    }
}

impl<K: Eq + Hash, V: Trace> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V: Trace, S> fmt::Debug for WeakMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakMap")
            .field("entries", &self.entries.len())
            .field("stats", &self.stats)
            .finish()
    }
}

crate::leaf!(WeakMapStats);
