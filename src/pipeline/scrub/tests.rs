use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::pipeline::fingerprints::{Asker, Settings};
use crate::store::format::Chunking;
use crate::store::index::{PackRow, PackState, PieceRow};
use crate::store::pack;
use crate::store::record::{Coding, HEADER_BYTES, PIECE_ENTRY_BYTES, PieceEntry};
use crate::store::{PieceId, PiecePlace};

const NEVER_AGAIN: Duration = Duration::from_secs(1 << 30);
const FAST: ScrubOptions = ScrubOptions {
    rate_bytes: Some(1 << 40),
    every: NEVER_AGAIN,
};
/// The first record is read, and the second in minutes.
const SLOW: ScrubOptions = ScrubOptions {
    rate_bytes: Some(1),
    every: NEVER_AGAIN,
};
const FRAMES: u32 = 4;
/// Pieces of a frame.
const PIECES: u32 = 3;

fn piece(pack: PackId, ordinal: u32) -> Vec<u8> {
    format!("piece {ordinal} of pack {pack}")
        .repeat(20)
        .into_bytes()
}

/// A store with sealed packs of a few frames each.
struct Packs {
    _folder: TempDir,
    store: Store,
    pool: Pool,
    /// Bytes of all records but trailers.
    record_bytes: u64,
}

impl Packs {
    fn new(packs: u64) -> Packs {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(&folder.path().join("store"), Chunking::Fixed).unwrap();
        let mut made = Packs {
            _folder: folder,
            store,
            pool: Pool::new(buffer_bytes()),
            record_bytes: 0,
        };
        for _ in 0..packs {
            made.add();
        }
        made
    }

    fn add(&mut self) -> PackId {
        let mut writer = self.store.new_pack(0).unwrap();
        let id = writer.id();
        for frame in 0..FRAMES {
            let ordinals = frame * PIECES..(frame + 1) * PIECES;
            let plain: Vec<_> = ordinals.map(|ordinal| piece(id, ordinal)).collect();
            let mut record = vec![0; HEADER_BYTES];
            let mut entries = Vec::new();
            for piece in &plain {
                let entry = PieceEntry {
                    id: PieceId::of(piece),
                    length_bytes: piece.len() as u32,
                };
                let mut bytes = [0; PIECE_ENTRY_BYTES];
                entry.encode(&mut bytes);
                record.extend_from_slice(&bytes);
                entries.push(entry);
            }
            let plain = plain.concat();
            record.extend_from_slice(&plain);
            self.record_bytes += record.len() as u64;
            writer
                .append_frame(&mut record, Coding::Plain, plain.len() as u32, &entries)
                .unwrap();
        }
        let pieces: Vec<_> = (0u32..)
            .zip(writer.list().pieces())
            .map(|(ordinal, piece)| PieceRow {
                prefix: piece.id.prefix(),
                place: PiecePlace { pack: id, ordinal },
            })
            .collect();
        let (_, sealed) = writer.seal().unwrap();
        let row = PackRow {
            id,
            state: PackState::Sealed,
            length_bytes: sealed.length_bytes,
            pieces: sealed.pieces,
        };
        self.store
            .database()
            .commit(&[row], &pieces, &[], 0)
            .unwrap();
        id
    }

    fn path(&self, id: PackId) -> PathBuf {
        pack::path(self.store.root(), id)
    }

    /// Flips a byte in a frame's last piece; doing it again flips it back.
    fn flip(&self, id: PackId, frame: usize) {
        let list = self.store.pack(id).unwrap().list().unwrap().0;
        let record = list.records()[frame];
        let mut bytes = fs::read(self.path(id)).unwrap();
        bytes[record.offset as usize + record.length_bytes as usize - 5] ^= 1;
        fs::write(self.path(id), bytes).unwrap();
    }

    /// Runs a scrub while `work` goes on, then stops it. Gives the packs in which damage was told.
    fn scrub(&self, scrub: &Scrub, work: impl FnOnce()) -> Vec<u64> {
        self.scrub_with(scrub, None, work)
    }

    fn scrub_with(
        &self,
        scrub: &Scrub,
        known: Option<&Fingerprints<'_>>,
        work: impl FnOnce(),
    ) -> Vec<u64> {
        let told = Mutex::new(Vec::new());
        let found = |damage: &Damage| told.lock().unwrap().push(damage.pack.0);
        thread::scope(|scope| {
            // Stops it also when the work panics: else the scope would wait for ever.
            let _stop = StopAtEnd(scrub);
            scope.spawn(|| scrub.run(&self.store, &self.pool, known, &found));
            work();
        });
        assert_eq!(self.pool.stats().held_bytes, 0);
        assert_eq!(scrub.status().state, ScrubState::Off);
        told.into_inner().unwrap()
    }
}

struct StopAtEnd<'a>(&'a Scrub);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Waits until the scrub says so, however slow the machine is.
#[track_caller]
fn until(scrub: &Scrub, what: impl Fn(&ScrubStatus) -> bool) -> ScrubStatus {
    let began = Instant::now();
    loop {
        let status = scrub.status();
        if what(&status) {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{status:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn idle(status: &ScrubStatus) -> bool {
    status.state == ScrubState::Idle
}

#[test]
fn all_packs_are_checked_the_newest_first_and_new_ones_when_they_come() {
    let mut packs = Packs::new(3);
    for id in [1, 2, 3] {
        packs.flip(PackId(id), 1);
    }
    let scrub = Scrub::new(FAST);
    let told = packs.scrub(&scrub, || {
        let status = until(&scrub, |s| idle(s) && s.last_pass.is_some());
        assert_eq!((status.damage.open, status.damage.replaced), (3, 0));
        assert_eq!(status.checked_bytes, status.pass_total_bytes);
        assert_eq!(
            (status.read_bytes, status.pass_began_ns),
            (packs.record_bytes, None)
        );
    });
    assert_eq!(told, [3, 2, 1]);

    // Another one goes on where this one ended: only what came in meanwhile is new.
    let before = packs.record_bytes;
    let new = packs.add();
    packs.flip(new, 0);
    let scrub = Scrub::new(FAST);
    let told = packs.scrub(&scrub, || {
        let status = until(&scrub, |s| idle(s) && s.damage.open == 4);
        assert_eq!(status.read_bytes, packs.record_bytes - before);
        assert!(status.last_pass.is_some() && status.last_pass_ended_ns.is_some());
    });
    assert_eq!(told, [4]);
}

#[test]
fn a_scrub_that_sleeps_hears_of_new_packs() {
    let mut packs = Packs::new(1);
    let store = Store::open(packs.store.root()).unwrap();
    let pool = Pool::new(buffer_bytes());
    let scrub = Scrub::new(FAST);
    thread::scope(|scope| {
        let _stop = StopAtEnd(&scrub);
        scope.spawn(|| scrub.run(&store, &pool, None, &|_| {}));
        until(&scrub, idle);
        packs.add();
        scrub.wake();
        until(&scrub, |s| idle(s) && s.read_bytes == packs.record_bytes);
    });
}

#[test]
fn damage_is_cleared_when_the_pack_is_whole_again_and_passes_follow_each_other() {
    let packs = Packs::new(2);
    packs.flip(PackId(1), 2);
    let always = ScrubOptions {
        every: Duration::ZERO,
        ..FAST
    };
    let scrub = Scrub::new(always);
    packs.scrub(&scrub, || {
        until(&scrub, |s| s.damage.open == 1 && s.last_pass.is_some());
        packs.flip(PackId(1), 2);
        let status = until(&scrub, |s| s.damage.open == 0);
        let ended = status.last_pass_ended_ns;
        until(&scrub, |s| s.last_pass_ended_ns > ended);
    });
    assert_eq!(packs.store.database().damage_count().unwrap(), 0);
}

#[test]
fn known_damage_is_counted_though_it_may_not_read() {
    let packs = Packs::new(1);
    packs.flip(PackId(1), 2);
    let scrub = Scrub::new(FAST);
    packs.scrub(&scrub, || {
        until(&scrub, |s| s.damage.open == 1);
    });
    let off = ScrubOptions {
        rate_bytes: None,
        ..FAST
    };
    let scrub = Scrub::new(off);
    packs.scrub(&scrub, || {
        until(&scrub, |s| s.damage.open == 1);
    });
    let scrub = Scrub::new(FAST);
    scrub.pause(PauseFor::Pressure, true);
    packs.scrub(&scrub, || {
        until(&scrub, |s| s.damage.open == 1);
    });
}

#[test]
fn it_sleeps_between_records_and_hears_of_another_rate() {
    let packs = Packs::new(2);
    let scrub = Scrub::new(SLOW);
    packs.scrub(&scrub, || {
        let status = until(&scrub, |s| s.read_bytes > 0);
        assert_eq!(status.state, ScrubState::Running);
        assert!(status.read_bytes < packs.record_bytes / 4);
        assert_eq!(
            status.expected_pass,
            Some(Duration::from_secs(status.pass_total_bytes))
        );
        scrub.set_options(FAST);
        let status = until(&scrub, idle);
        assert_eq!(status.read_bytes, packs.record_bytes);
    });
}

#[test]
fn a_pause_gives_buffers_back_and_the_pack_is_gone_on_with() {
    let packs = Packs::new(1);
    packs.flip(PackId(1), 0);
    packs.flip(PackId(1), 3);
    let scrub = Scrub::new(SLOW);
    let told = packs.scrub(&scrub, || {
        until(&scrub, |s| s.read_bytes > 0);
        assert_eq!(packs.pool.stats().held_bytes, buffer_bytes());
        scrub.pause(PauseFor::Pressure, true);
        let paused = until(&scrub, |s| s.state == ScrubState::Paused);
        assert_eq!(packs.pool.stats().held_bytes, 0);
        scrub.pause(PauseFor::Request, true);
        scrub.set_options(FAST);
        scrub.pause(PauseFor::Pressure, false);
        until(&scrub, |s| s.state == ScrubState::Paused);
        assert_eq!(scrub.status().read_bytes, paused.read_bytes);
        scrub.pause(PauseFor::Request, false);
        let status = until(&scrub, idle);
        assert_eq!(status.read_bytes, packs.record_bytes, "each record once");
        assert_eq!(
            status.damage.open, 2,
            "also what was found before the pause"
        );
    });
    assert_eq!(told, [1, 1]);
}

#[test]
fn without_a_rate_it_is_off() {
    let packs = Packs::new(1);
    for rate_bytes in [None, Some(0)] {
        let off = ScrubOptions { rate_bytes, ..FAST };
        let scrub = Scrub::new(off);
        packs.scrub(&scrub, || {
            scrub.wake();
            assert_eq!(until(&scrub, |_| true).state, ScrubState::Off);
        });
        assert_eq!(scrub.status().read_bytes, 0);
        assert_eq!(scrub.status().expected_pass, None);
    }
}

#[test]
fn it_waits_while_others_have_the_memory() {
    let packs = Packs::new(1);
    let scrub = Scrub::new(FAST);
    let taken = packs.pool.account("chunks").take(1 << 20).unwrap();
    packs.scrub(&scrub, || {
        until(&scrub, |s| s.state == ScrubState::Paused);
        assert_eq!(scrub.status().read_bytes, 0);
        drop(taken);
        scrub.wake();
        until(&scrub, idle);
    });
}

#[test]
fn it_makes_way_for_who_waits_for_memory() {
    let packs = Packs::new(1);
    let scrub = Scrub::new(SLOW);
    packs.scrub(&scrub, || {
        until(&scrub, |s| s.read_bytes > 0);
        let chunks = packs.pool.account("chunks");
        thread::scope(|scope| {
            scope.spawn(|| drop(chunks.take(buffer_bytes() as usize).unwrap()));
            while packs.pool.stats().queued == 0 {
                thread::yield_now();
            }
            // The next record is read at once, and at its end it looks.
            scrub.set_options(FAST);
        });
        scrub.wake();
        until(&scrub, |s| idle(s) && s.read_bytes == packs.record_bytes);
    });
}

#[test]
fn a_pack_that_is_gone_is_damage_and_one_that_was_removed_is_not() {
    let packs = Packs::new(2);
    fs::remove_file(packs.path(PackId(2))).unwrap();
    let scrub = Scrub::new(FAST);
    let told = packs.scrub(&scrub, || {
        until(&scrub, |s| idle(s) && s.damage.open == 1);
    });
    assert_eq!(told, [2]);

    let packs = Packs::new(1);
    let scrub = Scrub::new(SLOW);
    let told = packs.scrub(&scrub, || {
        until(&scrub, |s| s.read_bytes > 0);
        packs.flip(PackId(1), 3);
        let database = packs.store.database();
        database
            .change("remove", |c| c.execute("DELETE FROM pack", []))
            .unwrap();
        scrub.set_options(FAST);
        until(&scrub, idle);
    });
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(packs.store.database().damage_count().unwrap(), 0);
}

#[test]
fn a_pack_that_cannot_be_read_does_not_hold_up_the_others() {
    let packs = Packs::new(3);
    fs::remove_file(packs.path(PackId(2))).unwrap();
    fs::create_dir(packs.path(PackId(2))).unwrap();
    let scrub = Scrub::new(FAST);
    let told = packs.scrub(&scrub, || {
        until(&scrub, |s| {
            idle(s) && s.read_bytes == packs.record_bytes / 3 * 2
        });
    });
    assert!(told.is_empty(), "{told:?}");
    let database = packs.store.database();
    let next = database
        .next_check(&mut CheckOrder::default())
        .unwrap()
        .unwrap();
    assert_eq!((next.pack, next.checked_ns), (PackId(2), None));
}

/// Whether a piece of a pack is known.
fn knows(asker: &Asker<'_, '_>, pack: PackId, ordinal: u32) -> bool {
    let found = asker.find(&[PieceId::of(&piece(pack, ordinal))]).unwrap()[0];
    assert!(found.is_none_or(|found| found == PiecePlace { pack, ordinal }));
    found.is_some()
}

#[test]
fn what_is_found_damaged_is_not_known_any_more_and_comes_back_when_it_is_whole() {
    let packs = Packs::new(2);
    let settings = Settings {
        limit_bytes: 1 << 20,
        long_pause: Duration::from_secs(1),
    };
    let account = Pool::new(0).account("fingerprints");
    let known = Fingerprints::new(&packs.store, settings, account);
    let always = ScrubOptions {
        every: Duration::ZERO,
        ..FAST
    };
    let [first, second] = [PackId(1), PackId(2)];
    let of_second_frame = PIECES..2 * PIECES;
    known.while_serving(|| {
        let asker = known.asker();
        assert!((0..FRAMES * PIECES).all(|ordinal| knows(&asker, first, ordinal)));
        packs.flip(first, 1);
        assert!(knows(&asker, first, PIECES), "nobody has seen it");
        let scrub = Scrub::new(always);
        packs.scrub_with(&scrub, Some(&known), || {
            until(&scrub, |s| s.damage.open == 1);
        });
        // Asked in both orders: by its own question, and after a neighbour has the list taken in.
        for _ in 0..2 {
            for ordinal in 0..FRAMES * PIECES {
                let lost = of_second_frame.contains(&ordinal);
                assert_eq!(knows(&asker, first, ordinal), !lost, "piece {ordinal}");
                assert!(knows(&asker, second, ordinal));
            }
        }
        packs.flip(first, 1);
        let scrub = Scrub::new(always);
        packs.scrub_with(&scrub, Some(&known), || {
            until(&scrub, |s| s.damage.open == 0 && s.last_pass.is_some());
        });
        assert!(knows(&asker, first, PIECES));
    });
}

#[test]
fn a_rate_is_kept_to_and_only_a_little_of_lost_time_made_up_for() {
    let start = Instant::now();
    let clock = AtomicU64::new(0);
    let now = || start + Duration::from_millis(clock.load(Ordering::Relaxed));
    let pass = |ms| clock.fetch_add(ms, Ordering::Relaxed);
    let millis = |time: Duration| time.as_millis() as u64;
    let mut bucket = Bucket::new(now());
    assert_eq!(bucket.wait(1000, now()), Duration::ZERO);
    bucket.spend(500);
    assert_eq!(millis(bucket.wait(1000, now())), 500);
    pass(200);
    assert_eq!(millis(bucket.wait(1000, now())), 300);
    // Another rate holds for what is still owed.
    assert_eq!(millis(bucket.wait(100, now())), 3000);
    pass(3001);
    assert_eq!(bucket.wait(100, now()), Duration::ZERO);

    // An hour of nothing is no reason to read for an hour without a break.
    pass(3_600_000);
    assert_eq!(bucket.wait(1000, now()), Duration::ZERO);
    bucket.spend(1000);
    assert_eq!(millis(bucket.wait(1000, now())), 800);

    // Over many records it is the rate.
    let began = clock.load(Ordering::Relaxed);
    for _ in 0..100 {
        bucket.spend(1000);
        loop {
            match millis(bucket.wait(1000, now())) {
                0 => break,
                ms => pass(ms),
            };
        }
    }
    let took = clock.load(Ordering::Relaxed) - began;
    assert!((100_000..=101_000).contains(&took), "{took} ms");
    assert!(bucket.wait(0, now()) <= Duration::from_secs(86_401));
}
