//! The service: the long-running form of filed.
//!
//! ```text
//!   cli: serve ── builds ──> Service (shared) <── socket, metrics, inbox
//!                               │ desk: jobs, uploads         │ orders
//!                               v                             v
//!                           data plane, in rounds         control loop (memory, signals, systemd)
//! ```
//!
//! A *round* is one run of the data plane: it begins when there is work and ends when there has been none
//! for a moment, so an idle service has no worker threads, no open pack and no buffers. The rule: nobody
//! but the control loop acts on memory, nobody but the data plane touches packs, and everybody else asks
//! them: through the desk, or with an [`control::Order`].

pub mod board;
pub mod control;
pub mod desk;
pub mod inboxes;
pub mod reload;
pub mod supervisor;

use crate::store::clock::now_ns;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::daemon::inbox::Inboxes;
use crate::daemon::jobs::Jobs;
use crate::daemon::record::owners;
use crate::daemon::socket;
use crate::daemon::socket::wire::Owners;
use crate::daemon::tuning::Plan;
use crate::heap::{Pool, Totals};
use crate::pipeline::fingerprints::Fingerprints;
use crate::pipeline::scrub::{self, Scrub, ScrubOptions};
use crate::pipeline::{self, Bell, Limits, Options, Progress, Shelf, Stop};
use crate::pressure::level::Thresholds;
use crate::store::error::Chain;
use crate::store::recover::recover;
use crate::store::verify::Damage;
use crate::store::{Store, StoreError};
use board::Board;
use control::Order;
use desk::{Desk, DeskFeed, DeskSettings};

/// Orders that may wait for the control loop.
const ORDERS: usize = 16;

/// After the store could not be written, the first wait before the next attempt, and the longest.
const STORE_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the parts of the service share.
pub struct Service {
    /// The store.
    pub store: Arc<Store>,
    /// Buffers.
    pub pool: Pool,
    /// Buffers of streams on the socket.
    pub transfers: Pool,
    /// Buffers of the scrub.
    scrub_pool: Pool,
    /// What the data plane may use.
    pub limits: Arc<Limits>,
    /// What the data plane has done.
    pub progress: Arc<Progress>,
    /// Jobs and uploads.
    pub desk: Arc<Desk>,
    /// What the control loop shows.
    pub board: Board,
    /// Counters of the cache's heap.
    pub heap: Arc<Totals>,
    /// Wakes the data plane.
    pub bell: Arc<Bell>,
    /// Stops the data plane.
    pub stop: Arc<Stop>,
    /// Checks what is stored, in the background.
    pub scrub: Scrub,
    /// Folders that files are taken in from.
    pub inboxes: OnceLock<Arc<Inboxes>>,
    orders: mpsc::Sender<Order>,
    options: Mutex<Options>,
    /// Packs that are not full yet.
    shelf: Shelf,
}

/// What a service is made of that somebody else has built.
pub struct Parts {
    /// The store, recovered.
    pub store: Arc<Store>,
    /// Buffers.
    pub pool: Pool,
    /// What the data plane may use.
    pub limits: Arc<Limits>,
    /// How files are taken in.
    pub options: Options,
    /// How jobs are dealt with.
    pub desk: DeskSettings,
    /// How what is stored is checked.
    pub scrub: ScrubOptions,
    /// Counters of the cache's heap.
    pub heap: Arc<Totals>,
    /// The marks of memory.
    pub thresholds: Thresholds,
    /// Which limit rules, and why.
    pub why: Vec<String>,
    /// What may be used under it.
    pub plan: Plan,
}

impl Service {
    /// Puts a service together, and opens its jobs. The other end of its orders is the control loop's.
    ///
    /// # Errors
    ///
    /// When the table of jobs cannot be opened.
    pub fn new(parts: Parts) -> Result<(Arc<Service>, mpsc::Receiver<Order>), StoreError> {
        let database = parts.store.database();
        let jobs = Jobs::open(database, parts.desk.attempts, now_ns())?;
        let given_up = jobs.given_up().to_vec();
        let bell = Arc::<Bell>::default();
        let store = Arc::clone(&parts.store);
        let desk = Desk::new(store, Arc::clone(&bell), parts.desk, given_up);
        let (orders, obeyed) = mpsc::channel(ORDERS);
        let service = Service {
            store: parts.store,
            pool: parts.pool,
            transfers: socket::pool(),
            scrub_pool: Pool::new(scrub::buffer_bytes()),
            scrub: Scrub::new(parts.scrub),
            limits: parts.limits,
            progress: Arc::default(),
            desk: Arc::new(desk),
            board: Board::new(parts.thresholds, parts.why, parts.plan),
            heap: parts.heap,
            bell,
            stop: Arc::default(),
            inboxes: OnceLock::new(),
            orders,
            options: Mutex::new(parts.options),
            shelf: Shelf::default(),
        };
        Ok((Arc::new(service), obeyed))
    }

    /// Gives the control loop an order; false if it is too busy or has ended.
    pub fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Has files taken in otherwise from now on. Files that are open go on as they began.
    pub fn set_options(&self, options: Options) {
        let mut before = self.options();
        if *before != options {
            *before = options;
            drop(before);
            self.desk.renew();
        }
    }

    /// Who holds how much of this much resident memory.
    pub fn owners(&self, resident_bytes: u64) -> Owners {
        let transfers = self.transfers.stats();
        let transfers_bytes = transfers.held_bytes + transfers.idle_resident_bytes;
        let owners = owners(&self.pool, resident_bytes);
        Owners {
            chunks_bytes: owners.chunks,
            frames_bytes: owners.frames,
            transfers_bytes,
            compression_bytes: owners.compression,
            fingerprints_bytes: owners.fingerprints,
            idle_bytes: owners.idle,
            database_bytes: owners.database,
            rest_bytes: owners.rest.saturating_sub(transfers_bytes),
        }
    }

    fn options(&self) -> std::sync::MutexGuard<'_, Options> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until the flow ends: round after round, whatever happens to one of them.
    pub fn work(&self, known: &Fingerprints<'_>) {
        std::thread::scope(|scope| {
            let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let keeper = named("filed-jobs").spawn_scoped(scope, || self.desk.keep());
            let _closing = Closing(self);
            if let Err(error) = keeper {
                // Every ask for work writes down what has happened, too.
                tracing::error!(%error, "jobs are written down late: there is no thread for it");
            }
            let scrub = || {
                self.scrub
                    .run(&self.store, &self.scrub_pool, Some(known), &|_: &Damage| {})
            };
            if let Err(error) = named("filed-scrub").spawn_scoped(scope, scrub) {
                tracing::error!(%error, "what is stored is not checked: there is no thread for it");
            }
            known.while_serving(|| self.rounds(known));
            // Packs that were kept open are sealed, so that nobody has to walk through them.
            self.shelf.clear();
            if let Err(error) = recover(&self.store, now_ns()) {
                tracing::warn!(error = %Chain(&error), "packs are left open for the next start to seal");
            }
        });
    }

    fn rounds(&self, known: &Fingerprints<'_>) {
        let mut wait = STORE_WAITS.0;
        while self.desk.wait_for_work() {
            // If it is too busy for this it looks anyway.
            self.order(Order::Look);
            let outcome = self.round(known);
            let Err(error) = outcome else {
                wait = STORE_WAITS.0;
                self.scrub.wake();
                continue;
            };
            let problem = format!("the store cannot be written: {}", Chain(&*error));
            tracing::error!(
                error = %Chain(&*error),
                again_in_seconds = wait.as_secs(),
                "the store cannot be written: files wait until it can"
            );
            self.board.write(|shown| shown.problem = Some(problem));
            self.desk.wait_out(wait);
            wait = (wait * 2).min(STORE_WAITS.1);
            self.shelf.clear();
            // What the round left open is sealed, so that the next one finds what it holds.
            if let Err(error) = recover(&self.store, now_ns()) {
                tracing::warn!(error = %Chain(&error), "the store cannot be recovered yet");
            }
        }
    }

    fn round(&self, known: &Fingerprints<'_>) -> Result<(), Arc<StoreError>> {
        let options = self.options().clone();
        pipeline::take_in(
            &self.store,
            &self.pool,
            Box::new(DeskFeed(Arc::clone(&self.desk))),
            &self.bell,
            &options,
            known,
            Some(&self.shelf),
            &self.limits,
            &self.stop,
            &self.progress,
            &|report| {
                if report.status == pipeline::Status::Stored {
                    self.board.write(|shown| shown.problem = None);
                }
                self.desk.report(&report);
            },
        )
    }
}

/// Ends the threads beside the work, whatever ends it.
struct Closing<'a>(&'a Service);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.desk.close();
        self.0.scrub.stop();
    }
}

/// Bytes of buffers that a service needs beside those of the data plane.
pub fn buffer_bytes() -> u64 {
    socket::buffer_bytes() + scrub::buffer_bytes()
}
