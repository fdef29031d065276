//! Is this piece in the store? The fingerprint cache in front of the index on disk.
//!
//! When a piece is found, the list of its whole pack is taken into memory, and those of the packs
//! next to it while there is room, because the pieces that were new together once are likely to come
//! together again (Zhu, Li, Patterson: "Avoiding the Disk Bottleneck in the Data Domain Deduplication
//! File System", FAST '08). So a second copy of a file asks the index once for a pack, not once for a
//! piece, and the index may be as large as it likes.
//!
//! ```text
//! workers                                        the cache's thread
//!   │ 1. in the table? ───> table (shared) <───── keeps it ──┐
//!   │ 2. if not: the index on disk                           │   heap:  pack <─> group of 31 digests
//!   │ 3. what one of them knows ──ask──> compares digests ───┘           └────> group ...
//!   │ <──────────────────────────answer─ reads lists of packs
//! ```
//!
//! The lists are objects of a managed heap, which belongs to one thread: [`Fingerprints::while_serving`]
//! starts it. Workers ask it once for a chunk, and only when the table or the index knows a piece of
//! the chunk: new data cost no switch between threads. A chunk's questions are the heap's unit of
//! work, at whose end it collects what is due.
//!
//! Three rules. A piece that is known to be damaged is not known: it is stored again. An answer is only given after the whole digest was compared with the pack's list. And
//! only pieces that the index knows are taken into memory: the file of a pack that is still written
//! holds more than its writer has made durable, and whoever refers to that would acknowledge a file
//! that a power cut can still take a piece from.

mod cache;
mod inbox;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::heap::{Account, Generation, HeapTotals, Totals, Trim};
use crate::store::{PackId, PieceId, PiecePlace, Store, StoreError};
use cache::Cache;
pub use inbox::Examine;
use inbox::{Inbox, Task};
use table::Table;

/// In aggressive pacing the young generation is collected after so many units of work.
const YOUNG_EVERY: u64 = 10;

/// When the cache's heap collects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pacing {
    /// When so much was allocated that it is worth it.
    ByAllocation,
    /// Besides, the young generation after every ten chunks.
    EveryTenChunks,
}

/// How the cache is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Most bytes of lists and table; the last list that was needed is kept in any case.
    pub limit_bytes: u64,
    /// A pause for a collection that is longer is told as a warning.
    pub long_pause: Duration,
}

/// How often the cache answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Known pieces that the cache had.
    pub hits: u64,
    /// Known pieces that the index had to be asked for.
    pub loaded: u64,
    /// Questions that went to the index, those for unknown pieces included.
    pub asked: u64,
}

impl CacheStats {
    /// The share of known pieces that the cache had; none if no piece was known.
    pub fn hit_rate(&self) -> Option<f64> {
        let known = self.hits + self.loaded;
        (known > 0).then(|| self.hits as f64 / known as f64)
    }
}

/// The cache, as those who ask and those who give it orders see it.
pub struct Fingerprints<'store> {
    store: &'store Store,
    account: Account,
    settings: Settings,
    limit_bytes: AtomicU64,
    full_limit_bytes: AtomicU64,
    table: Table,
    inbox: Inbox,
    counts: Counts,
    totals: Arc<Totals>,
    /// What the heap had come to when it was last given up.
    last_totals: Mutex<Option<HeapTotals>>,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    loaded: AtomicU64,
    asked: AtomicU64,
}

impl<'store> Fingerprints<'store> {
    /// An empty cache. What it holds is noted in `account`.
    pub fn new(store: &'store Store, settings: Settings, account: Account) -> Self {
        Fingerprints {
            store,
            account,
            settings,
            limit_bytes: AtomicU64::new(settings.limit_bytes),
            full_limit_bytes: AtomicU64::new(settings.limit_bytes),
            table: Table::new(),
            inbox: Inbox::default(),
            counts: Counts::default(),
            totals: Arc::default(),
            last_totals: Mutex::default(),
        }
    }

    /// Runs `work` while another thread answers what it asks; the lists are given up at its end.
    ///
    /// # Panics
    ///
    /// When either of them does.
    pub fn while_serving<T>(&self, work: impl FnOnce() -> T) -> T {
        self.inbox.open();
        thread::scope(|scope| {
            let server = thread::Builder::new()
                .name("filed-cache".to_owned())
                .spawn_scoped(scope, || self.serve());
            // Without the thread every question is an error, which the work reports.
            let _closing = Closing(&self.inbox);
            if server.is_err() {
                self.inbox.close();
            }
            work()
        })
    }

    /// What a thread asks with.
    pub fn asker(&self) -> Asker<'_, 'store> {
        Asker {
            of: self,
            reply: Arc::default(),
        }
    }

    /// Sets how many bytes are kept; what is too much goes soon.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        self.inbox.order(|orders| orders.limit_changed = true);
    }

    /// The limit in force, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// The limit it was made with, to return to.
    pub fn full_limit(&self) -> u64 {
        self.full_limit_bytes.load(Ordering::Relaxed)
    }

    /// Changes what [`full_limit`](Self::full_limit) is; the limit in force is for whoever set it to set
    /// anew.
    pub fn set_full_limit(&self, limit_bytes: u64) {
        self.full_limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    /// Has everything collected, at once.
    pub fn collect(&self) {
        self.inbox.order(|orders| orders.collect = true);
    }

    /// Has the heap given up and a new one taken in its place: whatever had become of the old one after so
    /// much work, the new one has nothing of it. What the cache knew it reads again when it is asked.
    pub fn renew(&self) {
        self.inbox.order(|orders| orders.renew = true);
    }

    /// Sets when the heap collects.
    pub fn set_pacing(&self, pacing: Pacing) {
        self.inbox.order(|orders| orders.pacing = Some(pacing));
    }

    /// Has the heap examined on its thread, between two questions. Where nobody serves it is dropped unused.
    pub fn examine(&self, examine: Examine) {
        self.inbox.examine(examine);
    }

    /// The counters of the heap, for others to read.
    pub fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.totals)
    }

    /// Forgets what is known of a pack: pieces in it have been found damaged, which the store's index says
    /// by now. What is asked from here on is answered by that.
    pub fn forget(&self, pack: PackId) {
        self.inbox.order(|orders| {
            if !orders.forget.contains(&pack) {
                orders.forget.push(pack);
            }
        });
    }

    /// Has memory without objects given back.
    pub fn trim(&self, trim: Trim) {
        self.inbox.order(|orders| orders.trim = Some(trim));
    }

    /// How often it answered so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.counts.hits.load(Ordering::Relaxed),
            loaded: self.counts.loaded.load(Ordering::Relaxed),
            asked: self.counts.asked.load(Ordering::Relaxed),
        }
    }

    /// What the heap has come to; when it has been given up, what it had come to before that.
    pub fn heap_totals(&self) -> HeapTotals {
        let last = self
            .last_totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.unwrap_or_else(|| self.totals.now())
    }

    fn ended(&self) -> StoreError {
        StoreError::Io {
            action: "look up pieces of",
            path: self.store.root().to_owned(),
            source: std::io::Error::other("the cache's thread has ended"),
        }
    }

    /// The thread that owns the heap.
    fn serve(&self) {
        let _closing = Closing(&self.inbox);
        let new = || {
            let limit = self.limit_bytes.load(Ordering::Relaxed);
            let cache = Cache::new(self.store, &self.table, limit, self.settings.long_pause);
            cache.heap().publish_to(&self.totals);
            cache
        };
        let mut cache = new();
        *self
            .last_totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        let mut noted = self.account.note(cache.held_bytes());
        let mut pacing = Pacing::ByAllocation;
        let mut units: u64 = 0;
        while let Some(task) = self.inbox.next() {
            match task {
                Task::Ask(ask) => {
                    let answer = self.answer(&mut cache, &ask.pieces);
                    ask.reply.give(answer);
                    units += 1;
                    if pacing == Pacing::EveryTenChunks && units.is_multiple_of(YOUNG_EVERY) {
                        cache.heap().collect(Generation::Young);
                    }
                    cache.heap().safe_point();
                }
                Task::Examine(examine) => {
                    examine(cache.heap());
                    cache.heap().publish();
                }
                Task::Orders(orders) => {
                    if orders.renew {
                        // One after the other: never both.
                        cache.unpin_all();
                        cache.heap().collect_critical();
                        cache = new();
                        tracing::debug!("the heap of the cache was renewed");
                    }
                    if orders.limit_changed {
                        cache.set_limit(self.limit_bytes.load(Ordering::Relaxed));
                    }
                    for pack in orders.forget {
                        cache.forget(pack);
                    }
                    if let Some(wanted) = orders.pacing {
                        pacing = wanted;
                    }
                    if orders.collect {
                        cache.heap().collect_critical();
                    }
                    if let Some(trim) = orders.trim {
                        cache.trim(trim, Instant::now());
                    }
                    cache.heap().publish();
                }
            }
            noted.set(cache.held_bytes());
        }
        cache.heap().publish();
        *self
            .last_totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(self.totals.now());
    }

    fn answer(
        &self,
        cache: &mut Cache<'_>,
        pieces: &[PieceId],
    ) -> Result<Vec<Option<PiecePlace>>, StoreError> {
        let mut places = Vec::with_capacity(pieces.len());
        for id in pieces {
            let mut place = cache.find(id);
            if place.is_some() {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
            } else {
                self.counts.asked.fetch_add(1, Ordering::Relaxed);
                for candidate in self.store.database().candidates(id)? {
                    if cache.holds(candidate, id)? {
                        self.counts.loaded.fetch_add(1, Ordering::Relaxed);
                        place = Some(candidate);
                        break;
                    }
                }
            }
            places.push(place);
        }
        Ok(places)
    }
}

/// Ends the service when the work or the server ends, panic or not: nobody waits for an answer that
/// will not come.
struct Closing<'a>(&'a Inbox);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One thread's way to ask.
pub struct Asker<'a, 'store> {
    of: &'a Fingerprints<'store>,
    reply: Arc<inbox::Reply>,
}

impl<'a, 'store> Asker<'a, 'store> {
    /// Where each of these pieces is, if the store has it.
    ///
    /// # Errors
    ///
    /// When the index cannot be asked, or the cache's thread is gone.
    pub fn find(&self, pieces: &[PieceId]) -> Result<Vec<Option<PiecePlace>>, StoreError> {
        self.ask(pieces)?.answer()
    }

    /// Asks where these pieces are. The answer may be fetched later: so that this thread has something
    /// to do while another looks.
    ///
    /// # Errors
    ///
    /// When the index cannot be asked, or the cache's thread is gone.
    pub fn ask(&self, pieces: &[PieceId]) -> Result<Asked<'_, 'store>, StoreError> {
        let of = self.of;
        // Up to the first piece that somebody knows this thread asks by itself.
        let mut first = 0;
        while let Some(id) = pieces.get(first) {
            if of.table.may_have(id) || !of.store.database().candidates(id)?.is_empty() {
                break;
            }
            of.counts.asked.fetch_add(1, Ordering::Relaxed);
            first += 1;
        }
        let open = first < pieces.len();
        if open && !of.inbox.ask(pieces[first..].to_vec(), &self.reply) {
            return Err(of.ended());
        }
        Ok(Asked {
            known: vec![None; first],
            open: open.then_some(self),
        })
    }

    fn wait(&self) -> Result<Vec<Option<PiecePlace>>, StoreError> {
        self.reply.wait().unwrap_or_else(|| Err(self.of.ended()))
    }
}

/// A question that was asked; its answer has to be waited for, and is when this is dropped.
#[must_use = "asking without fetching the answer only costs time"]
pub struct Asked<'a, 'store> {
    /// What the asking thread knew by itself.
    known: Vec<Option<PiecePlace>>,
    /// Whose rest the cache's thread answers, if there is one.
    open: Option<&'a Asker<'a, 'store>>,
}

impl Asked<'_, '_> {
    /// Waits for the answer: where each piece is, if the store has it.
    ///
    /// # Errors
    ///
    /// When the index cannot be asked, a pack not read, or the cache's thread is gone.
    pub fn answer(mut self) -> Result<Vec<Option<PiecePlace>>, StoreError> {
        let mut places = std::mem::take(&mut self.known);
        if let Some(asker) = self.open.take() {
            places.extend(asker.wait()?);
        }
        Ok(places)
    }
}

impl Drop for Asked<'_, '_> {
    fn drop(&mut self) {
        // Else the next question would get this answer.
        if let Some(asker) = self.open.take() {
            let _ = asker.wait();
        }
    }
}
