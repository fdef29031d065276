//! Giving a version out again: frames are read, decompressed and proved by all workers, a bounded
//! number ahead of the one writer that puts them in order.
//!
//! Nothing is given out unproved: each piece is held against its digest before the writer sees it,
//! and the whole content against the version's digest at the end. A piece that is not what it should be is
//! looked for elsewhere in the store ([`heal`]) before the version is given up.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::limits::Stop;
use super::report::Progress;
use crate::heap::{Account, Buffer, Pool, TakeError, held_by};
use crate::store::frame::FrameReader;
use crate::store::heal;
use crate::store::lists::{ListedPack, PackLists};
use crate::store::manifest::{Run, Runs, Version};
use crate::store::pack::RecordEntry;
use crate::store::record::{MAX_PLAIN_BYTES, MAX_RECORD_BYTES};
use crate::store::{PackId, PieceId, PiecePlace, Store, StoreError};

/// Frames kept after use: versions that differ in little come back to a frame after a short detour.
const KEPT_FRAMES: usize = 2;

/// Frames decoded ahead of the writer, beside those the workers have in hand.
const AHEAD: u64 = 2;

/// Why a version was not given out.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store is damaged or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no memory to work in.
    #[error("take memory to read the store")]
    Memory(#[from] TakeError),
    /// What is given out cannot be written.
    #[error("write")]
    Write(#[source] io::Error),
    /// Somebody asked for it.
    #[error("stopped")]
    Stopped,
}

/// Where the content goes.
pub enum Output<'a> {
    /// Into a file, at the same offsets; holes are left out.
    File(&'a File),
    /// To a stream, holes as zeros.
    Stream(&'a mut dyn Write),
    /// Nowhere: it is only proved.
    Nowhere,
}

/// Bytes of buffers that giving out needs with so many workers.
pub fn buffer_bytes(workers: usize) -> u64 {
    // The last is for whoever looks for a damaged piece elsewhere, one at a time.
    let plain = workers as u64 + AHEAD + 1 + KEPT_FRAMES as u64 + 1;
    plain * held_by(MAX_PLAIN_BYTES) + workers as u64 * held_by(MAX_RECORD_BYTES)
}

/// Gives out a version's content, or `part` of its bytes. [`Progress::done_bytes`] counts what has been
/// written. Of a part, as of the whole, each piece is proved; the digest of the whole is not.
#[expect(
    clippy::too_many_arguments,
    reason = "what the work needs, each from another owner"
)]
pub fn give_out(
    store: &Store,
    lists: &PackLists<'_>,
    version: &Version,
    pool: &Pool,
    workers: usize,
    stop: &Stop,
    progress: &Progress,
    part: Option<Range<u64>>,
    output: Output<'_>,
) -> Result<(), RestoreError> {
    let mut plan = Plan::new(store, lists, version);
    let first_offset = match &part {
        Some(part) => plan.skip_to(part.start)?,
        None => 0,
    };
    let line = Line {
        store,
        lists,
        window: workers as u64 + AHEAD,
        state: Mutex::new(State {
            plan,
            next: 0,
            over: false,
            written: 0,
            ready: BTreeMap::new(),
            kept: VecDeque::new(),
            failure: None,
        }),
        changed: Condvar::new(),
        stop,
        frames: pool.account("frames"),
        records: pool.account("records"),
        rescuing: Mutex::new(()),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| line.work());
        }
        let outcome = match &part {
            Some(part) => line.write_part(part, first_offset, progress, output),
            None => line.write(version, progress, output),
        };
        // Whoever still reads ahead of a writer that has given up may stop.
        line.end();
        outcome
    })
}

/// What the workers and the writer share.
struct Line<'a> {
    store: &'a Store,
    lists: &'a PackLists<'a>,
    window: u64,
    state: Mutex<State<'a>>,
    changed: Condvar,
    stop: &'a Stop,
    frames: Account,
    records: Account,
    /// Held by the worker that looks for a damaged piece: buffers suffice for one.
    rescuing: Mutex<()>,
}

struct State<'a> {
    plan: Plan<'a>,
    /// Number of the next step.
    next: u64,
    /// No step comes after `next`.
    over: bool,
    /// Steps written.
    written: u64,
    ready: BTreeMap<u64, Ready>,
    kept: VecDeque<(PackId, u64, Arc<Buffer>)>,
    failure: Option<RestoreError>,
}

/// A step of the content, ready to be written.
enum Ready {
    Bytes(Arc<Buffer>, Range<usize>),
    Hole(u64),
}

/// A step of the content: consecutive pieces of one frame, or a hole.
enum Step {
    Frame {
        pack: Arc<ListedPack>,
        id: PackId,
        record: RecordEntry,
        ordinals: Range<u32>,
    },
    Hole(u64),
}

impl Step {
    /// How much of the content it is.
    fn length_bytes(&self) -> u64 {
        match self {
            Step::Hole(bytes) => *bytes,
            Step::Frame { pack, ordinals, .. } => {
                let range = ordinals.start as usize..ordinals.end as usize;
                let pieces = &pack.list.pieces()[range];
                pieces
                    .iter()
                    .map(|piece| u64::from(piece.length_bytes))
                    .sum()
            }
        }
    }
}

impl<'a> Line<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.state();
        state.over = true;
        drop(state);
        self.changed.notify_all();
    }

    /// A worker: takes steps until there are none, or one fails.
    fn work(&self) {
        if let Err(error) = self.take_steps() {
            let mut state = self.state();
            state.failure.get_or_insert(error);
            state.over = true;
        }
        self.changed.notify_all();
    }

    fn take_steps(&self) -> Result<(), RestoreError> {
        let mut frames = FrameReader::default();
        let mut room = self.records.take(MAX_RECORD_BYTES)?;
        while let Some((number, step)) = self.next_step()? {
            let ready = match step {
                Step::Hole(bytes) => Ready::Hole(bytes),
                Step::Frame {
                    pack,
                    id,
                    record,
                    ordinals,
                } => {
                    let (plain, range) =
                        self.frame(&mut frames, &mut room, &pack, id, &record, ordinals)?;
                    Ready::Bytes(plain, range)
                }
            };
            let mut state = self.state();
            state.ready.insert(number, ready);
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Pieces of a frame, proved: the frame's bytes and where in them the pieces are.
    fn frame(
        &self,
        frames: &mut FrameReader,
        room: &mut [u8],
        pack: &ListedPack,
        id: PackId,
        record: &RecordEntry,
        ordinals: Range<u32>,
    ) -> Result<(Arc<Buffer>, Range<usize>), RestoreError> {
        if let Some(plain) = self.kept(id, record.offset)
            && let Ok(range) = prove(pack, record, ordinals.clone(), &plain)
        {
            return Ok((plain, range));
        }
        let mut plain = self.frames.take(MAX_PLAIN_BYTES)?;
        let outcome = frames
            .read(&pack.reader, record, room, &mut plain)
            .and_then(|()| prove(pack, record, ordinals.clone(), &plain));
        match outcome {
            Ok(range) => {
                let plain = Arc::new(plain);
                self.keep(id, record.offset, &plain);
                Ok((plain, range))
            }
            Err(error) if error.is_damage() => {
                let frame = PiecePlace {
                    pack: id,
                    ordinal: record.first,
                };
                let bad = Bad {
                    pack,
                    frame,
                    record,
                    error,
                };
                let range = self.rescue(frames, room, bad, ordinals, &mut plain)?;
                Ok((Arc::new(plain), range))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fills in those of a bad frame's pieces that do not prove, from other places. `plain` is what was
    /// read of the frame, or was there before.
    fn rescue(
        &self,
        frames: &mut FrameReader,
        room: &mut [u8],
        bad: Bad<'_>,
        ordinals: Range<u32>,
        plain: &mut [u8],
    ) -> Result<Range<usize>, RestoreError> {
        let _one_at_a_time = self.rescuing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spare = self.frames.take(MAX_PLAIN_BYTES)?;
        // Where the frame lies that is in the spare buffer.
        let mut read: Option<(PackId, u64)> = None;
        for ordinal in ordinals.clone() {
            let one = ordinal..ordinal + 1;
            if prove(bad.pack, bad.record, one.clone(), plain).is_ok() {
                continue;
            }
            let place = PiecePlace {
                ordinal,
                ..bad.frame
            };
            for other in heal::other_places(self.store, self.lists, place)? {
                let (pack, frame) = self.lists.frame(other.place)?;
                let from = frame.record;
                let at = (other.place.pack, from.offset);
                if read != Some(at) {
                    read = None;
                    match frames.read(&pack.reader, &from, room, &mut spare) {
                        Ok(()) => read = Some(at),
                        Err(error) if error.is_damage() => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                let theirs = other.place.ordinal..other.place.ordinal + 1;
                if let Ok(found) = prove(&pack, &from, theirs, &spare) {
                    let to = range_in_frame(bad.pack, bad.record, &one);
                    plain[to].copy_from_slice(&spare[found]);
                    break;
                }
            }
            // All or nothing: the version is of no use without it.
            if prove(bad.pack, bad.record, one, plain).is_err() {
                return Err(bad.error.into());
            }
        }
        Ok(range_in_frame(bad.pack, bad.record, &ordinals))
    }

    /// The next step with its number, once it is not too far ahead of the writer.
    fn next_step(&self) -> Result<Option<(u64, Step)>, RestoreError> {
        let mut state = self.state();
        loop {
            if self.stop.requested() {
                return Err(RestoreError::Stopped);
            }
            if state.over {
                return Ok(None);
            }
            if state.next < state.written + self.window {
                break;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match state.plan.next_step()? {
            Some(step) => {
                state.next += 1;
                Ok(Some((state.next - 1, step)))
            }
            None => {
                state.over = true;
                Ok(None)
            }
        }
    }

    fn kept(&self, pack: PackId, offset: u64) -> Option<Arc<Buffer>> {
        let state = self.state();
        let found = state
            .kept
            .iter()
            .find(|(id, at, _)| (*id, *at) == (pack, offset));
        found.map(|(_, _, plain)| Arc::clone(plain))
    }

    fn keep(&self, pack: PackId, offset: u64, plain: &Arc<Buffer>) {
        let mut state = self.state();
        state.kept.push_back((pack, offset, Arc::clone(plain)));
        let dropped = (state.kept.len() > KEPT_FRAMES).then(|| state.kept.pop_front());
        drop(state);
        drop(dropped);
    }

    /// The writer: takes what is ready in order until all is written.
    fn write(
        &self,
        version: &Version,
        progress: &Progress,
        mut output: Output<'_>,
    ) -> Result<(), RestoreError> {
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while let Some(ready) = self.next_ready()? {
            let length = match ready {
                Ready::Hole(bytes) => {
                    output.hole(bytes, &mut hasher, self.stop)?;
                    bytes
                }
                Ready::Bytes(plain, range) => {
                    let bytes = &plain[range];
                    hasher.update(bytes);
                    output.bytes(bytes, offset).map_err(RestoreError::Write)?;
                    bytes.len() as u64
                }
            };
            offset += length;
            progress.done_bytes.fetch_add(length, Ordering::Relaxed);
        }
        if offset != version.size_bytes || hasher.finalize().as_bytes() != &version.digest {
            return Err(RestoreError::Store(StoreError::NotAsDigested {
                what: version.name.to_string(),
            }));
        }
        Ok(())
    }

    /// The writer of a part: what is ready begins at `offset` of the content.
    fn write_part(
        &self,
        part: &Range<u64>,
        mut offset: u64,
        progress: &Progress,
        mut output: Output<'_>,
    ) -> Result<(), RestoreError> {
        let within = |offset: u64, length: u64| {
            let start = part.start.clamp(offset, offset + length);
            let end = part.end.clamp(start, offset + length);
            start - offset..end - offset
        };
        while offset < part.end {
            let Some(ready) = self.next_ready()? else {
                break;
            };
            let (length, written) = match ready {
                Ready::Hole(bytes) => {
                    let wanted = within(offset, bytes);
                    let written = wanted.end - wanted.start;
                    output.hole(written, &mut blake3::Hasher::new(), self.stop)?;
                    (bytes, written)
                }
                Ready::Bytes(plain, range) => {
                    let bytes = &plain[range];
                    let wanted = within(offset, bytes.len() as u64);
                    let part = &bytes[wanted.start as usize..wanted.end as usize];
                    let at = offset + wanted.start;
                    output.bytes(part, at).map_err(RestoreError::Write)?;
                    (bytes.len() as u64, part.len() as u64)
                }
            };
            offset += length;
            progress.done_bytes.fetch_add(written, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next step in order, or `None` after the last.
    fn next_ready(&self) -> Result<Option<Ready>, RestoreError> {
        let mut state = self.state();
        loop {
            if let Some(error) = state.failure.take() {
                return Err(error);
            }
            if self.stop.requested() {
                return Err(RestoreError::Stopped);
            }
            let number = state.written;
            if let Some(ready) = state.ready.remove(&number) {
                state.written += 1;
                drop(state);
                self.changed.notify_all();
                return Ok(Some(ready));
            }
            if state.over && state.written == state.next {
                return Ok(None);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Output<'_> {
    fn bytes(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Output::File(file) => file.write_all_at(bytes, offset),
            Output::Stream(stream) => stream.write_all(bytes),
            Output::Nowhere => Ok(()),
        }
    }

    fn hole(
        &mut self,
        bytes: u64,
        hasher: &mut blake3::Hasher,
        stop: &Stop,
    ) -> Result<(), RestoreError> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            if stop.requested() {
                return Err(RestoreError::Stopped);
            }
            let zeros = &ZEROS[..left.min(ZEROS.len() as u64) as usize];
            hasher.update(zeros);
            if let Output::Stream(stream) = self {
                stream.write_all(zeros).map_err(RestoreError::Write)?;
            }
            left -= zeros.len() as u64;
        }
        Ok(())
    }
}

/// A frame that is not what it should be.
struct Bad<'a> {
    pack: &'a ListedPack,
    /// Its first piece.
    frame: PiecePlace,
    record: &'a RecordEntry,
    /// What is wrong.
    error: StoreError,
}

/// Where pieces of a frame are in its plain bytes.
fn range_in_frame(pack: &ListedPack, record: &RecordEntry, ordinals: &Range<u32>) -> Range<usize> {
    let bytes = |pieces: Range<u32>| -> usize {
        let pieces = &pack.list.pieces()[pieces.start as usize..pieces.end as usize];
        pieces.iter().map(|piece| piece.length_bytes as usize).sum()
    };
    let start = bytes(record.first..ordinals.start);
    start..start + bytes(ordinals.clone())
}

/// Holds pieces of a frame against their digests; gives where they are in its plain bytes.
fn prove(
    pack: &ListedPack,
    record: &RecordEntry,
    ordinals: Range<u32>,
    plain: &[u8],
) -> Result<Range<usize>, StoreError> {
    let pieces = &pack.list.pieces()[record.first as usize..ordinals.end as usize];
    let (before, wanted) = pieces.split_at((ordinals.start - record.first) as usize);
    let start: usize = before.iter().map(|piece| piece.length_bytes as usize).sum();
    let mut at = start;
    for piece in wanted {
        let end = at + piece.length_bytes as usize;
        if PieceId::of(&plain[at..end]) != piece.id {
            return Err(StoreError::Damaged {
                path: pack.reader.path().to_owned(),
                offset: record.offset,
                what: "a piece is not what its digest says",
            });
        }
        at = end;
    }
    Ok(start..at)
}

/// The steps of a version, worked out as they are needed.
struct Plan<'a> {
    store: &'a Store,
    lists: &'a PackLists<'a>,
    version: &'a Version,
    /// Number of the next manifest part; the version's own runs come after the last.
    part: usize,
    runs: VecDeque<Run>,
    /// A step that was looked at and not taken.
    kept: Option<Step>,
}

impl<'a> Plan<'a> {
    fn new(store: &'a Store, lists: &'a PackLists<'_>, version: &'a Version) -> Plan<'a> {
        Plan {
            store,
            lists,
            version,
            part: 0,
            runs: VecDeque::new(),
            kept: None,
        }
    }

    /// Leaves out the steps that end at or before `offset` of the content; gives where the next one begins.
    fn skip_to(&mut self, offset: u64) -> Result<u64, StoreError> {
        let mut at = 0;
        while let Some(step) = self.next_step()? {
            let length = step.length_bytes();
            if at + length > offset {
                self.kept = Some(step);
                break;
            }
            at += length;
        }
        Ok(at)
    }

    fn next_step(&mut self) -> Result<Option<Step>, StoreError> {
        if let Some(step) = self.kept.take() {
            return Ok(Some(step));
        }
        while self.runs.is_empty() {
            if !self.read_part()? {
                return Ok(None);
            }
        }
        let Some(run) = self.runs.pop_front() else {
            return Ok(None);
        };
        let (start, count) = match run {
            Run::Hole { length_bytes } => return Ok(Some(Step::Hole(length_bytes))),
            Run::Pieces { start, count } => (start, count),
        };
        let (pack, frame) = match self.lists.frame(start) {
            Err(error) if error.is_damage() => {
                return self.elsewhere(start, count, error).map(Some);
            }
            found => found?,
        };
        let record = frame.record;
        let end = (start.ordinal + count).min(record.first + record.pieces);
        self.put_back(start, count, end - start.ordinal);
        Ok(Some(Step::Frame {
            pack,
            id: start.pack,
            record,
            ordinals: start.ordinal..end,
        }))
    }

    /// The first piece of a run from another place: its own pack does not say any more what it was.
    fn elsewhere(
        &mut self,
        start: PiecePlace,
        count: u32,
        error: StoreError,
    ) -> Result<Step, StoreError> {
        let others = heal::other_places(self.store, self.lists, start)?;
        let other = others.first().ok_or(error)?.place;
        let (pack, frame) = self.lists.frame(other)?;
        self.put_back(start, count, 1);
        Ok(Step::Frame {
            pack,
            id: other.pack,
            record: frame.record,
            ordinals: other.ordinal..other.ordinal + 1,
        })
    }

    /// What is left of a run behind its first `taken` pieces comes next.
    fn put_back(&mut self, start: PiecePlace, count: u32, taken: u32) {
        if count > taken {
            self.runs.push_front(Run::Pieces {
                start: PiecePlace {
                    ordinal: start.ordinal + taken,
                    ..start
                },
                count: count - taken,
            });
        }
    }

    /// Reads the runs of the next part; `false` after the last.
    fn read_part(&mut self) -> Result<bool, StoreError> {
        let parts = &self.version.parts;
        if self.part > parts.len() {
            return Ok(false);
        }
        let from_part;
        let runs = match parts.get(self.part) {
            Some(place) => {
                from_part = self.store.manifest_part(*place)?;
                &from_part
            }
            None => &self.version.runs,
        };
        self.part += 1;
        for run in Runs::new(runs) {
            let run = run.map_err(|flaw| StoreError::BadManifest {
                what: self.version.name.to_string(),
                flaw,
            })?;
            self.runs.push_back(run);
        }
        Ok(true)
    }
}
