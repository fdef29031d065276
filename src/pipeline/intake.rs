//! Who works on what next.
//!
//! A worker asks for a task and gets, in this order: a checkpoint to take part in; rest, if fewer
//! workers are allowed than there are; a new file to open, while there are places; the next chunk of an
//! open stream, of the one with the least left; or it waits. So one large file occupies everybody who has
//! nothing smaller to do, and small ones do not wait for its end. One more file is open than there are
//! workers, and no worker runs further ahead of a stream's slowest chunk than [`WINDOW_PER_WORKER`]
//! allows: what is in flight is bounded.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::digest::CHUNK_BYTES;
use super::feed::{Fed, Feed, Tag, Wanted};
use super::limits::{Limits, Stop};
use super::stream::{Origin, Stream};
use super::walk::Found;

/// Chunks of one stream between the first that is not complete and the last handed out, for each
/// worker.
const WINDOW_PER_WORKER: u64 = 4;

/// Limits, the stop and a feed that has nothing are looked at this often by those who wait; everything
/// else wakes them.
const PATIENCE: Duration = Duration::from_millis(100);

/// A worker that has waited this long gives its tools back until there is work again.
const TOOLS_KEPT: Duration = Duration::from_millis(500);

/// What a worker is to do.
pub(super) enum Task {
    /// Look at what the feed has given and open it if it is a file. [`Intake::opened`] must follow.
    Open(Box<Found>, Tag),
    /// There is work, but it needs buffers: take them and ask again.
    Equip,
    /// Work on this chunk of the stream.
    Chunk(Arc<Stream>, u64),
    /// Write out what you have and report this checkpoint.
    Checkpoint(u64),
    /// Write out what you have, give back all memory, and ask again.
    Rest,
    /// Nothing more will come.
    Done,
}

/// The tasks that are left.
pub(super) struct Intake<'run> {
    limits: &'run Limits,
    stop: &'run Stop,
    workers: usize,
    state: Mutex<State>,
    bell: Arc<Bell>,
}

/// Wakes workers that wait: for a feed that has something again, or a stream with a chunk.
#[derive(Debug, Default)]
pub struct Bell(Condvar);

impl Bell {
    /// Has whoever waits look again. One who was just about to wait may miss it, and looks a tenth of a
    /// second later.
    pub fn ring(&self) {
        self.0.notify_all();
    }
}

struct State {
    /// `None` while a worker asks it, and when it is over.
    feed: Option<Box<dyn Feed>>,
    asking: bool,
    /// It had nothing when it was last asked.
    nothing_since: Option<Instant>,
    /// It had no stream that is handed in when it was last asked.
    none_handed_since: Option<Instant>,
    /// Files between being found and being in `streams`.
    opening: usize,
    streams: Vec<Handout>,
    /// A handed stream comes before a file at the next choice.
    handed_first: bool,
    checkpoint: u64,
    /// The run has failed.
    halted: bool,
}

/// A stream and how far its chunks have been handed out.
struct Handout {
    stream: Arc<Stream>,
    next: u64,
    /// How many there are; not known yet of a sequence.
    count: Option<u64>,
    /// A chunk of a sequence is being read.
    reading: bool,
}

impl<'run> Intake<'run> {
    pub(super) fn new(
        feed: Box<dyn Feed>,
        bell: Arc<Bell>,
        workers: usize,
        limits: &'run Limits,
        stop: &'run Stop,
    ) -> Intake<'run> {
        Intake {
            limits,
            stop,
            workers,
            state: Mutex::new(State {
                feed: Some(feed),
                asking: false,
                nothing_since: None,
                none_handed_since: None,
                opening: 0,
                streams: Vec::new(),
                handed_first: false,
                checkpoint: 0,
                halted: false,
            }),
            bell,
        }
    }

    /// The next task of `worker`, which has taken part in checkpoint `reported` and has its buffers
    /// or not.
    pub(super) fn next(&self, worker: usize, reported: u64, equipped: bool) -> Task {
        let since = Instant::now();
        let mut state = self.state();
        loop {
            if self.stop.requested() || state.halted {
                return Task::Done;
            }
            if state.checkpoint > reported {
                return Task::Checkpoint(state.checkpoint);
            }
            if worker >= self.limits.workers() {
                if equipped {
                    return Task::Rest;
                }
                if state.is_over() {
                    return Task::Done;
                }
                state = self.wait(state);
                continue;
            }
            state.drop_finished();
            let may_ask = state
                .nothing_since
                .is_none_or(|since| since.elapsed() >= PATIENCE);
            let wanted = match state.opening + state.own_streams() < self.places() {
                true => Wanted::Any,
                false => Wanted::Handed,
            };
            let may_ask = match wanted {
                Wanted::Any => may_ask,
                Wanted::Handed => state
                    .none_handed_since
                    .is_none_or(|since| since.elapsed() >= PATIENCE),
            };
            if may_ask && let Some(feed) = state.feed.take() {
                state = match self.ask(state, feed, wanted) {
                    Ok((found, tag)) => return Task::Open(found, tag),
                    Err(state) => state,
                };
                continue;
            }
            let window = WINDOW_PER_WORKER * self.workers as u64;
            if let Some(handout) = state.next_handout(window) {
                if !equipped {
                    return Task::Equip;
                }
                let (stream, index) = handout.take();
                return Task::Chunk(stream, index);
            }
            if state.is_over() {
                return Task::Done;
            }
            if equipped && since.elapsed() >= TOOLS_KEPT {
                return Task::Rest;
            }
            state = self.wait(state);
        }
    }

    /// Files that may be open: one more than there are workers, so that a large one alone keeps nobody
    /// from the next, which may be small.
    fn places(&self) -> usize {
        self.limits.workers().min(self.workers) + 1
    }

    /// Asks the feed without keeping others from their chunks.
    fn ask<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut feed: Box<dyn Feed>,
        wanted: Wanted,
    ) -> Result<(Box<Found>, Tag), MutexGuard<'a, State>> {
        state.asking = true;
        state.opening += 1;
        drop(state);
        let fed = feed.ask(wanted);
        let mut state = self.state();
        state.asking = false;
        self.bell.ring();
        state.none_handed_since = None;
        if wanted == Wanted::Any {
            state.nothing_since = None;
        }
        match fed {
            Fed::Found(found, tag) => {
                state.feed = Some(feed);
                return Ok((found, tag));
            }
            Fed::NotYet => {
                state.feed = Some(feed);
                state.none_handed_since = Some(Instant::now());
                if wanted == Wanted::Any {
                    state.nothing_since = Some(Instant::now());
                }
            }
            Fed::Over => {}
        }
        state.opening -= 1;
        Err(state)
    }

    /// What came of [`Task::Open`]: a stream, unless it failed or needs no reading.
    pub(super) fn opened(&self, stream: Option<Arc<Stream>>) {
        let mut state = self.state();
        state.opening -= 1;
        if let Some(stream) = stream {
            let count = match &stream.origin {
                Origin::File(file) => Some(file.size_bytes().div_ceil(CHUNK_BYTES as u64)),
                Origin::Sequence(_) => None,
            };
            state.streams.push(Handout {
                stream,
                next: 0,
                count,
                reading: false,
            });
        }
        self.bell.ring();
    }

    /// A chunk of a sequence has been read: the next may be. `ended`: there is none.
    pub(super) fn read(&self, stream: &Arc<Stream>, index: u64, ended: bool) {
        let mut state = self.state();
        for handout in &mut state.streams {
            if Arc::ptr_eq(&handout.stream, stream) {
                handout.reading = false;
                handout.count = ended.then_some(index + 1);
            }
        }
        self.bell.ring();
    }

    /// Whether there is nothing to do at present, though more may come.
    pub(super) fn is_idle(&self) -> bool {
        let mut state = self.state();
        state.drop_finished();
        state.nothing_since.is_some() && state.opening == 0 && state.streams.is_empty()
    }

    /// Ends the run: nobody gets another task.
    pub(super) fn halt(&self) {
        self.state().halted = true;
        self.bell.ring();
    }

    /// Waits for a while, or until something changes.
    pub(super) fn pause(&self) {
        drop(self.wait(self.state()));
    }

    /// Something that a waiting worker may need to know has changed.
    pub(super) fn wake(&self) {
        // With the lock held, nobody can miss it between looking and waiting.
        drop(self.state());
        self.bell.ring();
    }

    /// Asks every worker to take part in the next checkpoint; gives its number.
    pub(super) fn request_checkpoint(&self) -> u64 {
        let mut state = self.state();
        state.checkpoint += 1;
        let checkpoint = state.checkpoint;
        drop(state);
        self.bell.ring();
        checkpoint
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.bell.0.wait_timeout(state, PATIENCE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Handout {
    /// Chunks that have not been handed out; no end is in sight of a sequence.
    fn left(&self) -> u64 {
        let count = self.count.unwrap_or(u64::MAX);
        count.saturating_sub(self.next)
    }

    fn take(&mut self) -> (Arc<Stream>, u64) {
        let index = self.next;
        self.next += 1;
        self.reading = self.count.is_none();
        (Arc::clone(&self.stream), index)
    }
}

impl State {
    /// A stream with a chunk that may be worked on now: the one with the least left, so that small
    /// files are not kept waiting, and a stop loses as little as possible.
    fn next_handout(&mut self, window: u64) -> Option<&mut Handout> {
        let may_go_on = |handout: &&mut Handout| {
            handout.left() > 0
                && !handout.reading
                && handout.stream.is_ready()
                && handout.next < handout.stream.completed() + window
        };
        let open = self.streams.iter_mut().filter(may_go_on);
        // Handed streams and files take turns, so that neither waits for the other's end.
        let handed_first = self.handed_first;
        let chosen = open.min_by_key(|handout| {
            let waits = handout.stream.is_handed != handed_first;
            (waits, handout.left())
        });
        self.handed_first = !handed_first;
        chosen
    }

    /// Streams of which every chunk has been handed out need nothing more from here.
    fn drop_finished(&mut self) {
        self.streams
            .retain(|handout| handout.left() > 0 && !handout.stream.has_failed());
    }

    /// Streams that take up a place. Handed ones do not: whoever sends them may be slow.
    fn own_streams(&self) -> usize {
        let own = |handout: &&Handout| !handout.stream.is_handed;
        self.streams.iter().filter(own).count()
    }

    fn is_over(&self) -> bool {
        self.feed.is_none() && !self.asking && self.opening == 0 && self.streams.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunker::Method;
    use super::super::source::FileSource;
    use super::*;
    use crate::store::FileName;

    fn handout(count: u64) -> Handout {
        let source = FileSource::open(std::path::Path::new("Cargo.toml")).unwrap();
        let stream = Stream::new(
            "path".into(),
            FileName::new(b"name".to_vec()).unwrap(),
            Origin::File(source),
            &Method::Fixed,
            Instant::now(),
            0,
        );
        Handout {
            stream: Arc::new(stream),
            next: 0,
            count: Some(count),
            reading: false,
        }
    }

    #[test]
    fn a_small_file_does_not_wait_for_a_large_one_that_was_opened_before() {
        let mut state = State {
            feed: None,
            asking: false,
            nothing_since: None,
            none_handed_since: None,
            opening: 0,
            streams: vec![handout(1000), handout(1)],
            handed_first: false,
            checkpoint: 0,
            halted: false,
        };
        let mut counts = Vec::new();
        while let Some(handout) = state.next_handout(3) {
            handout.take();
            counts.push(handout.count);
        }
        assert_eq!(counts, [Some(1), Some(1000), Some(1000), Some(1000)]);
    }
}
