//! A worker: a thread that owns a pack, a frame and a set of buffers, and does all that a chunk needs.
//!
//! Reading, cutting, digesting, looking up, gathering and compressing one chunk happen on one core,
//! while the chunk is in its cache. Workers share only what they must: the order of cuts and of the
//! manifest within a stream, claims, the index. Each appends to a pack of its own, so a piece's place
//! is known when it is claimed and nobody waits for anybody's write.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::Options;
use super::chunker::{Candidate, CutEnd, Cutter, ExtentEnd, Method};
use super::claims::{Claim, Claims};
use super::compress::{Frame, PLAIN_ROOM_BYTES, RECORD_ROOM_BYTES};
use super::digest::{CHUNK_BYTES, chunk_subtree};
use super::fingerprints::{Asker, Fingerprints};
use super::intake::{Intake, Task};
use super::known_damage::KnownDamage;
use super::ledger::{Deposit, Finished, Ledger};
use super::limits::{Limits, Stop};
use super::report::{FileReport, Progress, Status};
use super::shelf::Shelf;
use super::source::{DIRECT_BYTES, Extent, ReadError, read_stream};
use super::stream::{Assembly, ChunkDone, Item, Origin, Sequence, Stream};
use crate::heap::{Account, Buffer, Noted, TakeError, held_by};
use crate::store::catalog::NewVersion;
use crate::store::clock::now_ns;
use crate::store::coding::Encoder;
use crate::store::index::{PackRow, PackState, PieceRow};
use crate::store::manifest::Version;
use crate::store::pack::{PACK_HEADER_BYTES, PackWriter};
use crate::store::record::{Kind, PieceEntry};
use crate::store::{PieceId, PiecePlace, Store, StoreError};

#[cfg(test)]
mod tests;

/// What all workers of a run share.
pub(super) struct Crew<'run> {
    pub store: &'run Store,
    pub options: &'run Options,
    pub method: Method,
    pub chunks: Account,
    pub frames: Account,
    pub contexts: Account,
    /// Workers that hold their tools.
    pub equipped: AtomicUsize,
    pub intake: &'run Intake<'run>,
    pub ledger: &'run Ledger,
    pub claims: &'run Claims,
    pub known: &'run Fingerprints<'run>,
    /// Where packs are left that are not full at the end of the run; none if they are sealed.
    pub shelf: Option<&'run Shelf>,
    pub damage: &'run KnownDamage<'run>,
    pub limits: &'run Limits,
    pub stop: &'run Stop,
    pub progress: &'run Progress,
    pub report: &'run (dyn Fn(FileReport) + Sync),
    /// Streams that are neither finished nor failed.
    pub live: Mutex<Vec<Arc<Stream>>>,
}

/// Bytes of buffers that a worker needs at once.
pub fn worker_buffer_bytes(method: &Method) -> u64 {
    let buffers = [
        head_bytes(method) + CHUNK_BYTES,
        PLAIN_ROOM_BYTES,
        RECORD_ROOM_BYTES,
    ];
    buffers.map(held_by).iter().sum()
}

/// Room in front of a chunk: for the piece that began before it, or what the chunker looks at.
fn head_bytes(method: &Method) -> usize {
    match method {
        Method::Content(params) => params.max_bytes().max(Stream::CONTEXT),
        // A whole page, so that the chunk behind it lies at the start of one.
        Method::Fixed => DIRECT_BYTES,
    }
}

/// The level to compress at where memory is short: its context is the smallest there is.
const LIGHT_LEVEL: i32 = 1;

/// Zeros for digesting holes. Never written, so all of it is the kernel's one page of zeros.
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

pub(super) struct Worker<'run> {
    crew: &'run Crew<'run>,
    number: usize,
    /// The last checkpoint it took part in.
    checkpoint: u64,
    tools: Option<Tools<'run>>,
    pack: Option<OpenPack>,
    plan: Plan,
    asker: Asker<'run, 'run>,
}

/// What a worker holds while it works.
struct Tools<'run> {
    _equipped: Equipped<'run>,
    /// Head and chunk, see [`head_bytes`].
    chunk: Buffer,
    frame: Frame,
    record: Buffer,
    encoder: Encoder,
    /// The level the encoder works at.
    level: i32,
    held: Noted,
}

/// Counts a worker among those that hold their tools.
struct Equipped<'run>(&'run AtomicUsize);

impl<'run> Equipped<'run> {
    fn new(count: &'run AtomicUsize) -> Equipped<'run> {
        count.fetch_add(1, Ordering::Relaxed);
        Equipped(count)
    }
}

impl Drop for Equipped<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct OpenPack {
    writer: PackWriter,
    /// Pieces and bytes of it that have been deposited.
    deposited_pieces: u32,
    deposited_bytes: u64,
}

/// How a chunk is to be cut; kept to save allocations.
#[derive(Default)]
struct Plan {
    extents: Vec<Extent>,
    candidates: Vec<Candidate>,
    /// Where the candidates of each extent end in `candidates`.
    ends: Vec<usize>,
    cuts: Vec<CutEnd>,
    steps: Vec<Step>,
}

/// A part of a chunk: a range of the chunk buffer, or a hole.
#[derive(Clone, Copy)]
enum Step {
    Piece {
        start: usize,
        end: usize,
        id: PieceId,
        /// Where the store has it.
        known: Option<PiecePlace>,
    },
    Hole(usize),
}

/// Why a chunk did not get through.
enum ChunkError {
    /// It cannot be read: the file fails, work goes on.
    Read(ReadError),
    /// Somebody else failed on the same file and has said so.
    Abandoned,
    /// The store cannot be written or asked: the run fails.
    Store(StoreError),
}

impl From<StoreError> for ChunkError {
    fn from(error: StoreError) -> ChunkError {
        ChunkError::Store(error)
    }
}

impl From<ReadError> for ChunkError {
    fn from(error: ReadError) -> ChunkError {
        ChunkError::Read(error)
    }
}

impl<'run> Worker<'run> {
    pub(super) fn new(crew: &'run Crew<'run>, number: usize) -> Worker<'run> {
        Worker {
            crew,
            number,
            checkpoint: 0,
            tools: None,
            pack: None,
            plan: Plan::default(),
            asker: crew.known.asker(),
        }
    }

    /// Works until nothing is left to do, or the run fails.
    pub(super) fn run(mut self) {
        let alarm = Alarm { crew: self.crew };
        if let Err(error) = self.work() {
            self.crew.ledger.fail(error);
            self.crew.halt();
        } else {
            self.crew.ledger.end(self.number);
        }
        drop(alarm);
    }

    fn work(&mut self) -> Result<(), StoreError> {
        let crew = self.crew;
        loop {
            match crew
                .intake
                .next(self.number, self.checkpoint, self.tools.is_some())
            {
                Task::Open(found, tag) => {
                    let outcome = super::open::open(crew, *found, tag);
                    let stream = outcome.as_ref().ok().cloned().flatten();
                    crew.intake
                        .opened(stream.filter(|stream| !stream.is_empty_file()));
                    if let Some(stream) = outcome?
                        && stream.is_empty_file()
                    {
                        let assembly = stream.assembly();
                        self.finish_or_fail(&stream, assembly)?;
                    }
                }
                Task::Equip => {
                    if !self.equip()? {
                        crew.intake.pause();
                    }
                }
                Task::Chunk(stream, index) => self.chunk(&stream, index)?,
                Task::Checkpoint(checkpoint) => {
                    self.write_frame()?;
                    self.deposit(PackState::Open);
                    self.checkpoint = checkpoint;
                    crew.ledger.report(self.number, checkpoint);
                }
                Task::Rest => {
                    self.write_frame()?;
                    self.tools = None;
                }
                Task::Done => {
                    self.write_frame()?;
                    self.tools = None;
                    return self.end_pack();
                }
            }
        }
    }

    /// Takes buffers and a compression context, if there is memory for them at present.
    fn equip(&mut self) -> Result<bool, StoreError> {
        let crew = self.crew;
        let chunk = head_bytes(&crew.method) + CHUNK_BYTES;
        let take = |account: &Account, bytes| match account.try_take(bytes) {
            Ok(buffer) => Ok(buffer),
            Err(TakeError::Closed) => Ok(None),
            // Others will give theirs back.
            Err(_) if crew.equipped.load(Ordering::Relaxed) > 0 => Ok(None),
            Err(error) => Err(StoreError::Io {
                action: "take memory to write",
                path: crew.store.root().to_owned(),
                source: std::io::Error::other(error),
            }),
        };
        let (Some(chunk), Some(plain), Some(record)) = (
            take(&crew.chunks, chunk)?,
            take(&crew.frames, PLAIN_ROOM_BYTES)?,
            take(&crew.frames, RECORD_ROOM_BYTES)?,
        ) else {
            return Ok(false);
        };
        let level = crew.level();
        let encoder = Encoder::new(level);
        self.tools = Some(Tools {
            _equipped: Equipped::new(&crew.equipped),
            chunk,
            frame: Frame::new(plain),
            record,
            held: crew.contexts.note(encoder.held_bytes()),
            encoder,
            level,
        });
        Ok(true)
    }

    fn chunk(&mut self, stream: &Arc<Stream>, index: u64) -> Result<(), StoreError> {
        let began = Instant::now();
        let outcome = self.process_chunk(stream, index);
        self.crew.progress.chunk_times.add(began.elapsed());
        if let Origin::Sequence(_) = stream.origin
            && outcome.is_err()
        {
            self.crew.intake.read(stream, index, true);
        }
        match outcome {
            Ok(()) | Err(ChunkError::Abandoned) => Ok(()),
            Err(ChunkError::Read(error)) => {
                self.crew.fail_stream(stream, &error);
                Ok(())
            }
            Err(ChunkError::Store(error)) => Err(error),
        }
    }

    fn process_chunk(&mut self, stream: &Arc<Stream>, index: u64) -> Result<(), ChunkError> {
        if stream.has_failed() {
            return Err(ChunkError::Abandoned);
        }
        if stream.tag.is_stopped() {
            return Err(ReadError::Cancelled.into());
        }
        if stream.round < self.crew.limits.round() {
            return Err(ReadError::DoesNotFit.into());
        }
        let head = head_bytes(&self.crew.method);
        let reading_since = Instant::now();
        let (length, last) = self.read(stream, index, head)?;
        self.crew.progress.read_times.add(reading_since.elapsed());
        self.scan(head, index);
        let plan = &mut self.plan;
        let Some(tools) = &mut self.tools else {
            return Err(ChunkError::Abandoned);
        };
        let room = &mut tools.chunk[..head + length];
        stream
            .in_turn(index, |cutting| plan.cut(cutting, room, head, last))
            .ok_or(ChunkError::Abandoned)?;
        let digest = self.look_up_and_digest(index, head, length)?;
        let mut done = ChunkDone {
            items: Vec::with_capacity(self.plan.steps.len()),
            digest,
            durable_at: 0,
            length_bytes: length as u64,
            new_pieces: 0,
            new_bytes: 0,
            last,
        };
        for at in 0..self.plan.steps.len() {
            match self.plan.steps[at] {
                Step::Hole(bytes) => done.items.push(Item::Hole(bytes as u64)),
                Step::Piece {
                    start,
                    end,
                    id,
                    known,
                } => self.piece(stream, start..end, id, known, &mut done)?,
            }
        }
        if self
            .tools
            .as_ref()
            .is_some_and(|tools| tools.frame.is_full())
        {
            self.write_frame()?;
        }
        Progress::add(&self.crew.progress.done_bytes, done.length_bytes);
        Progress::add(&self.crew.progress.new_bytes, done.new_bytes);
        if let Origin::File(file) = &stream.origin {
            let reading = self.crew.limits.reading();
            file.drop_behind(index * CHUNK_BYTES as u64, length, reading);
        }
        let mut assembly = stream.complete(index, done);
        while let Some(runs) = assembly.runs.take_part() {
            let place = self.pack(0)?.append_plain(Kind::ManifestPart, &runs)?;
            assembly.parts.push(place);
            assembly.durable_at = assembly.durable_at.max(self.checkpoint + 1);
        }
        if assembly.is_finished() {
            self.finish_or_fail(stream, assembly)?;
        } else {
            drop(assembly);
        }
        // The stream's window has moved on.
        self.crew.intake.wake();
        Ok(())
    }

    /// Reads the chunk behind `head` bytes of the chunk buffer and what is directly before it into
    /// the end of those; gives its length and whether the stream ends with it.
    fn read(
        &mut self,
        stream: &Arc<Stream>,
        index: u64,
        head: usize,
    ) -> Result<(usize, bool), ChunkError> {
        let Some(tools) = &mut self.tools else {
            return Err(ChunkError::Abandoned);
        };
        let extents = &mut self.plan.extents;
        extents.clear();
        match &stream.origin {
            Origin::File(file) => {
                let offset = index * CHUNK_BYTES as u64;
                let left = file.size_bytes().saturating_sub(offset);
                let length = left.min(CHUNK_BYTES as u64) as usize;
                let last = left <= CHUNK_BYTES as u64;
                if file.is_hole(offset, length)? {
                    return Ok((length, last));
                }
                if index > 0 {
                    file.read_before(offset, &mut tools.chunk[head - Stream::CONTEXT..head])?;
                }
                let room = &mut tools.chunk[head..head + length];
                file.read_chunk(offset, room, self.crew.limits.reading(), extents)?;
                Ok((length, last))
            }
            Origin::Sequence(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let context = state.before.len();
                tools.chunk[head - context..head].copy_from_slice(&state.before);
                let room = &mut tools.chunk[head..head + CHUNK_BYTES];
                let length = match &mut state.input {
                    Sequence::Stdin(input) => read_stream(input, room, self.crew.stop)?,
                    Sequence::Handed(taking) => taking.take(room)?,
                };
                let last = length < CHUNK_BYTES;
                state.before.clear();
                let tail = &room[length.saturating_sub(Stream::CONTEXT)..length];
                state.before.extend_from_slice(tail);
                drop(state);
                self.crew.intake.read(stream, index, last);
                if length > 0 {
                    extents.push(Extent {
                        start: 0,
                        end: length,
                    });
                }
                Ok((length, last))
            }
        }
    }

    /// The chunk's part of the file's digest; `None` for the empty end of a stream.
    fn digest(&self, index: u64, head: usize, length: usize) -> Option<super::digest::ChunkDigest> {
        let tools = self.tools.as_ref()?;
        let bytes = if self.plan.extents.is_empty() {
            &ZEROS[..length]
        } else {
            &tools.chunk[head..head + length]
        };
        (length > 0).then(|| chunk_subtree(index, bytes))
    }

    /// Finds the candidates of each extent.
    fn scan(&mut self, head: usize, index: u64) {
        let plan = &mut self.plan;
        plan.candidates.clear();
        plan.ends.clear();
        let Some(tools) = &self.tools else {
            return;
        };
        let mut found = Vec::new();
        for extent in &plan.extents {
            let before = if extent.start == 0 && index > 0 {
                Stream::CONTEXT
            } else {
                0
            };
            let (start, end) = (head + extent.start, head + extent.end);
            let context = &tools.chunk[start - before..start];
            self.crew
                .method
                .scan(context, &tools.chunk[start..end], &mut found);
            plan.candidates.append(&mut found);
            plan.ends.push(plan.candidates.len());
        }
    }

    /// Digests the chunk's pieces and asks for all that nobody has claimed, at once. While another
    /// thread looks, digests the chunk as a part of its file, and gives that.
    fn look_up_and_digest(
        &mut self,
        index: u64,
        head: usize,
        length: usize,
    ) -> Result<Option<super::digest::ChunkDigest>, StoreError> {
        let Some(tools) = &self.tools else {
            return Ok(None);
        };
        let mut asked = Vec::new();
        let mut steps = Vec::new();
        for (at, step) in self.plan.steps.iter_mut().enumerate() {
            let Step::Piece { start, end, id, .. } = step else {
                continue;
            };
            *id = PieceId::of(&tools.chunk[*start..*end]);
            if self.crew.claims.find(id).is_none() {
                asked.push(*id);
                steps.push(at);
            }
        }
        let asked = self.asker.ask(&asked)?;
        let digest = self.digest(index, head, length);
        let places = asked.answer()?;
        for (at, place) in steps.into_iter().zip(places) {
            if let Step::Piece { known, .. } = &mut self.plan.steps[at] {
                *known = place;
            }
        }
        Ok(digest)
    }

    /// Enters a piece of the chunk into `done`: as one the store has, or as a new one of this frame.
    fn piece(
        &mut self,
        stream: &Arc<Stream>,
        range: Range<usize>,
        id: PieceId,
        known: Option<PiecePlace>,
        done: &mut ChunkDone,
    ) -> Result<(), StoreError> {
        // Claims come first: they may have changed since they were asked, the store's answer not.
        let claim = self.crew.claims.find(&id).or(known.map(|place| Claim {
            place,
            durable_at: 0,
        }));
        let claim = match claim {
            Some(claim) => claim,
            None => self.claim(stream, id, range, done)?,
        };
        done.items.push(Item::Piece(claim.place));
        done.durable_at = done.durable_at.max(claim.durable_at);
        Ok(())
    }

    /// Claims a new piece and puts it into the frame, unless somebody claims it first.
    fn claim(
        &mut self,
        stream: &Arc<Stream>,
        id: PieceId,
        range: Range<usize>,
        done: &mut ChunkDone,
    ) -> Result<Claim, StoreError> {
        if let Some(tools) = &self.tools
            && !tools.frame.has_room(range.len())
        {
            self.write_frame()?;
        }
        let gathered = self
            .tools
            .as_ref()
            .map_or(0, |tools| tools.frame.pieces().len());
        let pack = self.pack(gathered + 1)?;
        let place = PiecePlace {
            pack: pack.id(),
            // An open frame is not interrupted by another one in its pack.
            ordinal: pack.list().piece_count() + self.frame_pieces(),
        };
        let claim = Claim {
            place,
            durable_at: self.checkpoint + 1,
        };
        if let Some(taken) = self.crew.claims.claim(id, claim) {
            return Ok(taken);
        }
        if let Some(tools) = &mut self.tools {
            let bytes = &tools.chunk[range];
            let entry = PieceEntry {
                id,
                length_bytes: bytes.len() as u32,
            };
            tools.frame.push(entry, bytes, &stream.totals);
            done.new_pieces += 1;
            done.new_bytes += bytes.len() as u64;
        }
        Ok(claim)
    }

    fn frame_pieces(&self) -> u32 {
        self.tools
            .as_ref()
            .map_or(0, |tools| tools.frame.pieces().len() as u32)
    }

    /// The worker's pack, with room for a frame of so many pieces: a new one if need be.
    fn pack(&mut self, pieces: usize) -> Result<&mut PackWriter, StoreError> {
        let target = self.crew.options.pack_bytes;
        if self.pack.is_none() {
            self.pack = self.crew.shelf.and_then(Shelf::take);
        }
        let full = self
            .pack
            .as_ref()
            .is_some_and(|pack| !pack.writer.has_room(pieces, target));
        if full {
            self.write_frame()?;
            self.seal()?;
        }
        let pack = match self.pack.take() {
            Some(pack) => pack,
            None => OpenPack {
                writer: self.crew.store.new_pack(now_ns())?,
                deposited_pieces: 0,
                // A header alone is nothing to commit.
                deposited_bytes: PACK_HEADER_BYTES as u64,
            },
        };
        Ok(&mut self.pack.insert(pack).writer)
    }

    /// Compresses the frame and appends it to the pack.
    fn write_frame(&mut self) -> Result<(), StoreError> {
        let (Some(tools), Some(pack)) = (&mut self.tools, &mut self.pack) else {
            return Ok(());
        };
        if tools.frame.pieces().is_empty() {
            return Ok(());
        }
        follow_level(self.crew, tools);
        let (coding, length) = tools.frame.encode(&mut tools.encoder, &mut tools.record);
        tools.held.set(tools.encoder.held_bytes());
        let plain_bytes = tools.frame.plain_bytes() as u32;
        let pieces = tools.frame.pieces();
        let record = &mut tools.record[..length];
        pack.writer
            .append_frame(record, coding, plain_bytes, pieces)?;
        let count = pieces.len() as u64;
        tools.frame.clear(length);
        Progress::add(&self.crew.progress.stored_bytes, length as u64);
        self.crew.ledger.wrote(length as u64, count, Instant::now());
        Ok(())
    }

    /// Tells the ledger what the pack has got since the last time.
    fn deposit(&mut self, state: PackState) {
        let Some(pack) = &mut self.pack else {
            return;
        };
        let length_bytes = pack.writer.length_bytes();
        if length_bytes == pack.deposited_bytes && state == PackState::Open {
            return;
        }
        let deposit = deposit_of(pack, state, length_bytes);
        pack.deposited_pieces = pack.writer.list().piece_count();
        pack.deposited_bytes = length_bytes;
        self.crew.ledger.deposit(deposit);
    }

    /// Leaves the pack to the next run, if there is to be one, or seals it. Its frame must have been written.
    fn end_pack(&mut self) -> Result<(), StoreError> {
        let Some(shelf) = self.crew.shelf else {
            return self.seal();
        };
        self.deposit(PackState::Open);
        if let Some(pack) = self.pack.take() {
            shelf.put(pack);
        }
        Ok(())
    }

    /// Seals the pack. Its frame must have been written.
    fn seal(&mut self) -> Result<(), StoreError> {
        let Some(pack) = self.pack.take() else {
            return Ok(());
        };
        let mut deposit = deposit_of(&pack, PackState::Sealed, 0);
        let (file, sealed) = pack.writer.seal()?;
        deposit.file = file;
        deposit.row.length_bytes = sealed.length_bytes;
        self.crew.ledger.deposit(deposit);
        Ok(())
    }

    /// Writes the version's record and hands the stream to the committer, if the file is still what
    /// was read.
    fn finish_or_fail(
        &mut self,
        stream: &Arc<Stream>,
        mut assembly: std::sync::MutexGuard<'_, Assembly>,
    ) -> Result<(), StoreError> {
        if let Origin::File(file) = &stream.origin {
            let unchanged = file.check_unchanged();
            file.drop_rest(self.crew.limits.reading());
            if let Err(error) = unchanged {
                drop(assembly);
                self.crew.fail_stream(stream, &error);
                return Ok(());
            }
        }
        let mut version = Version {
            name: stream.name.clone(),
            size_bytes: assembly.size_bytes,
            digest: assembly.take_digest(),
            metadata: stream.metadata,
            read_at_ns: stream.read_at_ns,
            amounts: assembly.amounts,
            parts: std::mem::take(&mut assembly.parts),
            runs: std::mem::take(&mut assembly.runs).finish(),
        };
        let durable_at = assembly.durable_at.max(self.checkpoint + 1);
        drop(assembly);
        let place = self
            .pack(0)?
            .append_plain(Kind::Version, &version.encode())?;
        // The catalog needs neither.
        version.parts = Vec::new();
        version.runs = Vec::new();
        self.crew.retire(stream);
        let finished = Finished {
            version: NewVersion {
                place,
                version,
                stored_bytes: 0,
                // Who asks for reading again gets a version.
                renews: !self.crew.options.reread,
            },
            durable_at,
            path: stream.path.clone(),
            opened: stream.opened,
            number: stream.tag.number,
            totals: Arc::clone(&stream.totals),
        };
        self.crew.ledger.finish(finished, Instant::now());
        Ok(())
    }
}

fn deposit_of(pack: &OpenPack, state: PackState, length_bytes: u64) -> Deposit {
    let writer = &pack.writer;
    let list = writer.list();
    let new = &list.pieces()[pack.deposited_pieces as usize..];
    Deposit {
        row: PackRow {
            id: writer.id(),
            state,
            length_bytes,
            pieces: list.piece_count(),
        },
        file: Arc::clone(writer.file()),
        pieces: new
            .iter()
            .zip(pack.deposited_pieces..)
            .map(|(piece, ordinal)| PieceRow {
                prefix: piece.id.prefix(),
                place: PiecePlace {
                    pack: writer.id(),
                    ordinal,
                },
            })
            .collect(),
    }
}

impl Plan {
    /// Decides where the chunk behind `head` is cut. The bytes of the piece that reached into it are
    /// put in front of it; those of the piece that reaches out of it are kept for the next.
    fn cut(
        &mut self,
        cutting: &mut super::stream::Cutting,
        room: &mut [u8],
        head: usize,
        last: bool,
    ) {
        self.steps.clear();
        let pending = cutting.carry.len();
        debug_assert_eq!(pending, cutting.cutter.pending_bytes());
        room[head - pending..head].copy_from_slice(&cutting.carry);
        cutting.carry.clear();
        let end = room.len();
        if self.extents.first().is_none_or(|extent| extent.start > 0) {
            // What was pending ends here: at a hole, or at the end.
            self.cut_extent(&mut cutting.cutter, room, head..head, 0..0, ExtentEnd::Ends);
        }
        let mut at = head;
        let mut from = 0;
        for index in 0..self.extents.len() {
            let extent = self.extents[index];
            let data = head + extent.start..head + extent.end;
            self.hole(at, data.start);
            at = data.end;
            let ends = if at == end && !last {
                ExtentEnd::More
            } else {
                ExtentEnd::Ends
            };
            let candidates = from..self.ends[index];
            from = self.ends[index];
            self.cut_extent(&mut cutting.cutter, room, data, candidates, ends);
        }
        self.hole(at, end);
        cutting
            .carry
            .extend_from_slice(&room[end - cutting.cutter.pending_bytes()..end]);
    }

    /// Cuts the extent's part in `room` that `data` is. Directly before it lies the pending piece.
    fn cut_extent(
        &mut self,
        cutter: &mut Cutter,
        room: &[u8],
        data: Range<usize>,
        candidates: Range<usize>,
        ends: ExtentEnd,
    ) {
        let base = data.start - cutter.pending_bytes();
        let candidates = &self.candidates[candidates];
        cutter.cut(&room[base..data.end], candidates, ends, &mut self.cuts);
        let mut start = base;
        for &CutEnd(cut) in &self.cuts {
            let end = base + cut;
            self.steps.push(Step::Piece {
                start,
                end,
                // Until it is looked up.
                id: PieceId([0; 32]),
                known: None,
            });
            start = end;
        }
    }

    fn hole(&mut self, start: usize, end: usize) {
        if start < end {
            self.steps.push(Step::Hole(end - start));
        }
    }
}

/// Has the encoder follow the level. The old one goes first: there is not to be room for two.
fn follow_level(crew: &Crew<'_>, tools: &mut Tools<'_>) {
    let level = crew.level();
    if tools.level != level {
        tools.encoder = Encoder::new(level);
        tools.level = level;
    }
}

impl Crew<'_> {
    /// The level to compress at from now on.
    fn level(&self) -> i32 {
        if self.limits.compresses_lightly() {
            self.options.level.min(LIGHT_LEVEL)
        } else {
            self.options.level
        }
    }

    /// Ends work on a stream that cannot be read, and says so once.
    pub(super) fn fail_stream(&self, stream: &Arc<Stream>, error: &ReadError) {
        // What stopped is reported by whoever knows why.
        if matches!(error, ReadError::Stopped) || !stream.fail() {
            return;
        }
        if let Origin::File(file) = &stream.origin {
            file.drop_rest(self.limits.reading());
        }
        self.retire(stream);
        self.intake.wake();
        let (path, name) = (stream.path.clone(), Some(stream.name.clone()));
        let report = FileReport::without(Status::Failed, path, name, error.to_string());
        (self.report)(report.numbered(stream.tag.number));
    }

    /// Takes a stream off the list of those being worked on.
    fn retire(&self, stream: &Arc<Stream>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|other| !Arc::ptr_eq(other, stream));
    }

    /// Keeps everybody from waiting for what will not come any more.
    fn halt(&self) {
        self.intake.halt();
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in live.iter() {
            stream.fail();
        }
    }
}

/// Fails the run if its worker panics, so that nobody waits for it.
struct Alarm<'run> {
    crew: &'run Crew<'run>,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.crew.ledger.fail(StoreError::Io {
                action: "work on",
                path: self.crew.store.root().to_owned(),
                source: std::io::Error::other("a worker panicked"),
            });
            self.crew.halt();
        }
    }
}
