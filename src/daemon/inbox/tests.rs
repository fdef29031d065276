//! Inboxes on real folders and a queue that only remembers. Most tests take the thread's turns
//! themselves, so that they know when everything has been looked at.

mod crowd;
mod ended;
mod folders;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use rustix::fs::{CWD, Mode};
use tempfile::TempDir;

use super::settle::Stamp;
use super::thread::Worker;
use super::watch::Event;
use super::*;

/// Long enough for a busy machine; met only when something is broken.
const PATIENCE: Duration = Duration::from_secs(300);
const NEVER: Duration = Duration::from_secs(100_000);

/// A queue that remembers what it was given.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
}

struct State {
    submitted: Vec<PathBuf>,
    open: HashSet<PathBuf>,
    stored: HashMap<PathBuf, Stamp>,
    most_open: usize,
    calls: usize,
    /// Its job ends just before it is submitted once more.
    about_to_end: Option<PathBuf>,
}

impl Default for State {
    fn default() -> State {
        State {
            submitted: Vec::new(),
            open: HashSet::new(),
            stored: HashMap::new(),
            most_open: usize::MAX,
            calls: 0,
            about_to_end: None,
        }
    }
}

impl Recipient for Queue {
    fn submit(&self, jobs: &[NewJob]) -> Result<Vec<Accepted>, StoreError> {
        assert!(jobs.len() <= 256);
        let mut state = lock(&self.state);
        state.calls += 1;
        let submits = |path: &mut PathBuf| jobs.iter().any(|job| job.path == *path);
        if let Some(path) = state.about_to_end.take_if(submits) {
            state.open.remove(&path);
        }
        let accept = |job: &NewJob| {
            if state.open.contains(&job.path) {
                return Accepted::Already(1);
            }
            if state.open.len() >= state.most_open {
                return Accepted::Full;
            }
            assert!(job.path.is_absolute());
            assert!(job.origin.starts_with("inbox:/"));
            state.open.insert(job.path.clone());
            state.submitted.push(job.path.clone());
            Accepted::Queued(1)
        };
        Ok(jobs.iter().map(accept).collect())
    }

    fn knows(&self, path: &Path, metadata: &Metadata) -> Result<Known, StoreError> {
        let state = lock(&self.state);
        Ok(if state.open.contains(path) {
            Known::InWork
        } else if state.stored.get(path) == Some(&Stamp::of(metadata)) {
            Known::Stored
        } else {
            Known::New
        })
    }
}

impl Queue {
    /// What was submitted, by names below the folder, in order.
    fn names(&self, root: &Path) -> Vec<String> {
        let state = lock(&self.state);
        let name = |path: &PathBuf| {
            let name = path.strip_prefix(root).unwrap();
            name.to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = state.submitted.iter().map(name).collect();
        names.sort();
        names
    }

    /// Ends the job of a file that looks like this, as if it had been stored.
    fn store(&self, path: &Path) -> Ended {
        let stamp = Stamp::of(&path.symlink_metadata().unwrap());
        let mut state = lock(&self.state);
        state.open.remove(path);
        state.stored.insert(path.to_owned(), stamp);
        Ended::Stored {
            size: stamp.size_bytes,
            mtime_ns: stamp.mtime_ns,
            ctime_ns: stamp.ctime_ns,
            inode: stamp.inode,
            device: stamp.device,
        }
    }

    fn fail(&self, path: &Path) -> Ended {
        lock(&self.state).open.remove(path);
        Ended::Failed("it is too strange".to_owned())
    }
}

fn options(path: &Path) -> InboxOptions {
    InboxOptions {
        path: path.to_owned(),
        patterns: Vec::new(),
        recursive: false,
        settle: Duration::ZERO,
        after: After::Keep,
        priority: 3,
    }
}

fn recursive(path: &Path) -> InboxOptions {
    InboxOptions {
        recursive: true,
        ..options(path)
    }
}

/// Inboxes whose turns the test takes.
struct ByHand {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    worker: Worker,
}

impl ByHand {
    fn new(options: Vec<InboxOptions>) -> ByHand {
        ByHand::with(options, Arc::default())
    }

    fn with(options: Vec<InboxOptions>, queue: Arc<Queue>) -> ByHand {
        let shared = Arc::new(Shared::new(options, NEVER).unwrap());
        let recipient: Arc<dyn Recipient> = Arc::<Queue>::clone(&queue);
        let mut by_hand = ByHand {
            queue,
            worker: Worker::new(Arc::clone(&shared), recipient),
            shared,
        };
        by_hand.turn();
        by_hand
    }

    /// Does all that is to be done now.
    fn turn(&mut self) {
        while self.worker.turn() {}
    }

    fn turn_until(&mut self, what: impl Fn(&ByHand) -> bool) {
        let began = Instant::now();
        loop {
            self.turn();
            if what(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn walk(&mut self) {
        self.shared.tell(|mail| mail.rescan = true);
        self.turn();
    }

    fn ended(&mut self, path: &Path, ended: Ended) {
        self.shared
            .tell(|mail| mail.ended.push_back((path.to_owned(), ended)));
        self.turn();
    }

    fn stats(&self) -> InboxStats {
        let stats = lock(&self.shared.stats);
        lock(&stats[0]).clone()
    }

    fn names(&self, root: &Path) -> Vec<String> {
        self.queue.names(root)
    }
}

fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn folder() -> (TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("in");
    fs::create_dir(&root).unwrap();
    (temporary, root)
}

#[test]
fn files_are_taken_when_closed_or_moved_in_and_never_half_written() {
    let (outside, root) = folder();
    let mut inbox = ByHand::new(vec![options(&root)]);
    let mut file = File::create(root.join("a")).unwrap();
    for _ in 0..3 {
        file.write_all(b"part").unwrap();
        inbox.turn();
        assert!(inbox.names(&root).is_empty());
    }
    drop(file);
    inbox.turn();
    assert_eq!(inbox.names(&root), ["a"]);

    fs::write(outside.path().join("b"), "b").unwrap();
    fs::rename(outside.path().join("b"), root.join("b")).unwrap();
    let strange = OsStr::from_bytes(b"c\xff\n");
    fs::write(root.join(strange), "c").unwrap();
    inbox.turn();
    assert_eq!(inbox.names(&root), ["a", "b", "c\u{fffd}\n"]);
    let stats = inbox.stats();
    assert_eq!(
        (stats.submitted, stats.waiting, stats.last_error),
        (3, 0, None)
    );
    // Nothing is pending, so nothing wakes the thread before the next walk.
    let next = inbox.worker.inboxes[0].next().unwrap();
    assert!(next > Instant::now() + NEVER / 2);
}

#[test]
fn only_files_that_are_meant_are_taken() {
    let (outside, root) = folder();
    let mut inbox = ByHand::new(vec![InboxOptions {
        patterns: vec!["*.tar".to_owned(), "[0-9].log".to_owned()],
        ..recursive(&root)
    }]);
    fs::write(outside.path().join("x.tar"), "x").unwrap();
    for folder in ["failed", ".hidden", "sub/failed"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("no.tar"), "no").unwrap();
    }
    for name in [
        "a.tar",
        "1.log",
        "11.log",
        "a.tar.gz",
        ".a.tar",
        "sub/b.tar",
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink(outside.path().join("x.tar"), root.join("link.tar")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join("linked")).unwrap();
    rustix::fs::mkfifoat(CWD, root.join("fifo.tar"), Mode::RUSR).unwrap();
    let expected = ["1.log", "a.tar", "sub/b.tar"];
    inbox.turn_until(|inbox| inbox.names(&root) == expected);
    inbox.walk();
    inbox.turn_until(|inbox| inbox.stats().waiting == 0);
    assert_eq!(inbox.names(&root), expected);
}

#[test]
fn a_file_settles_first_however_it_is_found() {
    let (_outside, root) = folder();
    let settle = Duration::from_millis(1200);
    let mut inbox = ByHand::new(vec![InboxOptions {
        settle,
        ..options(&root)
    }]);
    let began = Instant::now();
    fs::write(root.join("a"), "a").unwrap();
    inbox.turn();
    inbox.walk();
    inbox.turn_until(|inbox| !inbox.names(&root).is_empty());
    // The file system's clock may be a tick behind.
    assert!(began.elapsed() > settle - Duration::from_millis(50));
    assert_eq!(inbox.stats().submitted, 1);

    let (_outside, root) = folder();
    let mut inbox = ByHand::new(vec![InboxOptions {
        settle: NEVER,
        ..options(&root)
    }]);
    // Written and closed again and again, as a log is.
    for text in ["a", "ab", "abc"] {
        fs::write(root.join("a"), text).unwrap();
        inbox.turn();
        inbox.walk();
        assert_eq!(inbox.stats().waiting, 1);
    }
    fs::remove_file(root.join("a")).unwrap();
    assert!(inbox.names(&root).is_empty());
}
