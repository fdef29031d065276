use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode};
use tempfile::TempDir;
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::pressure::probe::psi::{Registered, StallTotals, Trigger};

/// Long enough for a busy machine; met only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn empty() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("create directory");
    fs::write(path, content).expect("write file");
}

fn watching(root: &Path, path: &OsStr) -> (Pushes, mpsc::Receiver<Push>) {
    Pushes::start(root, &|name| {
        (name == notify::WATCH).then(|| path.to_owned())
    })
}

/// The next push; `None` if there is none in time.
fn next(pushed: &mut mpsc::Receiver<Push>, within: Duration) -> Result<Push, TryRecvError> {
    let began = Instant::now();
    loop {
        match pushed.try_recv() {
            Err(TryRecvError::Empty) if began.elapsed() < within => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn ends_soon(pushes: Pushes) {
    let began = Instant::now();
    drop(pushes);
    assert!(began.elapsed() < PATIENCE);
}

fn fifo(root: &TempDir) -> PathBuf {
    let path = root.path().join("fifo");
    rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("FIFO");
    path
}

fn writer(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).expect("open")
}

#[test]
fn without_anything_to_poll_there_is_no_thread() {
    let root = empty();
    let (pushes, mut pushed) = Pushes::start(root.path(), &|_| None);
    assert!(!pushes.is_waiting());
    assert_eq!(pushed.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn dev_null_leaves_nothing_to_poll() {
    let root = empty();
    put(root.path(), "proc/pressure/memory", "some total=5\n");
    let (pushes, mut pushed) = watching(root.path(), OsStr::new("/dev/null"));
    assert!(!pushes.is_waiting());
    assert_eq!(pushed.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_word_in_the_fifo_is_a_push_and_dropping_ends_the_thread() {
    let root = empty();
    let path = fifo(&root);
    let (pushes, mut pushed) = watching(root.path(), path.as_os_str());
    assert!(pushes.is_waiting());
    for _ in 0..3 {
        // As every service manager would: open, write, close.
        writer(&path).write_all(b"x").expect("write");
        assert_eq!(next(&mut pushed, PATIENCE), Ok(Push::Notified));
    }
    ends_soon(pushes);
    assert_eq!(pushed.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_flood_is_ten_pushes_a_second() {
    let root = empty();
    let path = fifo(&root);
    let (pushes, mut pushed) = watching(root.path(), path.as_os_str());
    let enough = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = writer(&path);
            while !enough.load(Ordering::Relaxed) {
                writer.write_all(&[b'x'; 64]).expect("write");
            }
        });
        let mut count = 0;
        while count == 0 && began.elapsed() < PATIENCE
            || began.elapsed() < Duration::from_millis(650)
        {
            count += u32::from(next(&mut pushed, Duration::from_millis(50)).is_ok());
        }
        enough.store(true, Ordering::Relaxed);
        let most = began.elapsed().as_millis() / REST.as_millis() + 1;
        assert!(count >= 1 && u128::from(count) <= most, "{count} of {most}");
    });
    ends_soon(pushes);
}

#[test]
fn a_full_queue_and_a_listener_gone_hold_nobody_up() {
    let root = empty();
    let path = fifo(&root);
    let (pushes, pushed) = watching(root.path(), path.as_os_str());
    drop(pushed);
    writer(&path).write_all(b"x").expect("write");
    ends_soon(pushes);

    let (sender, mut pushed) = mpsc::channel(1);
    let opened = notify::open(root.path(), &|name| {
        (name == notify::WATCH).then(|| path.clone().into_os_string())
    });
    let Watch::Stream(stream) = opened.watch else {
        panic!("{opened:?}")
    };
    sender.try_send(Push::GroupEvents).expect("room for one");
    let sources = vec![Source::new(Kind::Stream(stream), path.clone())];
    let thread = spawn(sources, sender).ok();
    writer(&path).write_all(b"x").expect("write");
    thread::sleep(REST);
    ends_soon(Pushes { thread });
    assert_eq!(pushed.try_recv(), Ok(Push::GroupEvents));
    assert_eq!(pushed.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_socket_that_ends_is_dropped_after_its_last_word() {
    let root = empty();
    let path = root.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    let (pushes, mut pushed) = watching(root.path(), path.as_os_str());
    let (mut other, _) = listener.accept().expect("accept");
    other.write_all(b"x").expect("write");
    drop(other);
    assert_eq!(next(&mut pushed, PATIENCE), Ok(Push::Notified));
    // It was the only source, so the thread ends by itself.
    assert_eq!(next(&mut pushed, PATIENCE), Err(TryRecvError::Disconnected));
    ends_soon(pushes);
}

#[test]
fn what_is_wrong_with_the_variable_leaves_the_rest_working() {
    let root = empty();
    put(root.path(), "proc/pressure/memory", "some total=5\n");
    for path in ["relative", "/nowhere/at/all", "/"] {
        let (pushes, mut pushed) = watching(root.path(), OsStr::new(path));
        assert!(pushes.is_waiting(), "{path}");
        assert_eq!(pushed.try_recv(), Err(TryRecvError::Empty));
        ends_soon(pushes);
    }
}

#[test]
fn the_first_psi_event_needs_stalls_and_later_ones_do_not() {
    let root = empty();
    put(root.path(), "pressure", "some total=1000000\n");
    let path = root.path().join("pressure");
    let psi = |totals: Option<StallTotals>| Kind::Psi {
        watch: PsiWatch {
            registered: Registered {
                file: File::open(&path).expect("open"),
                trigger: Trigger::parse(psi::DEFAULT_TRIGGER),
            },
            path: path.clone(),
            totals,
        },
        had_event: false,
    };
    let since = |some: u64| {
        Some(StallTotals {
            some: Duration::from_micros(some),
            full: Duration::ZERO,
        })
    };
    for (totals, first) in [
        (since(950_000), None),
        (since(900_000), Some(Push::Notified)),
        (None, None),
    ] {
        let mut source = psi(totals);
        assert_eq!(source.take(PollFlags::PRI).expect("lasts"), first);
        let later = source.take(PollFlags::PRI).expect("lasts");
        assert_eq!(later, Some(Push::Notified));
        assert!(source.take(PollFlags::PRI | PollFlags::ERR).is_err());
    }
}

#[test]
fn group_events_last_as_long_as_the_file() {
    let root = empty();
    put(root.path(), "memory.events", "max 1\n");
    let file = File::open(root.path().join("memory.events")).expect("open");
    let mut source = Kind::GroupEvents(file);
    let changed = PollFlags::PRI | PollFlags::ERR;
    let push = source.take(changed).expect("lasts");
    assert_eq!(push, Some(Push::GroupEvents));
    let directory = File::open(root.path()).expect("open");
    assert!(Kind::GroupEvents(directory).take(changed).is_err());
}

#[test]
fn both_kinds_of_groups_are_watched_where_they_have_limits() {
    let root = empty();
    put(root.path(), "proc/self/cgroup", "4:memory:/b\n0::/a\n");
    let v1 = "sys/fs/cgroup/memory/b";
    put(
        root.path(),
        &format!("{v1}/memory.limit_in_bytes"),
        "1000\n",
    );
    put(root.path(), "sys/fs/cgroup/a/memory.max", "500\n");
    put(root.path(), "sys/fs/cgroup/a/memory.events", "max 0\n");
    let kinds = || -> Vec<_> {
        let (sources, problems) = sources(root.path(), &|_| None);
        assert!(problems.is_empty(), "{problems:?}");
        sources
            .into_iter()
            .map(|source| match source.kind {
                Kind::GroupEvents(_) => None,
                Kind::V1(event) => Some(event.of),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    // Without the files it takes, marks are done without.
    assert_eq!(kinds(), [None]);
    put(root.path(), &format!("{v1}/memory.usage_in_bytes"), "10\n");
    put(root.path(), &format!("{v1}/cgroup.event_control"), "");
    assert_eq!(kinds(), [None, Some(Of::Usage(700)), Some(Of::Usage(850))]);
    let order = fs::read_to_string(root.path().join(v1).join("cgroup.event_control"));
    let order = order.expect("read");
    let fields: Vec<_> = order.split(' ').map(str::parse::<u64>).collect();
    assert!(matches!(&fields[..], [Ok(_), Ok(_), Ok(850)]), "{order:?}");
}

#[test]
fn only_a_rise_over_the_mark_is_a_push() {
    let root = empty();
    put(root.path(), "memory.usage_in_bytes", "699\n");
    put(root.path(), "cgroup.event_control", "");
    let mark = V1Event::set(root.path(), Of::Usage(700)).expect("set");
    let cross = || rustix::io::write(&mark.told, &1_u64.to_ne_bytes()).expect("write");
    cross();
    assert_eq!(mark.take().expect("read"), None);
    put(root.path(), "memory.usage_in_bytes", "700\n");
    cross();
    assert_eq!(mark.take().expect("read"), Some(Push::UsageMark(700)));
}

#[test]
fn what_is_refused_is_told_once() {
    let root = empty();
    put(root.path(), "proc/self/cgroup", "4:memory:/b\n0::/a\n");
    put(root.path(), "sys/fs/cgroup/a/memory.max", "500\n");
    let group = "sys/fs/cgroup/memory/b";
    for (name, content) in [
        ("memory.limit_in_bytes", "1000\n"),
        ("memory.usage_in_bytes", "10\n"),
        ("memory.oom_control", "under_oom 0\n"),
    ] {
        put(root.path(), &format!("{group}/{name}"), content);
    }
    // Directories where there should be files: nobody, not even root, can
    // write one or read the other.
    for name in [
        "sys/fs/cgroup/a/memory.events",
        "sys/fs/cgroup/memory/b/cgroup.event_control",
    ] {
        fs::create_dir_all(root.path().join(name)).expect("create directory");
    }
    put(root.path(), "data", "precious");
    let data = root.path().join("data");
    let (sources, problems) = sources(root.path(), &|name| {
        (name == notify::WATCH).then(|| data.clone().into_os_string())
    });
    assert!(sources.is_empty(), "{sources:?}");
    let told: Vec<_> = problems
        .iter()
        .map(|problem| format!("{problem:#}"))
        .collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    for (problem, path) in told.iter().zip(["data", "memory.events", "memory/b"]) {
        assert!(problem.contains(path), "{problem}");
    }
    assert_eq!(fs::read(&data).expect("read"), b"precious");
}

/// A v1 group of its own, removed in the end.
struct OwnGroup(PathBuf);

impl OwnGroup {
    /// Says why where there can be none.
    fn make(limit_bytes: u64) -> Result<Self, String> {
        let path = PathBuf::from(format!(
            "/sys/fs/cgroup/memory/filed-pushes-{}",
            std::process::id()
        ));
        fs::create_dir(&path).map_err(|error| format!("no v1 group can be made: {error}"))?;
        let group = Self(path);
        // Without swap, where it is counted, so that the limit is one.
        fs::write(
            group.0.join("memory.limit_in_bytes"),
            limit_bytes.to_string(),
        )
        .map_err(|error| format!("no limit can be set: {error}"))?;
        let _ = fs::write(
            group.0.join("memory.memsw.limit_in_bytes"),
            limit_bytes.to_string(),
        );
        Ok(group)
    }

    /// Runs a command in the group until its end.
    fn run(&self, command: &str) {
        let status = std::process::Command::new("sh")
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec $1"])
            .arg(&self.0)
            .arg(command)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        status.expect("sh");
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_kernel_tells_of_marks_of_the_end_of_memory_and_of_the_end_of_the_group() {
    let limit_bytes = 32 << 20;
    let group = match OwnGroup::make(limit_bytes) {
        Ok(group) => group,
        Err(why) => {
            println!("SKIPPED: {why}");
            return;
        }
    };
    // The group as the only one below a root of our own.
    let root = empty();
    put(root.path(), "proc/self/cgroup", "4:memory:/\n");
    fs::create_dir_all(root.path().join("sys/fs/cgroup")).expect("create directory");
    std::os::unix::fs::symlink(&group.0, root.path().join("sys/fs/cgroup/memory")).expect("link");
    let (pushes, mut pushed) = Pushes::start(root.path(), &|_| None);
    assert!(pushes.is_waiting());

    // 25 MiB of page cache, which stays when the command has ended.
    let file = root.path().join("file").display().to_string();
    group.run(&format!("dd if=/dev/zero of={file} bs=1M count=25"));
    let mark = Push::UsageMark(limit_bytes / 100 * 70);
    assert_eq!(next(&mut pushed, PATIENCE), Ok(mark));

    // A block larger than the group may be, for which it is killed.
    group.run("dd if=/dev/zero of=/dev/null bs=256M count=1");
    loop {
        match next(&mut pushed, PATIENCE) {
            Ok(Push::UsageMark(_)) => {}
            other => {
                assert_eq!(other, Ok(Push::GroupEvents));
                break;
            }
        }
    }

    // A group that is gone ends all that came from it, and the thread with it.
    fs::remove_dir(&group.0).expect("remove group");
    while let Ok(push) = next(&mut pushed, PATIENCE) {
        assert!(matches!(push, Push::UsageMark(_) | Push::GroupEvents));
    }
    assert_eq!(pushed.try_recv(), Err(TryRecvError::Disconnected));
    ends_soon(pushes);
}

#[test]
fn on_this_machine_it_starts_and_ends() {
    let (pushes, _pushed) = Pushes::start(Path::new("/"), &|_| None);
    if !pushes.is_waiting() {
        println!("SKIPPED: nothing tells of memory pressure here");
    }
    ends_soon(pushes);
}
