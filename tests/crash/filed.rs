//! Running the program, and ending it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use filed::store::Store;
use rustix::process::{Pid, Signal};
use serde_json::Value;

/// Nothing is measured with this: it only keeps a test from hanging for ever.
const DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks at something that cannot be waited for.
const GLANCE: Duration = Duration::from_micros(200);

/// The program with a store of its own and nobody's configuration.
pub(crate) struct Filed {
    store: PathBuf,
    variables: Vec<(&'static str, &'static str)>,
}

/// How a process ended and what it said.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Filed {
    /// The program, to be used with the store at `store`.
    pub(crate) fn new(store: &Path) -> Filed {
        Filed {
            store: store.to_owned(),
            variables: Vec::new(),
        }
    }

    /// Sets a variable of its environment.
    pub(crate) fn with(mut self, variable: &'static str, value: &'static str) -> Filed {
        self.variables.push((variable, value));
        self
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The store, opened here.
    pub(crate) fn open(&self) -> Store {
        Store::open(&self.store).unwrap()
    }

    /// The command with these arguments; its store comes first.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_filed"));
        command
            .env_clear()
            .envs(self.variables.iter().copied())
            .env("HOME", "/nonexistent")
            .arg("--store")
            .arg(&self.store)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it to its end, which must be a good one.
    pub(crate) fn succeed<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        let ended = self.run(arguments);
        let shown: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        assert_eq!(ended.code(), Some(0), "{shown:?}: {}", ended.stderr);
        ended
    }

    /// Takes in these paths, all of them, and gives the report.
    pub(crate) fn take_in<S: AsRef<OsStr>>(&self, paths: &[S]) -> Ended {
        let mut arguments: Vec<OsString> = ["process", "--json", "--quiet"].map(Into::into).into();
        arguments.extend(paths.iter().map(|path| path.as_ref().to_owned()));
        self.succeed(&arguments)
    }

    /// Verifies every byte of the store; it must be clean. Gives the number of pieces in it.
    pub(crate) fn verify(&self) -> u64 {
        let ended = self.succeed(&["verify", "--json", "--quiet"]);
        let summary = ended.summary();
        assert_eq!(summary["damaged"], 0);
        assert_eq!(summary["lost_versions"], 0);
        summary["pieces"].as_u64().unwrap()
    }

    /// Starts it. Its standard error is kept for the end.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Starts it with standard input to be written to.
    pub(crate) fn start_fed<S: AsRef<OsStr>>(&self, arguments: &[S]) -> (Running, ChildStdin) {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        let stdin = running.take_stdin();
        (running, stdin)
    }

    /// Bytes in all packs now.
    pub(crate) fn pack_bytes(&self) -> u64 {
        bytes_below(&self.store.join("packs"))
    }
}

/// Length of all files below a folder; what is not there (any more) is nothing.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

impl Ended {
    /// The exit code; `None` if a signal killed it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether SIGKILL ended it.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw())
    }

    /// The lines of JSON that were written whole.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Lines about files.
    pub(crate) fn files(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["type"] == "file");
        lines
    }

    /// The line about the file with this name.
    pub(crate) fn file(&self, name: &str) -> Value {
        let files = self.files();
        let found = files.iter().find(|line| line["name"] == name);
        found
            .unwrap_or_else(|| panic!("no line about {name}"))
            .clone()
    }

    /// The last line, which sums up.
    pub(crate) fn summary(&self) -> Value {
        let summary = self.lines().pop().unwrap();
        assert_eq!(summary["type"], "summary");
        summary
    }
}

/// A process that was started. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

/// What was happening when somebody looked at a running process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// What was waited for.
    Event,
    /// Its end, before that.
    End,
}

impl Running {
    /// Starts a command made with [`Filed::command`].
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        Running {
            child,
            stdout,
            stderr: stderr.map(|stderr| thread::spawn(move || read_bytes(stderr))),
        }
    }

    /// Waits until `event` is the case, or the process has ended.
    pub(crate) fn wait_until(&mut self, mut event: impl FnMut() -> bool) -> Seen {
        let began = Instant::now();
        loop {
            if event() {
                return Seen::Event;
            }
            if self.child.try_wait().unwrap().is_some() {
                return Seen::End;
            }
            assert!(began.elapsed() < DEADLINE, "waited for something in vain");
            thread::sleep(GLANCE);
        }
    }

    /// Waits until it would hear a SIGINT.
    pub(crate) fn wait_until_it_listens(&mut self) {
        let status = format!("/proc/{}/status", self.child.id());
        let listens = || {
            let status = fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
            caught & (1 << (Signal::INT.as_raw() - 1)) != 0
        };
        assert_eq!(self.wait_until(listens), Seen::Event);
    }

    /// Reads lines of its standard output until one satisfies `enough` and gives those up to it. What
    /// was read ahead is kept.
    pub(crate) fn read_until(
        &mut self,
        mut enough: impl FnMut(&Value) -> bool,
    ) -> (Seen, Vec<u8>, BufReader<ChildStdout>) {
        let mut reader = BufReader::new(self.stdout.take().unwrap());
        let mut read = Vec::new();
        loop {
            let start = read.len();
            reader.read_until(b'\n', &mut read).unwrap();
            let line = &read[start..];
            if !line.ends_with(b"\n") {
                return (Seen::End, read, reader);
            }
            if enough(&serde_json::from_slice(line).unwrap()) {
                return (Seen::Event, read, reader);
            }
        }
    }

    /// Takes its standard input, which was piped.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end and gives what it said.
    pub(crate) fn end(mut self) -> Ended {
        let stdout = self.stdout.take();
        let drain = thread::spawn(move || stdout.map(read_bytes).unwrap_or_default());
        self.wait_until(|| false);
        let stderr = self.stderr.take();
        let stderr = stderr.map(|thread| thread.join().unwrap());
        Ended {
            status: self.child.wait().unwrap(),
            stdout: drain.join().unwrap(),
            stderr: String::from_utf8(stderr.unwrap_or_default()).unwrap(),
        }
    }

    /// Kills it as soon as `event` is the case.
    pub(crate) fn kill_when(mut self, event: impl FnMut() -> bool) -> Ended {
        let stdout = self.stdout.take().unwrap();
        let drain = thread::spawn(move || read_bytes(stdout));
        if self.wait_until(event) == Seen::Event {
            self.signal(Signal::KILL);
        }
        let mut ended = self.end();
        ended.stdout = drain.join().unwrap();
        ended
    }

    /// Kills it as soon as a line that satisfies `enough` was read from its standard output.
    pub(crate) fn kill_at(mut self, enough: impl FnMut(&Value) -> bool) -> Ended {
        let (_, mut read, mut rest) = self.read_until(enough);
        // A child that ended already is not reaped yet, so its number is still its own.
        self.signal(Signal::KILL);
        rest.read_to_end(&mut read).unwrap();
        let mut ended = self.end();
        ended.stdout = read;
        ended
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_bytes(mut stream: impl Read) -> Vec<u8> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).unwrap();
    read
}
