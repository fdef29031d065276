use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, Mode};
use tempfile::TempDir;

use super::*;

type Calls = RefCell<Vec<(PathBuf, Vec<u8>)>>;

/// Takes every trigger on a file that is there, and remembers it.
fn taking(calls: &Calls) -> impl Fn(&Path, &[u8]) -> Result<Registered, ProbeError> {
    move |path, bytes| {
        let file = File::open(path).map_err(|error| ProbeError::watch(path, error))?;
        calls.borrow_mut().push((path.to_owned(), bytes.to_vec()));
        let trigger = psi::Trigger::parse(bytes);
        Ok(Registered { file, trigger })
    }
}

fn with(
    variables: &[(&str, &OsStr)],
    root: &Path,
    register: &Register<'_>,
) -> (Watch, Vec<NotifyError>) {
    let lookup = |name: &str| {
        let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
        Some((*value).to_owned())
    };
    let opened = open_with(root, &lookup, register);
    (opened.watch, opened.problems)
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

/// A root where the host counts stalls.
fn with_host_file() -> TempDir {
    let root = empty();
    put(&root, "proc/pressure/memory", "some total=5\n");
    root
}

fn put(root: &TempDir, path: &str, content: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("create directory");
    fs::write(path, content).expect("write file");
}

fn fifo(root: &TempDir) -> PathBuf {
    let path = root.path().join("fifo");
    rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("FIFO");
    path
}

fn stream(watch: Watch) -> Stream {
    match watch {
        Watch::Stream(stream) => stream,
        other => panic!("{other:?}"),
    }
}

#[test]
fn dev_null_switches_everything_off() {
    let calls = Calls::default();
    let (watch, problems) = with(
        &[(WATCH, OsStr::new("/dev/null"))],
        with_host_file().path(),
        &taking(&calls),
    );
    assert!(matches!(watch, Watch::Off));
    assert!(problems.is_empty() && calls.take().is_empty());
}

#[test]
fn without_variables_our_group_comes_before_the_host() {
    let calls = Calls::default();
    let root = with_host_file();
    let (watch, problems) = with(&[], root.path(), &taking(&calls));
    let Watch::Psi(psi) = watch else {
        panic!("{watch:?}")
    };
    assert!(problems.is_empty());
    assert_eq!(
        psi.totals.map(|totals| totals.some.as_micros()),
        Some(5),
        "{psi:?}"
    );
    put(&root, "proc/self/cgroup", "0::/a/b\n");
    put(&root, "sys/fs/cgroup/a/memory.pressure", "some total=7\n");
    with(&[], root.path(), &taking(&calls));
    let expected = ["proc/pressure/memory", "sys/fs/cgroup/a/memory.pressure"]
        .map(|path| (root.path().join(path), DEFAULT_TRIGGER.to_vec()));
    assert_eq!(calls.take(), expected);
}

#[test]
fn a_group_that_refuses_is_passed_over_for_the_host() {
    let root = with_host_file();
    put(&root, "sys/fs/cgroup/memory.pressure", "some total=7\n");
    let refusing = |path: &Path, bytes: &[u8]| {
        if path.ends_with("memory.pressure") {
            let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
            return Err(ProbeError::watch(path, error));
        }
        taking(&Calls::default())(path, bytes)
    };
    let (watch, problems) = with(&[], root.path(), &refusing);
    assert!(matches!(watch, Watch::Psi(psi) if psi.path.ends_with("proc/pressure/memory")));
    assert!(problems.is_empty());
}

#[test]
fn refusal_everywhere_is_told_once_and_absence_never() {
    let refusing = |path: &Path, _: &[u8]| {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        Err(ProbeError::watch(path, error))
    };
    let root = with_host_file();
    put(&root, "sys/fs/cgroup/memory.pressure", "some total=7\n");
    let (watch, problems) = with(&[], root.path(), &refusing);
    assert!(matches!(watch, Watch::Nothing));
    assert_eq!(problems.len(), 1);
    let (watch, problems) = with(&[], empty().path(), &psi::register);
    assert!(matches!(watch, Watch::Nothing));
    assert!(problems.is_empty());
}

#[test]
fn what_cannot_be_used_is_told_once_and_replaced() {
    let root = with_host_file();
    put(&root, "data", "precious");
    let data = root.path().join("data");
    let missing = root.path().join("missing");
    let fifo = fifo(&root);
    let long = "A".repeat(5000);
    let cases: [(&OsStr, Option<&str>); 10] = [
        (OsStr::new("relative/path"), None),
        (OsStr::new(""), None),
        (missing.as_os_str(), None),
        (root.path().as_os_str(), None),
        (data.as_os_str(), Some("c29tZQ==")),
        (OsStr::new("/dev/zero"), None),
        (fifo.as_os_str(), Some("not Base64!")),
        (fifo.as_os_str(), Some("c29tZQ=")),
        (fifo.as_os_str(), Some(&long)),
        (OsStr::from_bytes(b"/a\0b"), None),
    ];
    for (path, write) in cases {
        let mut variables = vec![(WATCH, path)];
        variables.extend(write.map(|write| (WRITE, OsStr::new(write))));
        let calls = Calls::default();
        let (watch, problems) = with(&variables, root.path(), &taking(&calls));
        assert_eq!(problems.len(), 1, "{path:?}: {problems:?}");
        assert!(
            matches!(watch, Watch::Psi(psi) if psi.path.ends_with("proc/pressure/memory")),
            "{path:?}"
        );
    }
    assert_eq!(fs::read(&data).expect("read"), b"precious");
}

#[test]
fn words_without_a_path_are_of_no_use() {
    let (watch, problems) = with(
        &[(WRITE, OsStr::new("not Base64!"))],
        empty().path(),
        &psi::register,
    );
    assert!(matches!(watch, Watch::Nothing));
    assert!(problems.is_empty());
}

#[test]
fn a_named_psi_file_gets_the_words_as_they_are() {
    let path = Path::new("/proc/pressure/memory");
    if !path.exists() {
        println!("SKIPPED: this kernel does not count stalls");
        return;
    }
    let words = BASE64_STANDARD.encode(b"full 70000 2000000\0");
    let named = (WATCH, path.as_os_str());
    let calls = Calls::default();
    let (watch, problems) = with(
        &[named, (WRITE, OsStr::new(&words))],
        empty().path(),
        &taking(&calls),
    );
    assert!(matches!(watch, Watch::Psi(_)) && problems.is_empty());
    with(&[named], empty().path(), &taking(&calls));
    let written: Vec<_> = calls.take().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(
        written,
        [b"full 70000 2000000\0".to_vec(), DEFAULT_TRIGGER.to_vec()]
    );
}

#[test]
fn our_own_words_in_a_fifo_are_no_event() {
    let root = empty();
    let path = fifo(&root);
    let variables = [
        (WATCH, path.as_os_str()),
        (WRITE, OsStr::new("aGVsbG8AIHRoZXJl")),
    ];
    let (watch, problems) = with(&variables, root.path(), &psi::register);
    assert!(problems.is_empty());
    let mut stream = stream(watch);
    assert_eq!(stream.drain().expect("reads"), Drained::Nothing);
    let mut other = OpenOptions::new().write(true).open(&path).expect("open");
    other.write_all(b"x").expect("write");
    assert_eq!(stream.drain().expect("reads"), Drained::Event);
    drop(other);
    assert_eq!(stream.drain().expect("reads"), Drained::Nothing);
}

#[test]
fn an_event_beside_our_own_words_is_one() {
    let root = empty();
    let path = fifo(&root);
    // Already there when we open.
    let mut other = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("open");
    other.write_all(b"x").expect("write");
    let variables = [(WATCH, path.as_os_str()), (WRITE, OsStr::new("aGVsbG8="))];
    let mut first = stream(with(&variables, root.path(), &psi::register).0);
    assert_eq!(first.drain().expect("reads"), Drained::Event);
    // The other side was quicker to read than we are.
    let mut second = stream(with(&variables, root.path(), &psi::register).0);
    let mut words = [0; 5];
    other.read_exact(&mut words).expect("read");
    assert_eq!(&words, b"hello");
    other.write_all(b"!").expect("write");
    assert_eq!(second.drain().expect("reads"), Drained::Event);
}

#[test]
fn a_socket_gets_the_words_and_tells_until_its_end() {
    let root = empty();
    let path = root.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    let variables = [(WATCH, path.as_os_str()), (WRITE, OsStr::new("aGVsbG8A"))];
    let (watch, problems) = with(&variables, root.path(), &psi::register);
    assert!(problems.is_empty(), "{problems:?}");
    let mut stream = stream(watch);
    let (mut other, _) = listener.accept().expect("accept");
    let mut words = [0; 6];
    other.read_exact(&mut words).expect("read");
    assert_eq!(&words, b"hello\0");
    assert_eq!(stream.drain().expect("reads"), Drained::Nothing);
    other.write_all(b"now").expect("write");
    drop(other);
    assert_eq!(stream.drain().expect("reads"), Drained::Event);
    assert_eq!(stream.drain().expect("reads"), Drained::End);
}

#[test]
fn a_socket_nobody_listens_at_is_a_problem() {
    let root = empty();
    let path = root.path().join("socket");
    drop(UnixListener::bind(&path).expect("bind"));
    let (watch, problems) = with(&[(WATCH, path.as_os_str())], root.path(), &psi::register);
    assert!(matches!(watch, Watch::Nothing));
    assert_eq!(problems.len(), 1);
}
