//! Fifty kills of runs over a folder that keeps changing, with one store for all of them.
//!
//! After each, everything that any run has acknowledged is listed as it was reported and reads back to
//! the same bytes, and `verify` finds nothing. It is checked in a copy, so that the next run meets what
//! the crash has left and nothing that somebody has tidied up. At the end every version that was ever
//! acknowledged is read, and no piece may be in the store twice: what a killed run had written was
//! found again by the runs after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use filed::store::pack;

use super::acknowledged::{Acknowledged, check_pieces_differ};
use super::content::{Random, digest, noise, text};
use super::filed::{Ended, Filed};

const KILLS: usize = 50;

/// A run may be over before its moment has come. Then there is one more.
const MAX_RUNS: usize = 3 * KILLS;

const SMALL_FILES: usize = 300;

/// More than what makes filed commit while it works, instead of at the end of a run.
const HUGE_BYTES: usize = 80 << 20;

/// When a run is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// When it has reported so many files as stored.
    Stored(usize),
    /// When the packs have grown by so many bytes.
    Packs(u64),
    /// When the packs' length has changed at all: recovery may be at it.
    Touch,
    /// When the database's log has been seen changing so many times.
    Log(usize),
}

/// A folder of files that changes from run to run, and what is in them now.
struct Tree {
    root: PathBuf,
    random: Random,
    digests: BTreeMap<String, String>,
    large: Vec<(PathBuf, Vec<u8>)>,
}

impl Tree {
    fn new(root: PathBuf) -> Tree {
        fs::create_dir(&root).unwrap();
        let mut tree = Tree {
            root,
            random: Random::new(1),
            digests: BTreeMap::new(),
            large: Vec::new(),
        };
        for number in 0..SMALL_FILES {
            tree.write_small(number);
        }
        for number in 0..6 {
            let length = (1 << 20) + tree.random.below(4 << 20) as usize;
            let make = [noise, text][number % 2];
            let content = make(tree.random.next(), length);
            let path = tree.root.join(format!("large-{number}"));
            tree.write(&path, &content);
            tree.large.push((path, content));
        }
        tree
    }

    fn write(&mut self, path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        let name = path.to_str().unwrap().to_owned();
        self.digests.insert(name, digest(content));
    }

    fn remove(&mut self, path: &Path) {
        if fs::remove_file(path).is_ok() {
            self.digests.remove(path.to_str().unwrap());
        }
    }

    /// Small files come before the large ones in a run, and behind them.
    fn write_small(&mut self, number: usize) {
        let (seed, length) = (self.random.next(), self.random.below(16 << 10) as usize);
        let make = [noise, text, text][number % 3];
        let side = ["a", "z"][number % 2];
        let path = self.root.join(format!("{side}-{number:03}"));
        self.write(&path, &make(seed, length));
    }

    /// Changes some files, adds one and removes one. Gives about how many bytes of it are new and do
    /// not compress.
    fn change(&mut self, round: usize) -> u64 {
        for _ in 0..20 {
            let number = self.random.below(SMALL_FILES as u64) as usize;
            self.write_small(number);
        }
        self.write_small(SMALL_FILES + round);
        self.remove(&self.root.join(format!("z-{:03}", 2 * round + 1)));
        let which = self.random.below(self.large.len() as u64) as usize;
        let (path, mut content) = self.large.swap_remove(which);
        let new_bytes = if round.is_multiple_of(4) {
            content = noise(self.random.next(), 3 << 20);
            content.len()
        } else {
            // Some bytes replaced, and others inserted in front of everything.
            let new = noise(self.random.next(), 512 << 10);
            let at = self.random.below((content.len() - new.len()) as u64) as usize;
            content[at..at + new.len()].copy_from_slice(&new);
            content.splice(0..0, text(self.random.next(), 1000));
            new.len()
        };
        self.write(&path, &content);
        self.large.push((path, content));
        new_bytes as u64
    }

    /// A file that takes so long that filed commits what came before it.
    fn write_huge(&mut self) {
        let content = noise(self.random.next(), HUGE_BYTES);
        self.write(&self.root.join("huge"), &content);
    }

    /// Makes every small file one that has to be read again, though its content is the same.
    fn touch(&self) {
        for entry in fs::read_dir(&self.root).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with(['a', 'z']) {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(SystemTime::now()).unwrap();
            }
        }
    }

    fn digest_of(&self, name: &str) -> String {
        self.digests[name].clone()
    }
}

/// The moment for a run in which so many bytes are new.
fn moment(round: usize, new_bytes: u64, random: &mut Random) -> Moment {
    match round % 5 {
        0 => Moment::Stored(1 + random.below(100) as usize),
        1 => Moment::Touch,
        2 => Moment::Log(1 + random.below(6) as usize),
        _ => Moment::Packs(1 + random.below(new_bytes)),
    }
}

/// Runs it until the moment comes.
fn run_until(filed: &Filed, tree: &Tree, moment: Moment) -> Ended {
    let log = filed.store().join("catalog.db-wal");
    let look = || {
        fs::metadata(&log)
            .ok()
            .map(|m| (m.len(), m.modified().ok()))
    };
    let (bytes_before, mut log_before) = (filed.pack_bytes(), look());
    let root = tree.root.to_str().unwrap();
    let running = filed.start(&["process", "--json", "--quiet", root]);
    match moment {
        Moment::Stored(count) => {
            let mut seen = 0;
            running.kill_at(|line| {
                seen += usize::from(line["status"] == "stored");
                seen == count
            })
        }
        Moment::Packs(more) => running.kill_when(|| filed.pack_bytes() >= bytes_before + more),
        Moment::Touch => running.kill_when(|| filed.pack_bytes() != bytes_before),
        Moment::Log(count) => {
            let mut seen = 0;
            running.kill_when(|| {
                let now = look();
                seen += usize::from(now != log_before);
                log_before = now;
                seen == count
            })
        }
    }
}

/// Copies a store that nobody works in. Packs are linked: nothing but a run would write to them.
fn copy_store(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        let is_pack = from
            .extension()
            .is_some_and(|extension| extension == "pack");
        if from.is_dir() {
            copy_store(&from, &to);
        } else if is_pack {
            fs::hard_link(&from, &to).unwrap();
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Gives one version out through the program.
fn restore(filed: &Filed, acknowledged: &Acknowledged, which: usize) {
    let version = acknowledged.version(which);
    let (name, number) = (version.name.to_string(), version.number.to_string());
    let ended = filed.succeed(&[
        "restore",
        &name,
        "--version",
        &number,
        "--stdout",
        "--quiet",
    ]);
    assert_eq!(digest(&ended.stdout), version.digest, "{name}");
}

#[test]
fn nothing_acknowledged_is_lost_over_fifty_kills() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut tree = Tree::new(dir.join("files"));
    let mut random = Random::new(2);
    let mut acknowledged = Acknowledged::default();
    let filed = Filed::new(&dir.join("store"));
    let filed_with_small_packs = Filed::new(filed.store()).with("FILED_STORE__PACK_SIZE", "1MiB");
    let (mut round, mut kills) = (0, 0);
    let mut new_bytes: u64 = 8 << 20;
    while kills < KILLS {
        assert!(
            round < MAX_RUNS,
            "only {kills} of {round} runs were killed in time"
        );
        let moment = moment(round, new_bytes, &mut random);
        if let Moment::Stored(_) = moment {
            // More reports than a pipe holds, so that it cannot be over before it is killed.
            tree.touch();
        }
        if [20, 40].contains(&round) {
            tree.write_huge();
        }
        let running = [&filed, &filed_with_small_packs][round % 2];
        let before = acknowledged.count();
        let ended = run_until(running, &tree, moment);
        let context = format!("round {round}, {moment:?}: {}", ended.stderr);
        assert!(ended.was_killed() || ended.code() == Some(0), "{context}");
        kills += usize::from(ended.was_killed());
        acknowledged.hear(&ended, |name| tree.digest_of(name));
        eprintln!(
            "{context}{} files acknowledged",
            acknowledged.count() - before
        );

        let copy = Filed::new(&dir.join("copy"));
        copy_store(filed.store(), copy.store());
        if copy.store().join("format").exists() {
            copy.verify();
            let store = copy.open();
            acknowledged.check_listed(&store);
            let some_older = (0..10)
                .filter(|_| before > 0)
                .map(|_| random.below(before as u64));
            let which: Vec<usize> = some_older.map(|older| older as usize).collect();
            acknowledged.check_content(&store, which.iter().copied());
            acknowledged.check_content(&store, before..acknowledged.count());
            if let Some(older) = which.first() {
                restore(&copy, &acknowledged, *older);
            }
        } else {
            assert_eq!(acknowledged.count(), 0, "{context}");
        }
        fs::remove_dir_all(copy.store()).unwrap();
        new_bytes = tree.change(round);
        round += 1;
    }

    let root = tree.root.to_str().unwrap();
    let complete = filed.take_in(&[root]);
    acknowledged.hear(&complete, |name| tree.digest_of(name));
    assert_eq!(complete.files().len(), tree.digests.len());
    let again = filed.succeed(&["process", "--json", "--quiet", "--reread", root]);
    acknowledged.hear(&again, |name| tree.digest_of(name));
    for file in again.files() {
        let of_it = (&file["status"], &file["new_pieces"]);
        assert_eq!(of_it, (&"stored".into(), &0.into()), "{file}");
    }
    assert_eq!(again.summary()["new_bytes"], 0);
    let pieces = filed.verify();
    let store = filed.open();
    for (id, committed_bytes, _) in store.database().open_packs().unwrap() {
        // Killed between reserving a number and creating the file: that is forgotten after an hour.
        let path = pack::path(filed.store(), id);
        assert_eq!((committed_bytes, path.exists()), (0, false), "pack {id}");
    }
    assert_eq!(check_pieces_differ(&store), pieces);
    acknowledged.check_all(&store);
}
