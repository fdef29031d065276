//! Who works on what next.
//!
//! A worker asks for a task and gets, in this order: a checkpoint to take part in; rest, if fewer
//! workers are allowed than there are; the next chunk of a stream somebody has opened; a new file to
//! open; or it waits. So one large file occupies everybody, and many small ones are taken by whoever
//! is free. No more files are open than there are workers, and no worker runs further ahead of a
//! stream's slowest chunk than [`WINDOW_PER_WORKER`] allows: what is in flight is bounded.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::digest::CHUNK_BYTES;
use super::limits::{Limits, Stop};
use super::stream::{Origin, Stream};
use super::walk::{Found, Walk};

/// Chunks of one stream between the first that is not complete and the last handed out, for each
/// worker.
const WINDOW_PER_WORKER: u64 = 4;

/// Limits and the stop are looked at this often by those who wait; everything else wakes them.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a worker is to do.
pub(super) enum Task {
    /// Look at what the walk has found and open it if it is a file. [`Intake::opened`] must follow.
    Open(Box<Found>),
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
    changed: Condvar,
}

struct State {
    /// `None` while a worker walks, and when the walk is over.
    walk: Option<Walk>,
    walking: bool,
    /// Files between being found and being in `streams`.
    opening: usize,
    streams: Vec<Handout>,
    checkpoint: u64,
    /// The run has failed.
    halted: bool,
}

/// A stream and how far its chunks have been handed out.
struct Handout {
    stream: Arc<Stream>,
    next: u64,
    /// How many there are; not known yet for standard input.
    count: Option<u64>,
    /// A chunk of standard input is being read.
    reading: bool,
}

impl<'run> Intake<'run> {
    pub(super) fn new(
        walk: Walk,
        workers: usize,
        limits: &'run Limits,
        stop: &'run Stop,
    ) -> Intake<'run> {
        Intake {
            limits,
            stop,
            workers,
            state: Mutex::new(State {
                walk: Some(walk),
                walking: false,
                opening: 0,
                streams: Vec::new(),
                checkpoint: 0,
                halted: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// The next task of `worker`, which has taken part in checkpoint `reported` and has its buffers
    /// or not.
    pub(super) fn next(&self, worker: usize, reported: u64, equipped: bool) -> Task {
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
            let window = WINDOW_PER_WORKER * self.workers as u64;
            if let Some(handout) = state.next_handout(window) {
                if !equipped {
                    return Task::Equip;
                }
                let (stream, index) = handout.take();
                return Task::Chunk(stream, index);
            }
            if state.opening + state.streams.len() < self.limits.workers().min(self.workers)
                && let Some(walk) = state.walk.take()
            {
                state = match self.walk_on(state, walk) {
                    Ok(found) => return Task::Open(Box::new(found)),
                    Err(state) => state,
                };
                continue;
            }
            if state.is_over() {
                return Task::Done;
            }
            state = self.wait(state);
        }
    }

    /// Takes one step of the walk without keeping others from their chunks.
    fn walk_on<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut walk: Walk,
    ) -> Result<Found, MutexGuard<'a, State>> {
        state.walking = true;
        state.opening += 1;
        drop(state);
        let found = walk.next();
        let mut state = self.state();
        state.walking = false;
        self.changed.notify_all();
        match found {
            Some(found) => {
                state.walk = Some(walk);
                Ok(found)
            }
            None => {
                state.opening -= 1;
                Err(state)
            }
        }
    }

    /// What came of [`Task::Open`]: a stream, unless it failed or needs no reading.
    pub(super) fn opened(&self, stream: Option<Arc<Stream>>) {
        let mut state = self.state();
        state.opening -= 1;
        if let Some(stream) = stream {
            let count = match &stream.origin {
                Origin::File(file) => Some(file.size_bytes().div_ceil(CHUNK_BYTES as u64)),
                Origin::Stdin(_) => None,
            };
            state.streams.push(Handout {
                stream,
                next: 0,
                count,
                reading: false,
            });
        }
        self.changed.notify_all();
    }

    /// A chunk of standard input has been read: the next may be. `ended`: there is none.
    pub(super) fn read(&self, stream: &Arc<Stream>, index: u64, ended: bool) {
        let mut state = self.state();
        for handout in &mut state.streams {
            if Arc::ptr_eq(&handout.stream, stream) {
                handout.reading = false;
                handout.count = ended.then_some(index + 1);
            }
        }
        self.changed.notify_all();
    }

    /// Ends the run: nobody gets another task.
    pub(super) fn halt(&self) {
        self.state().halted = true;
        self.changed.notify_all();
    }

    /// Waits for a while, or until something changes.
    pub(super) fn pause(&self) {
        drop(self.wait(self.state()));
    }

    /// Something that a waiting worker may need to know has changed.
    pub(super) fn wake(&self) {
        // With the lock held, nobody can miss it between looking and waiting.
        drop(self.state());
        self.changed.notify_all();
    }

    /// Asks every worker to take part in the next checkpoint; gives its number.
    pub(super) fn request_checkpoint(&self) -> u64 {
        let mut state = self.state();
        state.checkpoint += 1;
        let checkpoint = state.checkpoint;
        drop(state);
        self.changed.notify_all();
        checkpoint
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, PATIENCE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Handout {
    /// Chunks that have not been handed out; no end is in sight for standard input.
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
                && handout.next < handout.stream.completed() + window
        };
        let open = self.streams.iter_mut().filter(may_go_on);
        open.min_by_key(|handout| handout.left())
    }

    /// Streams of which every chunk has been handed out need nothing more from here.
    fn drop_finished(&mut self) {
        self.streams
            .retain(|handout| handout.left() > 0 && !handout.stream.has_failed());
    }

    fn is_over(&self) -> bool {
        self.walk.is_none() && !self.walking && self.opening == 0 && self.streams.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunker::Method;
    use super::super::source::FileSource;
    use super::*;
    use crate::store::FileName;
    use std::time::Instant;

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
            walk: None,
            walking: false,
            opening: 0,
            streams: vec![handout(1000), handout(1)],
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
