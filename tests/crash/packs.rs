//! Packs made by hand, record by record, with versions of files in them.

use std::fs;
use std::path::PathBuf;

use filed::heap::Pool;
use filed::pipeline::fingerprints::{Asker, Fingerprints, Settings};
use filed::pipeline::verify::{Checked, Finding, verify};
use filed::pipeline::{Progress, Stop, verify as sweep};
use filed::store::catalog::NewVersion;
use filed::store::index::{PackRow, PackState, PieceRow};
use filed::store::lists::PackLists;
use filed::store::manifest::{Amounts, RunsWriter, Version};
use filed::store::pack::{self, PackWriter};
use filed::store::record::{Coding, HEADER_BYTES, Kind, PIECE_ENTRY_BYTES, PieceEntry};
use filed::store::verify::Depth;
use filed::store::{FileName, PackId, PieceId, PiecePlace, Store};

/// Times are handed in, so any will do.
pub(crate) const NOW_NS: i64 = 1_700_000_000_000_000_000;

/// A pack being made.
pub(crate) struct Pack<'store> {
    store: &'store Store,
    writer: PackWriter,
    /// Where its records end.
    pub(crate) ends: Vec<u64>,
    versions: Vec<NewVersion>,
}

/// A piece that is in no other place.
pub(crate) fn piece(pack: PackId, number: u32) -> Vec<u8> {
    format!("piece {number} of pack {pack}").into_bytes()
}

impl<'store> Pack<'store> {
    pub(crate) fn new(store: &'store Store) -> Pack<'store> {
        Pack {
            store,
            writer: store.new_pack(NOW_NS).unwrap(),
            ends: Vec::new(),
            versions: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> PackId {
        self.writer.id()
    }

    pub(crate) fn path(&self) -> PathBuf {
        pack::path(self.store.root(), self.id())
    }

    /// Appends a frame of this many new pieces.
    pub(crate) fn frame(mut self, count: u32) -> Self {
        let first = self.writer.list().piece_count();
        let pieces: Vec<_> = (first..first + count)
            .map(|n| piece(self.id(), n))
            .collect();
        let mut record = vec![0; HEADER_BYTES];
        let mut entries = Vec::new();
        for piece in &pieces {
            let entry = PieceEntry {
                id: PieceId::of(piece),
                length_bytes: piece.len() as u32,
            };
            let mut bytes = [0; PIECE_ENTRY_BYTES];
            entry.encode(&mut bytes);
            record.extend_from_slice(&bytes);
            entries.push(entry);
        }
        let plain = pieces.concat();
        record.extend_from_slice(&plain);
        self.writer
            .append_frame(&mut record, Coding::Plain, plain.len() as u32, &entries)
            .unwrap();
        self.ends.push(self.writer.length_bytes());
        self
    }

    /// Appends the version of a file made of all pieces so far.
    pub(crate) fn version(mut self) -> Self {
        let pieces = self.writer.list().piece_count();
        let mut runs = RunsWriter::default();
        let mut content = Vec::new();
        for ordinal in 0..pieces {
            let pack = self.id();
            runs.piece(PiecePlace { pack, ordinal });
            content.extend(piece(pack, ordinal));
        }
        let name = format!("/pack {} with {pieces} pieces", self.id());
        let mut version = Version {
            name: FileName::new(name.as_bytes()).unwrap(),
            size_bytes: content.len() as u64,
            digest: *blake3::hash(&content).as_bytes(),
            metadata: None,
            read_at_ns: NOW_NS,
            amounts: Amounts::default(),
            parts: Vec::new(),
            runs: runs.finish(),
        };
        let payload = version.encode();
        let place = self.writer.append_plain(Kind::Version, &payload).unwrap();
        version.runs = Vec::new();
        self.versions.push(NewVersion {
            place,
            version,
            stored_bytes: 0,
            renews: false,
        });
        self.ends.push(self.writer.length_bytes());
        self
    }

    /// Commits all records so far.
    pub(crate) fn commit(mut self) -> Self {
        let (id, list) = (self.id(), self.writer.list());
        let row = PackRow {
            id,
            state: PackState::Open,
            length_bytes: self.writer.length_bytes(),
            pieces: list.piece_count(),
        };
        let pieces: Vec<_> = (0u32..)
            .zip(list.pieces())
            .map(|(ordinal, piece)| PieceRow {
                prefix: piece.id.prefix(),
                place: PiecePlace { pack: id, ordinal },
            })
            .collect();
        let versions = std::mem::take(&mut self.versions);
        let database = self.store.database();
        database.commit(&[row], &pieces, &versions, NOW_NS).unwrap();
        self
    }

    /// Writes the trailer and dies before that is committed.
    pub(crate) fn seal_and_die(self) -> Dead {
        let (id, path, ends) = (self.id(), self.path(), self.ends);
        give_up_lock(&self.writer.seal().unwrap().0);
        Dead { id, path, ends }
    }

    /// The writer dies: its lock is gone.
    pub(crate) fn die(self) -> Dead {
        give_up_lock(self.writer.file());
        Dead {
            id: self.id(),
            path: self.path(),
            ends: self.ends,
        }
    }
}

/// What closing would do, were it not that a program which another thread is just starting has the file
/// open for a moment, too.
fn give_up_lock(pack: &fs::File) {
    pack.unlock().unwrap();
}

/// A pack whose writer died.
pub(crate) struct Dead {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    /// Where its records end.
    pub(crate) ends: Vec<u64>,
}

impl Dead {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// Cuts it.
    pub(crate) fn cut(&self, length: u64) {
        let file = fs::File::options().write(true).open(&self.path).unwrap();
        file.set_len(length).unwrap();
    }

    /// Flips the bits of the byte at `offset`.
    pub(crate) fn flip(&self, offset: u64) {
        let mut bytes = self.bytes();
        bytes[offset as usize] ^= 0xff;
        fs::write(&self.path, bytes).unwrap();
    }
}

/// Whether the store has piece `number` of a pack, as whoever takes in a file asks.
pub(crate) fn has(store: &Store, pack: PackId, number: u32) -> bool {
    let known = fingerprints(store);
    known.while_serving(|| has_as_seen_by(&known.asker(), pack, number))
}

/// An empty cache for what a store has.
pub(crate) fn fingerprints(store: &Store) -> Fingerprints<'_> {
    let settings = Settings {
        limit_bytes: 1 << 20,
        long_pause: std::time::Duration::from_secs(1),
    };
    Fingerprints::new(store, settings, Pool::new(0).account("fingerprints"))
}

/// As [`has`], with what this cache remembers.
pub(crate) fn has_as_seen_by(asker: &Asker<'_, '_>, pack: PackId, number: u32) -> bool {
    let found = asker.find(&[PieceId::of(&piece(pack, number))]).unwrap()[0];
    let place = PiecePlace {
        pack,
        ordinal: number,
    };
    assert!(found.is_none_or(|found| found == place), "{found:?}");
    found.is_some()
}

/// Checks every byte of the store; gives what was found as text, and how much was checked.
pub(crate) fn check(store: &Store) -> (Vec<String>, Checked) {
    let found = std::sync::Mutex::new(Vec::new());
    let tell = |finding: Finding| {
        found.lock().unwrap().push(match finding {
            Finding::Pack { damage, .. } => format!("pack {}: {}", damage.pack, damage.what),
            Finding::Version { row, why } => format!("{}: {why}", row.name),
        });
    };
    let checked = verify(
        store,
        &PackLists::new(store, 1 << 20),
        Depth::Content,
        &Pool::new(sweep::buffer_bytes(1)),
        1,
        &Stop::default(),
        &Progress::default(),
        &tell,
    );
    let mut found = found.into_inner().unwrap();
    found.sort();
    (found, checked.unwrap())
}

/// As [`check`]; nothing may be found. Gives the number of pieces.
pub(crate) fn check_clean(store: &Store) -> u64 {
    let (found, checked) = check(store);
    assert_eq!(found, [] as [String; 0]);
    checked.pieces
}
